#!/usr/bin/env bash
# Measures the installed llama.cpp on this machine's GPU, with models of random weights, and goes the user's way once:
#
#     benchmarks/gpu.sh
#
# Prints what the machine is and what scope-edge finds there, the estimator's table (estimator.py) and the device model's
# streams (host.py), what becomes of a model when another program holds the GPU's memory (gpu_full.py), and `doctor`,
# `estimator install`, `route --estimator gguf` and `ask --local-only` with their answers. Takes minutes. A step that fails or
# runs out of its time is said so, and the others follow. build_scripts/bench_gpu.sh builds llama.cpp first. Settings:
#
#     PYTHON        the interpreter that has scope-edge's requirements and llama-cpp-python (python3)
#     FOLDER        where the models are kept, 3 GB (a temporary one, deleted at the end)
#     OUT           a folder: what is printed goes to gpu.txt in it as well, and GPU use to gpu-use.csv
#     SIZES         of random_gguf.py, in order; the last is the device model ("0.6b 4b")
#     GPU_LAYERS    0 goes through the same without a GPU (-1, all)
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
python=${PYTHON:-python3}
layers=${GPU_LAYERS:--1}
read -ra sizes <<< "${SIZES:-0.6b 4b}"
first=${sizes[0]}
device=${sizes[-1]}
work=$(mktemp -d)
folder=${FOLDER:-$work}
trap 'rm -rf "$work"' EXIT
mkdir -p "$folder"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export SCOPE_EDGE_DATA_DIR=$work/data SCOPE_EDGE_CACHE_DIR=$work/cache SCOPE_EDGE_CONFIG=$work/config.toml
use=${OUT:-$work}/gpu-use.csv
failed=()

step() { # NAME SECONDS COMMAND...: run it, say how long it took and how it ended
    local name=$1 limit=$2 begun=$SECONDS code=0 seen
    seen=$(lines)
    shift 2
    printf '\n== %s\n' "$name"
    timeout --kill-after=5 "$limit" "$@" < /dev/null 2>&1 || code=$?
    [ "$code" = 0 ] || failed+=("$name")
    case $code in
        0) printf -- '-- %s s' $((SECONDS - begun)) ;;
        124 | 137) printf -- '-- STOPPED after %s s' $((SECONDS - begun)) ;;
        *) printf -- '-- FAILED with %s after %s s' "$code" $((SECONDS - begun)) ;;
    esac
    most "$seen"
}

watch() { # write down the first GPU's use, four times a second
    : > "$use"
    command -v nvidia-smi > /dev/null || return 0
    nvidia-smi --id=0 --query-gpu=utilization.gpu,memory.used,power.draw --format=csv,noheader,nounits -lms 250 \
        > "$use" 2> /dev/null &
    watcher=$!
}

lines() { wc -l < "$use"; }

most() { # LINE: the most of the GPU that was in use since
    tail -n "+$(($1 + 1))" "$use" | awk -F', *' '
        { if ($1 > busy) busy = $1; if ($2 > held) held = $2; sum += $1 }
        END { if (NR) printf "; the GPU at most %d %% busy, %.0f %% on average, %d MiB in use", busy, sum / NR, held; print "" }'
}

user_files() { # a pool of a device model and one in the cloud, and questions with text that both have answered
    cat > "$SCOPE_EDGE_CONFIG" << END
pool = "gemma-2-2b-it,llama-3.1-70b-instruct"
[models."gemma-2-2b-it"]
gguf = "$folder/random-$device.gguf"
END
    mkdir -p "$work/sums"
    "$python" - > "$work/sums/anchor.jsonl" << 'END'
import json

for number in range(24):
    for model, tokens in (("gemma-2-2b-it", 60), ("llama-3.1-70b-instruct", 90)):
        row = {"id": number, "prompt": f"A farmer has {number + 3} baskets with {2 * number + 5} figs each. How many?",
               "model_name": model, "is_correct": number % 3 > 0 or tokens > 60, "category": "sums",
               "gt": str((number + 3) * (2 * number + 5)), "usage_prompt_tokens": 30, "usage_completion_tokens": tokens}
        print(json.dumps(row))
END
}

all() {
    local query="A farmer has 12 baskets with 31 figs each. How many figs are there in all?"
    local edge=("$python" -m scope_edge) making=()
    watch
    step "machine" 60 bash -c 'nvidia-smi --query-gpu=name,memory.total,memory.free,driver_version --format=csv,noheader
        grep -m1 "model name" /proc/cpuinfo; echo "$(nproc) cores"'
    step "what scope-edge finds" 90 "$python" -c '
from scope_edge.providers.llama.memory import find_gpus
from scope_edge.providers.llama.probe import probe_llama
print(*find_gpus(), probe_llama(), sep="\n")'
    for size in "${sizes[@]}"; do
        [ -f "$folder/random-$size.gguf" ] || { "$python" benchmarks/random_gguf.py "$size" "$folder/random-$size.gguf" & making+=($!); }
    done
    [ ${#making[@]} = 0 ] || wait "${making[@]}"
    user_files
    step "doctor" 120 "${edge[@]}" doctor
    step "does it fit" 60 "${edge[@]}" models add "$folder/random-$device.gguf" --estimate-only
    step "install an estimator" 120 "${edge[@]}" estimator install "$folder/random-$first.gguf"
    step "anchors with text" 60 "${edge[@]}" estimator anchors "$work/sums"
    step "route, the estimator asked" 120 "${edge[@]}" route --estimator gguf --explain "$query"
    step "route, the estimator asked where it is fast enough" 60 "${edge[@]}" route --json "$query"
    step "ask on the device" 120 "${edge[@]}" ask --local-only --max-tokens 300 "$query"
    step "a full GPU" 240 "$python" benchmarks/gpu_full.py "$folder/random-$first.gguf" --gpu-layers "$layers"
    for size in "${sizes[@]}"; do
        step "estimator, $size" "${LIMIT:-180}" "$python" benchmarks/estimator.py "$folder/random-$size.gguf" \
            --gpu-layers "$layers" --modes cot,direct --together 1,7 --single 2 --fresh 4 ${ESTIMATOR:-}
    done
    step "streams of a device model, $device" "${LIMIT:-180}" "$python" benchmarks/host.py "$folder/random-$device.gguf" \
        --streams 1 8 32 64 --rounds 2 ${HOST:-}
    [ -z "${watcher:-}" ] || kill "$watcher"
    printf '\n%s s in all; failed: %s\n' "$SECONDS" "${failed[*]:-none}"
    [ ${#failed[@]} = 0 ]
}

all 2>&1 | if [ -n "${OUT:-}" ]; then tee "$OUT/gpu.txt"; else cat; fi
