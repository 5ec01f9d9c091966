"""What is printed: results on standard output, all else on standard error, both as they come."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

import click

from scope_edge.errors import ScopeEdgeError


def out(text: str) -> None:
    """Print a line, or several, on standard output at once. Raises BrokenPipeError when its reader has gone."""
    try:
        click.echo(text)
    except OSError as error:
        raise _failed(error) from error


def flush() -> None:
    """Let nothing wait in standard output's buffer. Raises as `out`."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        raise _failed(error) from error


def out_json(body: Any) -> None:
    """Print an object on one line of ASCII JSON, which no terminal or pipe can garble."""
    import json

    out(json.dumps(body, allow_nan=False))


def one_line(text: str) -> str:
    """Text of unknown origin on one line, with what could steer a terminal spelled out."""
    line = " ".join(text.split())
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)


def _failed(error: OSError) -> Exception:
    # Windows says EINVAL where others say EPIPE.
    if isinstance(error, BrokenPipeError) or (os.name == "nt" and error.errno == errno.EINVAL):
        return BrokenPipeError(*error.args)
    return ScopeEdgeError(f"the output cannot be written ({error.strerror or error}); check where it goes")
