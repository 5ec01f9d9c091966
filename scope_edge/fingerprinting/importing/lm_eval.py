"""Sample logs of EleutherAI's lm-evaluation-harness, 0.4: `samples_TASK_WHEN.jsonl`, of one model, an object per question and
filter. (Its first releases wrote one list of these, to a file of the same ending.)

Of each object doc_id, doc, arguments, filter, metrics, resps and the metric itself are read. A log does not name the model:
the user or the `results_WHEN.json` beside it does.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scope_edge.encoding.token_count import estimate_prompt_tokens
from scope_edge.encoding.unicode import load_json
from scope_edge.errors import AssetError, UsageError
from scope_edge.estimation.refit import PlacedQuestion
from scope_edge.fingerprinting.importing.naming import Cards, check_model, set_name
from scope_edge.fingerprinting.importing.outcomes import (
    Material,
    Tally,
    correct_of,
    keep,
    lines_of,
    text_of,
    unreadable,
)

if TYPE_CHECKING:
    from scope_edge.fingerprinting.importing.outcomes import Imported, Progress

# Limits of a log and of a line, in characters: a log holds every request with all its examples.
MAX_LOG, MAX_LINE = 2**31, 2**24
# Metrics that say whether an answer is right; the first that a line has is used.
METRICS = ("exact_match", "acc", "pass@1", "pass_at_1", "prompt_level_strict_acc", "acc_norm", "em", "math_verify")
# Fields with the question itself, without the examples before it; with the text it is about; and with its choices.
_QUESTION = ("question", "problem", "query", "prompt", "input")
_ABOUT = ("passage", "context", "article", "support")
_CHOICES = ("choices", "options")
_WHEN = re.compile(r"_(\d{4}-\d\d-\d\dT[\d.:-]+)$")
# Limits of a list that is read whole, in characters, and of a results file, in bytes.
_MAX_LIST, _MAX_RESULTS = 2**28, 2**26
_MAX_QUESTIONS = 100_000


@dataclass(frozen=True, slots=True)
class _Sample:
    """filter: how the answer was read; None = unknown."""

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
    """Import one task's log as outcomes of `model`, on an anchor set named after the task.

    model: None = the one in the results file beside it.
    Raises UsageError (no model given), AssetError naming file and line, and the errors of `keep`.
    """
    model = model or _beside(path)
    if model is None:
        raise UsageError(f"{path}: a sample log does not say whose answers these are; give --model")
    called = set_name(name or task_of(path), "give --name")
    return keep(read_lm_eval(path, cards, model), cards, called, limit, progress)


def task_of(path: Path) -> str:
    """Return the task in a log's name: gsm8k for `samples_gsm8k_2025-01-31T10-11-12.5.jsonl`."""
    return _WHEN.sub("", path.name.removesuffix(".jsonl")).removeprefix("samples_")


def _beside(path: Path) -> str | None:
    """Return the model in the results file of the same run, or None."""
    when = _WHEN.search(path.name.removesuffix(".jsonl"))
    if when is None:
        return None
    try:
        with path.with_name(f"results_{when[1]}.json").open("rb") as file:
            name = load_json(file.read(_MAX_RESULTS)).get("model_name")
    except (OSError, ValueError, RecursionError, AttributeError):
        return None
    return name.strip() or None if isinstance(name, str) else None


def read_lm_eval(path: Path, cards: Cards, model: str) -> Material:
    """Read the questions and the model's outcomes; only the first filter of a log counts.

    In a log without filter names (early releases) that is the first line of each question. Tokens are estimated from the
    answer's text (cl100k); a log of likelihoods has none. Raises AssetError.
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
                raise AssetError(
                    f"{where}: doc_id {one.id[:60]} stands for two questions, or there are too many; split the log"
                )
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
    """Return whether a file begins with a sample. Raises AssetError when it cannot be read."""
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
    """Yield each sample's location, for messages, and the sample. Raises AssetError."""
    rows: Iterable[tuple[int, object]]
    try:
        if next(lines_of(path, MAX_LOG, MAX_LINE), "").lstrip().startswith("["):
            kind, rows = "sample", enumerate(load_json("".join(lines_of(path, _MAX_LIST, MAX_LINE))), 1)
        else:
            lines = enumerate(lines_of(path, MAX_LOG, MAX_LINE), 1)
            kind, rows = "line", ((number, load_json(line)) for number, line in lines if line.strip())
        for number, row in rows:
            where = f"{path}, {kind} {number}"
            yield where, _sample(row, where)
    except (ValueError, RecursionError) as error:
        raise unreadable(path, error) from error


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
    """Return the question with its passage and choices if the task keeps it as text; else the model's request, or ""."""
    if isinstance(row["doc"], Mapping):
        doc = {str(key).lower(): value for key, value in row["doc"].items()}
        about, text = (
            next((one for key in keys if isinstance(one := doc.get(key), str) and one.strip()), None)
            for keys in (_ABOUT, _QUESTION)
        )
        if text is not None:
            choices = next((doc[key] for key in _CHOICES if key in doc), None)
            choices = choices.get("text") if isinstance(choices, Mapping) else choices
            listed = choices if isinstance(choices, list) and all(isinstance(one, str) for one in choices) else []
            return "\n".join([*([about] if about else []), text, *listed])
    request = row.get("arguments")
    while isinstance(request, (list, Mapping)) and request:
        request = request[0] if isinstance(request, list) else next(iter(request.values()))
    return _request_text(request) if isinstance(request, str) else ""


def _request_text(request: str) -> str:
    """Return a request as text; of chat messages, which are logged as JSON, their contents."""
    if request.lstrip().startswith("["):
        with contextlib.suppress(ValueError, RecursionError, TypeError, KeyError):
            said = [one["content"] for one in load_json(request)]
            return "\n".join(one for one in said if isinstance(one, str)) or request
    return request


def _answer(resps: object) -> str | None:
    """Return the model's text; None for likelihoods: logged pairs of a number and "True" or "False"."""
    inner = resps
    while isinstance(inner, list) and inner and isinstance(inner[0], list):
        inner = inner[0]
    if not isinstance(inner, list) or not inner or not isinstance(inner[0], str):
        return None
    return None if len(inner) == 2 and inner[1] in ("True", "False") else inner[0]
