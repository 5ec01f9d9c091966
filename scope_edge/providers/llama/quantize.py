"""The child's side of estimator/quantize.py: llama.cpp's own quantizer, which may crash on what it is given.

Run as a script, by its path, with: the folders to import from (JSON), source, target, llama.cpp's number of the kind,
threads (0 = all). It says what it does on standard error, ends with 0 when all went well, and ends when its input closes.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading

# Bytes of a tensor in memory at once; llama.cpp would take 8 GiB.
_BUFFER = 512 * 2**20


def main() -> int:
    """Quantize; 0 when all went well."""
    # Nobody waits for the file once the parent is gone.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    folders, source, target, kind, threads = sys.argv[1:]
    sys.path[:] = json.loads(folders)
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
