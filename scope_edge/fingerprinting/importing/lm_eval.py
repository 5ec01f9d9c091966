"""Sample logs of EleutherAI's lm-evaluation-harness, 0.4: `samples_TASK_WHEN.jsonl`, an object a question and filter, of one
model. (Its first releases wrote one list of these, to a file of the same ending.)

Read are doc_id, doc, arguments, filter, metrics, resps, and the metric itself. A log names no model: the user does, or the
`results_WHEN.json` that was written beside it.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scope_edge.encoding.token_count import estimate_prompt_tokens
from scope_edge.errors import AssetError, UsageError
from scope_edge.estimation.refit import PlacedQuestion
from scope_edge.fingerprinting.importing.naming import Cards, check_model, set_name
from scope_edge.fingerprinting.importing.outcomes import Material, Tally
from scope_edge.fingerprinting.importing.table import correct_of, lines_of, text_of, unreadable

if TYPE_CHECKING:
    from scope_edge.fingerprinting.importing.outcomes import Imported, Progress

# Characters of a log, and of a line: a log holds every request with all its examples.
MAX_LOG, MAX_LINE = 2**31, 2**24
# What says whether an answer is right, the first that a line has.
METRICS = ("exact_match", "acc", "pass@1", "pass_at_1", "prompt_level_strict_acc", "acc_norm", "em", "math_verify")
# Where tasks keep the question itself, without the examples shown before it; what it is about; and its choices.
_QUESTION = ("question", "problem", "query", "prompt", "input")
_ABOUT = ("passage", "context", "article", "support")
_CHOICES = ("choices", "options")
_WHEN = re.compile(r"_(\d{4}-\d\d-\d\dT[\d.:-]+)$")
# Of a list that is read whole, in characters; of a results file, in bytes.
_MAX_LIST, _MAX_RESULTS = 2**28, 2**26
_MAX_QUESTIONS = 100_000


@dataclass(frozen=True, slots=True)
class _Sample:
    """filter: how the answer was read; None where the log does not say."""

    id: str
    filter: str | None
    text: str
    correct: float | None
    tokens: float | None


def import_lm_eval(
    path: Path,
    cards: Cards,
    model: str | None = None,
    name: str | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Imported:
    """Import one task's log as outcomes of `model`, on an anchor set called after the task.

    model: None = the one that the results file beside it names.
    Raises UsageError (no model named), AssetError naming file and line, and what `keep` raises.
    """
    from scope_edge.fingerprinting.importing.outcomes import keep

    model = model or _beside(path)
    if model is None:
        raise UsageError(f"{path}: a sample log does not say whose answers these are; --model does")
    called = set_name(name or task_of(path), "give --name")
    return keep(read_lm_eval(path, cards, model), cards, called, limit, progress)


def task_of(path: Path) -> str:
    """The task as the log's name has it: `samples_gsm8k_2025-01-31T10-11-12.5.jsonl` is of gsm8k."""
    return _WHEN.sub("", path.name.removesuffix(".jsonl")).removeprefix("samples_")


def _beside(path: Path) -> str | None:
    """The model that the results file of the same run names."""
    when = _WHEN.search(path.name.removesuffix(".jsonl"))
    if when is None:
        return None
    try:
        with path.with_name(f"results_{when[1]}.json").open("rb") as file:
            name = json.loads(file.read(_MAX_RESULTS)).get("model_name")
    except (OSError, ValueError, RecursionError, AttributeError):
        return None
    return name.strip() or None if isinstance(name, str) else None


def read_lm_eval(path: Path, cards: Cards, model: str) -> Material:
    """The questions and the model's outcomes. Where answers were read in several ways (filters), the first counts; where the
    log does not name them (early releases), that is the first line of each question.

    Tokens are estimated from the answer's text (cl100k); a log of likelihoods has none. Raises AssetError.
    """
    known_as = check_model(cards.known_as(model), "--model")
    dropped: Counter[str] = Counter()
    found: dict[str, PlacedQuestion] = {}
    kept: list[_Sample] = []
    for where, one in _samples(path):
        first = kept[0] if kept else one
        if one.filter != first.filter or (one.filter is None and one.id in found):
            dropped[f"lines of other filters than {first.filter or 'the first'}"] += 1
        elif not one.text.strip():
            dropped["blank questions"] += 1
        else:
            question = PlacedQuestion(one.id, "questions", one.text)
            if found.setdefault(one.id, question).text != one.text or len(found) > _MAX_QUESTIONS:
                raise AssetError(f"{where}: doc_id {one.id[:60]} stands for two questions, or too many; part the log")
            kept.append(one)
    if not found:
        raise AssetError(f"{path}: has no sample; is this the log?")
    tally = Tally(len(found))
    at = {id: i for i, id in enumerate(found)}
    for one in kept:
        tally.add(known_as, at[one.id], one.correct, one.tokens)
    dropped["outcomes that say nothing (missing)"] = sum(one.correct is None for one in kept)
    dropped["repeated outcomes, averaged"] = tally.repeated
    return Material(str(path), tuple(found.values()), tally, dropped)


