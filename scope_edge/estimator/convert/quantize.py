"""Quantize a GGUF with llama.cpp's own quantizer in a child process."""

from __future__ import annotations

import re
import subprocess
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, get_args

from scope_edge.errors import AssetError, MissingExtraError, UsageError
from scope_edge.providers.llama.process import CHILD_FOLDER, child_command, child_environment, ending, installed
from scope_edge.storage.files import check_space, whole_file

Quant = Literal["Q4_K_M", "Q5_K_M", "Q8_0", "F16"]
# llama.cpp's number of each kind, and its size as a share of the 16-bit file, rounded up (4B: 0.31, 0.36, 0.53).
_KINDS: Mapping[Quant, tuple[int, float]] = {
    "Q4_K_M": (15, 0.35),
    "Q5_K_M": (17, 0.40),
    "Q8_0": (7, 0.56),
    "F16": (1, 1.0),
}
QUANTS: tuple[Quant, ...] = get_args(Quant)
# "[  12/ 399]", the beginning of a tensor's line.
_STEP = re.compile(rb"\[\s*(\d+)/\s*(\d+)\]")
# The message of a failure, within such a line or alone.
_REASON = re.compile(rb"failed to quantize: (.+)")


def quantize_gguf(
    source: Path,
    target: Path,
    quant: Quant,
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write `source` (a GGUF in f32, bf16 or f16) as `target` in the kind `quant`; the same path for both is fine.

    Args:
        threads: None = all cores.
        progress: called with (tensors done, tensors in all).

    Raises:
        AssetError: llama.cpp cannot read or quantize it (it is quantized already, or damaged), it crashed, or the disk is
            too full. `target` is then unchanged.
        MissingExtraError: llama-cpp-python is not installed.
        UsageError: an unknown kind, or threads below 1.
    """
    if quant not in _KINDS:
        raise UsageError(f"quantization {quant!r}: expected one of {', '.join(QUANTS)}")
    if threads is not None and threads < 1:
        raise UsageError(f"threads {threads}: expected 1 or more")
    if not installed():
        raise MissingExtraError('llama-cpp-python is not installed; pip install "scope-edge[llama]"')
    try:
        size = source.stat().st_size
    except OSError as error:
        raise AssetError(f"{source}: cannot be read ({error.strerror or error})") from error
    kind, share = _KINDS[quant]
    check_space(target.parent, int(size * share), str(target))
    with whole_file(target) as temporary:
        arguments = (str(source.resolve()), str(temporary.resolve()), str(kind), str(threads or 0))
        problem = _run(child_command("quantize", *arguments), progress)
        if problem is not None:
            raise AssetError(f"{source}: cannot be quantized to {quant}: llama.cpp {problem}")


def _run(command: list[str], progress: Callable[[int, int], None] | None) -> str | None:
    """Run the child to its end; return the problem in words, or None."""
    # The child's input stays open and silent, so that the child ends with this process, even after a kill.
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=CHILD_FOLDER,
        env=child_environment(gpu=False),
    ) as child:
        try:
            last: deque[bytes] = deque(maxlen=8)
            for line in child.stderr or ():
                last.append(line)
                step = _STEP.match(line)
                if step and progress is not None:
                    progress(int(step[1]), int(step[2]))
            code = child.wait()
        finally:
            child.kill()
    output = b"".join(last)
    reason = _REASON.search(output)
    if code > 0 and reason:
        return "says: " + reason[1].decode("utf-8", "replace").strip()[:300]
    return None if code == 0 else ending(code, output, "quantizing")
