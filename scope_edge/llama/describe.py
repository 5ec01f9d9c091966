"""What a GGUF says of itself, and whether llama.cpp can read it, asked of a child process: a damaged one may crash the reader."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from scope_edge.errors import AssetError, MissingExtraError
from scope_edge.llama.header import read_header
from scope_edge.llama.jobs import Shape
from scope_edge.llama.launch import child_command, child_environment, child_folder, ending, installed

TIMEOUT_SECONDS = 120.0


def describe_gguf(path: Path) -> Shape:
    """The shape of a GGUF that llama.cpp can read, its weights unread.

    Raises AssetError for what is no GGUF or one that llama.cpp cannot read, MissingExtraError without llama-cpp-python.
    """
    if not installed():
        raise MissingExtraError('llama-cpp-python is not installed; pip install "scope-edge[llama]"')
    shape = read_header(path).shape
    try:
        ended = subprocess.run(
            child_command("check.py", str(path.resolve())),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            cwd=child_folder(),
            env=child_environment(gpu=False),
            check=False,
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        raise AssetError(f"{path}: llama.cpp could not be asked about it ({error}); try again") from error
    try:
        problem = json.loads(ended.stdout)["error"]
    except (ValueError, TypeError, KeyError) as error:
        said = ending(ended.returncode, ended.stderr, "reading it")
        raise AssetError(f"{path}: llama.cpp {said}; get a fresh copy") from error
    if problem is not None:
        raise AssetError(f"{path}: {problem}; get a fresh copy or another model")
    return shape
