"""The child's side of probe.py and gguf.py: one question to llama.cpp, answered by one line of JSON.

Run as a script, by its path, with the folders to import from (JSON), then "build", or "read" and a GGUF's path.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main() -> None:
    """Print the answer; {"error"} says what went wrong."""
    # Native code prints to standard output as it likes: leave it standard error and keep the real one to ourselves.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.environ["GGML_NO_BACKTRACE"] = "1"  # an assertion that fails would start a debugger
    folders, what, *rest = sys.argv[1:]
    sys.path[:] = json.loads(folders)
    answers.write(json.dumps(_build() if what == "build" else _read(Path(rest[0]))) + "\n")
    answers.flush()


def _build() -> dict[str, str | bool]:
    """What llama.cpp was built with. Imports nothing of scope-edge."""
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
    # Last our own folder: it may be the current one, and must not hide an installed library.
    sys.path.append(next(str(one.parent) for one in Path(__file__).resolve().parents if one.name == "scope_edge"))
    from scope_edge.providers.llama import native

    native.start()
    try:
        native.open_model(path, vocabulary_only=True)
    except native.NativeError as error:
        return {"error": " ".join(str(error).split())}
    return {"error": None}


if __name__ == "__main__":
    main()
