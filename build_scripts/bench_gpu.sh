#!/usr/bin/env bash
# Builds llama-cpp-python with CUDA for this machine's GPU and measures scope-edge on it (benchmarks/gpu.sh), in one command:
#
#     build_scripts/bench_gpu.sh [SDIST]
#
# SDIST: a llama-cpp-python source archive, for a machine without a network (then scikit-build-core, ninja, gguf and the rest of
# the project's requirements must be installed already); without it, pip finds one. Needs nvcc, cmake and a C++ compiler. The build
# is made for this GPU's architecture alone and without what scope-edge does not use; it takes minutes on many cores.
# PYTHON, FOLDER and OUT are benchmarks/gpu.sh's; PYTHON makes the environment .venv-gpu.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
architecture=$(nvidia-smi --id=0 --query-gpu=compute_cap --format=csv,noheader | tr -d '. ')
# GGML_NATIVE would take AMX where there is some, on which the `Llama` we compare with crashes.
export CMAKE_ARGS="-DGGML_CUDA=on -DGGML_NATIVE=off -DGGML_CUDA_NCCL=off -DCMAKE_CUDA_ARCHITECTURES=$architecture-real
    -DLLAVA_BUILD=off -DLLAMA_OPENSSL=off"

if [ $# -gt 0 ]; then
    "$python" -m venv --system-site-packages .venv-gpu
    .venv-gpu/bin/pip install --no-build-isolation --no-deps --force-reinstall "$1"
else
    "$python" -m venv .venv-gpu
    .venv-gpu/bin/pip install ".[convert]"
    .venv-gpu/bin/pip install --no-cache-dir --no-binary llama-cpp-python llama-cpp-python
fi
PYTHON=$PWD/.venv-gpu/bin/python exec benchmarks/gpu.sh
