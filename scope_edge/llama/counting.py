"""How many tokens a prompt has, by the model's own vocabulary and chat template: exactly, and without loading its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scope_edge.errors import UsageError, WorkerError
from scope_edge.llama.child import Child, Gone

if TYPE_CHECKING:
    from scope_edge.llama.jobs import Job

_SECONDS = 60.0


def count_unloaded(path: Path, job: Job) -> int:
    """Tokens of a job's prompt, counted in a worker that lives as long as that takes, some half a second.

    Raises WorkerError; UsageError for what the model's template refuses.
    """
    child = None
    try:
        child = Child(gpu=False)
        read = child.ask({"op": "read", "path": str(path.resolve())}, _SECONDS)
        if read.get("type") != "ready":
            raise refusal(path.name, read)
        return counted(child, job, path.name)
    except Gone as gone:
        raise WorkerError(f"{path.name}: {gone.why}") from gone
    finally:
        if child is not None:
            child.end()


def counted(child: Child, job: Job, name: str) -> int:
    """Ask a worker that has read or loaded the model called `name`. Raises Gone, WorkerError or UsageError."""
    answer = child.ask({"op": "count", "job": asdict(job)}, _SECONDS)
    if answer.get("type") != "counted":
        raise refusal(name, answer)
    return int(answer["tokens"])


def refusal(name: str, answer: Mapping[str, Any]) -> WorkerError | UsageError:
    """The error for a worker's no: of what was asked, or of what went wrong."""
    why = f"{name}: {answer.get('why')}"
    return UsageError(why) if answer.get("usage") else WorkerError(why)
