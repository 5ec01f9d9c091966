"""Sample logs of EleutherAI's lm-evaluation-harness: `samples_TASK_WHEN.jsonl`, an object per question, of one model.

Read are doc_id, doc, arguments, filter, metrics, resps, and the metric itself. A log names no model: the user does.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scope_edge.catalog import load_catalog
from scope_edge.config import load_settings
from scope_edge.errors import AssetError, UsageError
from scope_edge.importing.cells import correct_of, text_of
from scope_edge.importing.lines import lines_of, unreadable
from scope_edge.importing.naming import Cards, check_model, set_name
from scope_edge.importing.outcomes import Material, Tally
from scope_edge.placing import Question
from scope_edge.prompt_tokens import estimate_prompt_tokens

if TYPE_CHECKING:
    from scope_edge.importing.keeping import Progress
    from scope_edge.importing.outcomes import Imported

# Characters of a log, and of a line: a log holds every request with all its examples.
MAX_LOG, MAX_LINE = 2**31, 2**24
# What says whether an answer is right, the first that a line has.
METRICS = ("exact_match", "acc", "pass@1", "prompt_level_strict_acc", "acc_norm")
# Where tasks keep the question itself, without the examples shown before it.
_QUESTION = ("question", "problem", "query", "prompt", "input")
_MAX_QUESTIONS = 100_000


@dataclass(frozen=True, slots=True)
class _Sample:
    id: str
    filter: str
    text: str
    correct: float | None
    tokens: float | None


def import_lm_eval(
    path: Path, model: str | None, name: str | None = None, limit: int | None = None, progress: Progress | None = None
) -> Imported:
    """Import one task's log as outcomes of `model`, on an anchor set called after the task.

    Raises UsageError (no model named), AssetError naming file and line, and what `keep` raises.
    """
    from scope_edge.importing.keeping import keep

    if model is None:
        raise UsageError(f"{path}: a sample log does not say whose answers these are; --model does")
    called = set_name(name or task_of(path), "give --name")
    return keep(read_lm_eval(path, model), called, limit, progress)


def task_of(path: Path) -> str:
    """The task as the log's name has it: `samples_gsm8k_2025-01-31T10-11-12.5.jsonl` is of gsm8k."""
    return re.sub(r"_\d{4}-\d\d-\d\dT[\d.:-]+$", "", path.name.removesuffix(".jsonl")).removeprefix("samples_")


def read_lm_eval(path: Path, model: str) -> Material:
    """The questions and the model's outcomes. Where answers were read in several ways (filters), the first counts.

    Tokens are estimated from the answer's text (cl100k); a log of likelihoods has none. Raises AssetError.
    """
    known_as = check_model(Cards(load_catalog(load_settings())).known_as(model), "--model")
    dropped: Counter[str] = Counter()
    found: dict[str, Question] = {}
    kept: list[_Sample] = []
    first: str | None = None
    for where, one in _samples(path):
        first = one.filter if first is None else first
        if one.filter != first:
            dropped[f"lines of other filters than {first}"] += 1
        elif not one.text.strip():
            dropped["blank questions"] += 1
        else:
            question = Question(one.id, "questions", one.text)
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
    """Whether a file's first line is a sample. Raises AssetError when it cannot be read."""
    try:
        row = json.loads(next(lines_of(path, MAX_LOG, MAX_LINE), ""))
    except (ValueError, RecursionError):
        return False
    return isinstance(row, Mapping) and {"doc_id", "doc"} <= row.keys()


def _samples(path: Path) -> Iterator[tuple[str, _Sample]]:
    try:
        for number, line in enumerate(lines_of(path, MAX_LOG, MAX_LINE), 1):
            if line.strip():
                yield f"{path}, line {number}", _sample(json.loads(line), f"{path}, line {number}")
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
    answer = _first_text(row.get("resps"))
    return _Sample(
        id=text_of(row["doc_id"], "doc_id", where),
        filter=str(row.get("filter", "none")),
        text=_question(row),
        correct=correct_of(row[metric], metric, where),
        tokens=float(estimate_prompt_tokens(answer).expected) if answer and answer.strip() else None,
    )


def _question(row: Mapping[str, Any]) -> str:
    """The question with its choices, if the task keeps it as text; else the request that the model got; else nothing."""
    doc = row["doc"]
    if isinstance(doc, Mapping):
        text = next((doc[key] for key in _QUESTION if isinstance(doc.get(key), str) and doc[key].strip()), None)
        if text is not None:
            choices = doc.get("choices")
            choices = choices.get("text") if isinstance(choices, Mapping) else choices
            listed = choices if isinstance(choices, list) and all(isinstance(one, str) for one in choices) else []
            return "\n".join([text, *listed])
    return _first_text(row.get("arguments")) or ""


def _first_text(value: object) -> str | None:
    """The first string in nested lists and objects, in order; None where the first leaf is something else."""
    while isinstance(value, (list, Mapping)) and value:
        value = value[0] if isinstance(value, list) else next(iter(value.values()))
    return value if isinstance(value, str) else None
