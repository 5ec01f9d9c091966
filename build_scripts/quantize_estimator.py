"""Quantize a GGUF: `python build_scripts/quantize_estimator.py SOURCE.gguf TARGET.gguf [--quant Q4_K_M]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from scope_edge.errors import ScopeEdgeError
from scope_edge.estimator.convert.quantize import QUANTS, quantize_gguf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--quant", choices=QUANTS, default="Q4_K_M")
    parser.add_argument("--threads", type=int, help="cores to use; all unless given")
    options = parser.parse_args()
    try:
        quantize_gguf(options.source, options.target, options.quant, threads=options.threads, progress=_show)
    except ScopeEdgeError as error:
        sys.exit(str(error))
    print(f"\n{options.target}: {options.target.stat().st_size} bytes")


def _show(done: int, total: int) -> None:
    print(f"\rtensor {done} of {total}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
