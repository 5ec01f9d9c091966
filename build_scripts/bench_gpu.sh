#!/usr/bin/env bash
# Builds llama-cpp-python with CUDA and runs the estimator's benchmark on the GPU, in one command:
#
#     build_scripts/bench_gpu.sh [SDIST]
#
# SDIST: a llama-cpp-python source archive, for a machine without a network (then numpy, gguf, tokenizers and the rest of the
# project must be installed already); without it, pip finds one. Needs nvcc and cmake. Models of random weights are written to
# $FOLDER (default: a temporary folder, 3 GB). Results go to standard output and, when $OUT is set, to $OUT/gpu.txt.
# Decoding of all candidates together is measured beside one prompt at a time: on a GPU it is the point.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
folder=${FOLDER:-$(mktemp -d)}
log=${OUT:+$OUT/gpu.txt}

if [ $# -gt 0 ]; then
    "$python" -m venv --system-site-packages .venv-gpu
    CMAKE_ARGS="-DGGML_CUDA=on -DGGML_NATIVE=off" .venv-gpu/bin/pip install --no-build-isolation --no-deps --force-reinstall "$1"
else
    "$python" -m venv .venv-gpu
    .venv-gpu/bin/pip install ".[convert]"
    CMAKE_ARGS="-DGGML_CUDA=on" .venv-gpu/bin/pip install --no-binary llama-cpp-python llama-cpp-python
fi

{
    nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
    export PYTHONPATH=.
    for size in 0.6b 4b; do
        model=$folder/random-$size.gguf
        [ -f "$model" ] || .venv-gpu/bin/python benchmarks/random_gguf.py "$size" "$model"
        .venv-gpu/bin/python benchmarks/estimator.py "$model" --gpu-layers -1 --together 1,2,4,7 --single 7 --fresh 8
    done
} 2>&1 | if [ -n "$log" ]; then tee "$log"; else cat; fi
