"""What a GGUF says of itself, asked of a child process: reading a damaged one may crash, the asker may not."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from scope_edge.errors import AssetError, MissingExtraError
from scope_edge.llama.jobs import Shape
from scope_edge.llama.launch import child_command, child_folder, ending, installed

TIMEOUT_SECONDS = 120.0


def describe_gguf(path: Path) -> Shape:
    """The shape of a GGUF, its weights unread.

    Raises AssetError for what is no GGUF or one that llama.cpp cannot read, MissingExtraError without llama-cpp-python.
    """
    if not installed():
        raise MissingExtraError('llama-cpp-python is not installed; pip install "scope-edge[llama]"')
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise AssetError(f"{path}: cannot be read ({error.strerror or error}); give another file") from error
    if magic != b"GGUF":
        raise AssetError(f"{path}: not a GGUF (expected it to begin with b'GGUF', found {magic!r}); give a GGUF file")
    try:
        ended = subprocess.run(
            child_command("shape.py", str(path.resolve())),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            cwd=child_folder(),
            check=False,
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        raise AssetError(f"{path}: llama.cpp could not be asked about it ({error}); try again") from error
    try:
        answer = json.loads(ended.stdout)
        if "error" in answer:
            raise AssetError(f"{path}: {answer['error']}; get a fresh copy or another model")
        return Shape(**answer)
    except (ValueError, TypeError) as error:
        said = ending(ended.returncode, ended.stderr, "reading it")
        raise AssetError(f"{path}: llama.cpp {said}; get a fresh copy") from error
