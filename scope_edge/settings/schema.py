"""The type and the check of every setting. An option, a variable and a line of the file all go through the same check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, get_args

from scope_edge.errors import UsageError
from scope_edge.settings.validation import (
    check_alpha,
    check_amount,
    check_choice,
    check_count,
    check_coverage,
    check_flag,
    check_keep_alive,
    check_name,
    check_positive,
    shown,
)
from scope_edge.types import Fallback, PolicyName

IndexName = Literal["auto", "exact", "hnsw"]
EstimatorChoice = Literal["auto", "prior", "gguf"]
Privacy = Literal["off", "patterns"]
JournalChoice = Literal["off", "run", "all"]
KeepEmbedding = bool | Literal["recent"]
Provider = Literal["cpu", "cuda", "coreml", "directml"]


def _choice(type_: Any) -> Callable[[str, object], str]:
    return partial(check_choice, choices=get_args(type_))


def _verify(name: str, value: object) -> int:
    if not isinstance(value, bool) and value in (0, 2):
        return check_count(name, value)
    raise UsageError(f"{name} must be 2 (a second answer to compare with) or 0 (none), not {shown(value)}")


def check_embedding(name: str, value: object) -> KeepEmbedding:
    """Check true, false or "recent". Raises UsageError."""
    if isinstance(value, bool):
        return value
    if value == "recent":
        return "recent"
    raise UsageError(f"{name} must be true, false or recent, not {shown(value)}")


_at_least_one = partial(check_count, least=1)
# Setting -> its check: (name, value) -> the value as stored. Each raises UsageError.
CHECKS: Mapping[str, Callable[[str, object], object]] = {
    "profile": check_name,
    "alpha": lambda name, value: check_alpha(value, name),
    "pool": check_name,
    "policy": _choice(PolicyName),
    "index": _choice(IndexName),
    "top_k": _at_least_one,
    "fallback": _choice(Fallback),
    "local_only": check_flag,
    "max_tokens": check_count,
    "max_answer_tokens": _at_least_one,
    "max_usd": check_amount,
    "max_seconds": check_amount,
    "value_of_time": check_amount,
    "coverage": check_coverage,
    "estimator": _choice(EstimatorChoice),
    "estimator_name": check_name,
    "estimate_seconds": check_amount,
    "estimate_tokens": check_count,
    "keep_alive": check_keep_alive,
    "provider": _choice(Provider),
    "threads": _at_least_one,
    "offline": check_flag,
    "privacy": _choice(Privacy),
    "silence_seconds": check_positive,
    "first_token_seconds": check_positive,
    "least_pace": check_amount,
    "verify": _verify,
    "journal": _choice(JournalChoice),
    "journal_text": check_flag,
    "journal_embedding": check_embedding,
    "journal_days": _at_least_one,
    "journal_mb": _at_least_one,
    "max_usd_day": check_amount,
    "max_usd_month": check_amount,
    "stick": check_amount,
    "use_server": check_flag,
}


def is_recorded(choice: JournalChoice, *, asked: bool) -> bool:
    """Return whether the journal records a decision. asked: for an answer, not for the decision alone."""
    return choice == "all" or (choice == "run" and asked)


# Settings that a profile may hold.
PROFILED = tuple(key for key in CHECKS if key != "profile")
# Settings whose variables are never read as numbers.
TEXTS = tuple(key for key, check in CHECKS.items() if getattr(check, "func", check) in (check_name, check_choice))
