"""Everyday asks of our own: requests as people type them, with what an expert expects of each, where no outcome exists."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.encoding.token_count import estimate_prompt_tokens
from scope_edge.errors import AssetError
from scope_edge.estimation.difficulty import text_features
from scope_edge.estimation.tasks import TASKS, UNKNOWABLE
from scope_edge.training.dataset import embed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from scope_edge.encoding.encoder import Encoder
    from scope_edge.training.dataset import Pooled

# The set and the domain that they form: experts grade them as a user would, and judges of benchmarks more strictly.
SET, DOMAIN = "everyday", "asks"
# Difficulty of each level, on the scale of the joint fit: any chat model of 1 to 3 billion parameters is right; a good one of
# 7 or 8; it takes a strong large one; it is hard for the best.
DIFFICULTY = {1: -5.0, 2: -2.5, 3: 0.5, 4: 3.2}
_IMPOSSIBLE = 5
_BY_MODEL = ("correct", "tokens", "prompt_tokens", "usd")
_COLUMNS = "task | language | level | tokens | text"


@dataclass(frozen=True, slots=True)
class Ask:
    """One ask. language: ISO 639-1. level: 1 to 4, see DIFFICULTY, 5 = unknowable. tokens: cl100k, of a typical answer."""

    task: str
    language: str
    level: int
    tokens: float
    text: str


def read_asks(path: Path) -> tuple[Ask, ...]:
    """Read a file with an ask a line, its columns parted by bars, line breaks in a text as \\n; # begins a comment.

    Raises AssetError naming file and line.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AssetError(f"{path}: cannot be read ({error})") from error
    return tuple(_ask(line, f"{path}:{i}") for i, line in enumerate(lines, 1) if line and not line.startswith("#"))


def _ask(line: str, where: str) -> Ask:
    parts = line.split("|", 4)
    if len(parts) != 5:
        raise AssetError(f"{where}: expected {_COLUMNS}, found {len(parts)} columns")
    task, language, level, tokens, text = (part.strip() for part in parts)
    if task not in TASKS or (task == TASKS[UNKNOWABLE]) != (level == str(_IMPOSSIBLE)):
        raise AssetError(
            f"{where}: task {task!r} at level {level} is invalid; tasks are {', '.join(TASKS)}, 5 is unknowable"
        )
    if level not in "12345" or not tokens.isdecimal() or not text:
        raise AssetError(f"{where}: expected {_COLUMNS}, level 1 to 5, tokens a whole number, a text")
    return Ask(task, language, int(level), float(tokens), text.replace("\\n", "\n"))


def with_asks(data: Pooled, asks: Sequence[Ask], encoder: Encoder) -> Pooled:
    """Return the table with the asks as one more set, without outcomes, and what is expected of each."""
    texts, models, n = [one.text for one in asks], len(data.models), len(asks)
    domains = tuple(dict.fromkeys((*data.domain_names, DOMAIN)))
    vectors, states, multilingual = embed(texts, encoder)
    unknown = np.full((models, n), np.nan)
    added = {
        **dict.fromkeys(_BY_MODEL, unknown),
        "sets": np.full(n, len(data.set_names)),
        "domains": np.full(n, domains.index(DOMAIN)),
        "ids": np.array([f"{SET}/{one.language}/{i}" for i, one in enumerate(asks)]),
        "texts": np.array(texts, object),
        "groups": np.array([f"{SET}:{i}" for i in range(n)], object),
        "categories": np.array([f"{SET}/{one.task}" for one in asks]),
        "task": np.array([TASKS.index(one.task) for one in asks]),
        "expected": np.array([(DIFFICULTY.get(one.level, np.nan), np.log(one.tokens)) for one in asks]),
        "text_tokens": np.array([estimate_prompt_tokens(text).expected for text in texts]),
        "vectors": vectors,
        "states": states,
        "multilingual": multilingual,
        "features": np.array([text_features(text) for text in texts]),
    }
    # Tables of outcomes grow by columns, all else by rows.
    axis = dict.fromkeys(_BY_MODEL, 1)
    joined = {name: np.concatenate([getattr(data, name), rows], axis.get(name, 0)) for name, rows in added.items()}
    return replace(data, set_names=(*data.set_names, SET), domain_names=domains, **joined)
