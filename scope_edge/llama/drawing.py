"""From a decode's logits to the next token of every lane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.llama.sampling import best, draw

if TYPE_CHECKING:
    from scope_edge.llama.answer import AnswerLine
    from scope_edge.llama.engine import Engine, Logits
    from scope_edge.llama.tasks import Lane


def advance(engine: Engine, line: AnswerLine | None, lanes: Sequence[Lane], logits: Logits) -> None:
    """Give every lane what its row of logits says. line: what answers are constrained to, if they can be."""
    free = [i for i, lane in enumerate(lanes) if lane.answer.state == "free"]
    if free:
        _draw_free(engine, [lanes[i] for i in free], logits if len(free) == len(lanes) else logits[free])
    for i, lane in enumerate(lanes):
        if i not in free:
            _draw_answer(line, lane, logits[i])


def _draw_free(engine: Engine, lanes: list[Lane], logits: Logits) -> None:
    k = max(lane.task.job.sampling.top_k for lane in lanes)
    ids, values = best(logits, k)
    for row, lane in enumerate(lanes):
        sampling = lane.task.job.sampling
        some = slice(row, row + 1), slice(0, sampling.top_k)
        if not np.isfinite(values[some]).all():
            lane.answer.break_off("broken")
            continue
        token = int(draw(ids[some], values[some], sampling, np.array([lane.random.random()]))[0])
        lane.answer.take(token, ends=engine.ends(token))


def _draw_answer(line: AnswerLine | None, lane: Lane, row: Logits) -> None:
    answer = lane.answer
    if answer.state == "word" and line is not None:
        answer.take_word(float(row[line.yes]), float(row[line.no]))
        return
    ids = answer.allowed()
    values = row[ids].astype(np.float64)
    if not np.isfinite(values).all():
        answer.break_off("broken")
        return
    order = np.argsort(-values, kind="stable")
    uniform = np.array([lane.random.random()])
    answer.take_digit(int(draw(ids[order][None], values[order][None], lane.task.job.sampling, uniform)[0]))
