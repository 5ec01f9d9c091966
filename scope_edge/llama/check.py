"""The child's side of describe.py: open a GGUF without its weights and say on one line of JSON whether llama.cpp can read it.

Run as a script, by its path, with the folders to import from (JSON) and the file.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main() -> None:
    """Print {"error"}: llama.cpp's reason, null when it can read it."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.environ["GGML_NO_BACKTRACE"] = "1"
    folders, path = sys.argv[1:]
    sys.path[:] = [*json.loads(folders), str(Path(__file__).resolve().parents[2])]
    from scope_edge.llama import native

    native.start()
    try:
        native.check(Path(path))
        problem = None
    except native.NativeError as error:
        problem = " ".join(str(error).split())
    answers.write(json.dumps({"error": problem}) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
