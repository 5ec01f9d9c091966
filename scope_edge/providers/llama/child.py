"""The script of every process that loads llama.cpp: a worker, or one question or quantization that llama.cpp may crash on.

Run by its path with the folders to import from (JSON) and a task: "worker"; "build" or "read" and a GGUF's path, each answered by
one line of JSON; "quantize" and source, target, llama.cpp's number of the kind, threads (0 = all).
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
from pathlib import Path

# Bytes of a tensor in memory at once; llama.cpp would take 8 GiB.
_BUFFER = 512 * 2**20


def main() -> int:
    """Do the task; return the exit code."""
    folders, task, *arguments = sys.argv[1:]
    # Our own package comes last: its folder may be the current one, and must not hide an installed library.
    sys.path[:] = [*json.loads(folders), str(Path(__file__).resolve().parents[3])]
    os.environ["GGML_NO_BACKTRACE"] = "1"  # an assertion that fails would start a debugger
    if task == "quantize":
        return _quantize(*arguments)
    if task == "worker":
        from scope_edge.providers.llama import worker

        worker.main()
    # Native code prints to standard output as it likes: it gets standard error, the answer the real output.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    answers.write(json.dumps(_build() if task == "build" else _read(Path(arguments[0]))) + "\n")
    answers.flush()
    return 0


def _build() -> dict[str, str | bool]:
    """Return what llama.cpp was built with, or {"error"}."""
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        return {"error": " ".join(f"{type(error).__name__}: {error}".split())}
    return {
        "version": str(llama_cpp.__version__),
        "system_info": llama_cpp.llama_print_system_info().decode("utf-8", "replace").strip(),
        "gpu_offload": bool(llama_cpp.llama_supports_gpu_offload()),
    }


def _read(path: Path) -> dict[str, str | None]:
    """Open a GGUF without its weights; the error is null when llama.cpp can read it."""
    from scope_edge.providers.llama import native

    native.start()
    try:
        native.open_model(path, vocabulary_only=True)
    except native.NativeError as error:
        return {"error": " ".join(str(error).split())}
    return {"error": None}


def _quantize(source: str, target: str, kind: str, threads: str) -> int:
    """Return 0 when llama.cpp quantized the file; it prints its progress to standard error."""
    # The file is of no use once the parent is gone.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = int(kind), int(threads)
    if hasattr(params, "max_buf_size"):  # in newer versions
        params.max_buf_size = _BUFFER
    llama_cpp.llama_backend_init()
    return int(llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params)))


def _end_with_parent() -> None:
    while os.read(0, 4096):  # not sys.stdin: a thread that holds it would stop Python from ending
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
