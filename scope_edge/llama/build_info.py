"""The child's side of probe.py: import llama_cpp and say on one line of JSON what it was built with.

Run as a script, by its path, with the folders to import from as its argument; it imports nothing of scope-edge.
"""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    """Print {"version", "system_info", "gpu_offload"}, or {"error"} when llama_cpp cannot be imported."""
    # Native code prints to standard output as it likes: leave it standard error and keep the real one to ourselves.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.path[:] = json.loads(sys.argv[1])
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError, FileNotFoundError) as error:
        body: dict[str, str | bool] = {"error": " ".join(f"{type(error).__name__}: {error}".split())}
    else:
        body = {
            "version": str(llama_cpp.__version__),
            "system_info": llama_cpp.llama_print_system_info().decode("utf-8", "replace").strip(),
            "gpu_offload": bool(llama_cpp.llama_supports_gpu_offload()),
        }
    answer.write(json.dumps(body) + "\n")
    answer.flush()


if __name__ == "__main__":
    main()
