"""The child's side of describe.py: open a GGUF without its weights and say on one line of JSON what it is.

Run as a script, by its path, with the folders to import from (JSON) and the file.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path


def main() -> None:
    """Print the fields of a `Shape`, or {"error"} with llama.cpp's reason."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.environ["GGML_NO_BACKTRACE"] = "1"
    folders, path = sys.argv[1:]
    sys.path[:] = [*json.loads(folders), str(Path(__file__).resolve().parents[2])]
    from scope_edge.llama import native

    native.start()
    try:
        body: dict[str, object] = asdict(native.shape_of(Path(path)))
    except (native.NativeError, ValueError) as error:
        body = {"error": " ".join(str(error).split())}
    answers.write(json.dumps(body) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
