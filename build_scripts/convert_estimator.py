"""Convert a Qwen3 checkpoint to a GGUF: `python build_scripts/convert_estimator.py FOLDER TARGET.gguf [--dtype bf16]`.

`scope-edge estimator install` does this and more; here is the step alone, for a file to keep or to hand on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from scope_edge.errors import ScopeEdgeError
from scope_edge.estimator.convert.gguf import About, convert_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="config.json, *.safetensors, tokenizer.json")
    parser.add_argument("target", type=Path)
    parser.add_argument("--dtype", choices=["auto", "f16", "bf16"], default="auto")
    parser.add_argument("--name", help="what the GGUF calls itself; else the folder's name")
    parser.add_argument("--licence", help="an SPDX id to write into it")
    parser.add_argument("--source", help="a URL to write into it")
    options = parser.parse_args()
    about = About(options.name, options.licence, options.source)
    try:
        convert_checkpoint(options.folder, options.target, dtype=options.dtype, about=about, progress=_show)
    except ScopeEdgeError as error:
        sys.exit(str(error))
    print(f"\n{options.target}: {options.target.stat().st_size} bytes")


def _show(done: int, total: int) -> None:
    print(f"\r{done / total:4.0%} of {total / 1e6:.0f} MB", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