def looks_like_log(path: Path) -> bool:
    """Whether a file's first sample is one. Raises AssetError when it cannot be read."""
    lines = lines_of(path, MAX_LOG, MAX_LINE)
    try:
        first = next(lines, "")
        if first.lstrip().startswith("["):
            return '"doc_id"' in first + next(lines, "") + next(lines, "")
        row = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, Mapping) and {"doc_id", "doc"} <= row.keys()


def _samples(path: Path) -> Iterator[tuple[str, _Sample]]:
    try:
        for where, row in _rows(path):
            yield where, _sample(row, where)
    except (ValueError, RecursionError) as error:
        raise unreadable(path, error) from error


def _rows(path: Path) -> Iterator[tuple[str, object]]:
    """Where a sample stands, and what stands there. Raises ValueError, RecursionError, AssetError."""
    if next(lines_of(path, MAX_LOG, MAX_LINE), "").lstrip().startswith("["):
        rows = json.loads("".join(lines_of(path, _MAX_LIST, MAX_LINE)))
        yield from ((f"{path}, sample {number}", row) for number, row in enumerate(rows, 1))
        return
    for number, line in enumerate(lines_of(path, MAX_LOG, MAX_LINE), 1):
        if line.strip():
            yield f"{path}, line {number}", json.loads(line)


def _sample(row: object, where: str) -> _Sample:
    if not isinstance(row, Mapping) or not {"doc_id", "doc"} <= row.keys():
        raise AssetError(f"{where}: expected an object with doc_id and doc; give a samples_*.jsonl of --log_samples")
    named = row.get("metrics")
    own = [str(one) for one in named] if isinstance(named, Sequence) and not isinstance(named, str) else []
    metric = next((one for one in METRICS if one in row), own[0] if len(own) == 1 and own[0] in row else None)
    if metric is None:
        raise AssetError(f"{where}: has none of the metrics {', '.join(METRICS)}, nor one alone; it cannot be imported")
    answer = _answer(row.get("resps"))
    return _Sample(
        id=text_of(row["doc_id"], "doc_id", where),
        filter=str(row["filter"]) if row.get("filter") is not None else None,
        text=_question(row),
        correct=correct_of(row[metric], metric, where),
        tokens=float(estimate_prompt_tokens(answer).expected) if answer and answer.strip() else None,
    )


def _question(row: Mapping[str, Any]) -> str:
    """The question with what it is about and its choices, if the task keeps it as text; else the request that the model got;
    else nothing.
    """
    if isinstance(row["doc"], Mapping):
        doc = {str(key).lower(): value for key, value in row["doc"].items()}
        about, text = (
            next((one for key in keys if (one := _text(doc.get(key)))), None) for keys in (_ABOUT, _QUESTION)
        )
        if text is not None:
            choices = next((doc[key] for key in _CHOICES if key in doc), None)
            choices = choices.get("text") if isinstance(choices, Mapping) else choices
            listed = choices if isinstance(choices, list) and all(isinstance(one, str) for one in choices) else []
            return "\n".join([*([about] if about else []), text, *listed])
    return _spoken(_first_text(row.get("arguments")) or "")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _spoken(request: str) -> str:
    """A request as text: one made of chat messages, which is logged as JSON, as what they say."""
    if request.lstrip().startswith("["):
        with contextlib.suppress(ValueError, RecursionError, TypeError, KeyError):
            said = [one["content"] for one in json.loads(request)]
            return "\n".join(one for one in said if isinstance(one, str)) or request
    return request


def _answer(resps: object) -> str | None:
    """What the model wrote; None for likelihoods, pairs of a number and whether the choice was the likeliest, which are
    logged as text too.
    """
    inner = resps
    while isinstance(inner, list) and inner and isinstance(inner[0], list):
        inner = inner[0]
    if not isinstance(inner, list) or not inner or not isinstance(inner[0], str):
        return None
    return None if len(inner) == 2 and inner[1] in ("True", "False") else inner[0]


def _first_text(value: object) -> str | None:
    """The first string in nested lists and objects, in order; None where the first leaf is something else."""
    while isinstance(value, (list, Mapping)) and value:
        value = value[0] if isinstance(value, list) else next(iter(value.values()))
    return value if isinstance(value, str) else None
