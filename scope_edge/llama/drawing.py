"""From a decode's logits to the next token of every lane, for all lanes that want the same kind of token at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.llama.sampling import best, draw

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from scope_edge.llama.answer import AnswerLine
    from scope_edge.llama.engine import Engine, Logits
    from scope_edge.llama.sampling import Floats, Ints
    from scope_edge.llama.tasks import Lane

    # A lane, and its row of logits.
    Wish = tuple[Lane, Logits]


class Drawing:
    """Draws for the lanes of one engine."""

    def __init__(self, engine: Engine, line: AnswerLine | None, pool: Executor | None) -> None:
        """line: what answers are constrained to, if they can be. pool: threads that may help."""
        self._engine, self._line, self._pool = engine, line, pool

    def advance(self, lanes: Sequence[Lane], rows: Sequence[Logits] | Logits) -> None:
        """Give every lane what its row of logits says."""
        kinds: dict[str, list[Wish]] = {"free": [], "digits": [], "word": []}
        for wish in zip(lanes, rows, strict=True):
            kinds[wish[0].answer.state].append(wish)
        for k, some in _grouped(kinds["free"], _choices).items():
            self._draw_free(some, k)
        for _, some in _grouped(kinds["digits"], lambda lane: lane.answer.digits).items():
            _draw_digits(some)
        if self._line is not None:
            for lane, row in kinds["word"]:
                lane.answer.take_word(float(row[self._line.yes]), float(row[self._line.no]))

    def _draw_free(self, wishes: list[Wish], k: int) -> None:
        rows = [row for _, row in wishes]
        ids, values = best(rows, k, self._pool)
        for lane, token in _drawn([lane for lane, _ in wishes], ids, values):
            lane.answer.take(token, ends=self._engine.ends(token))


def _draw_digits(wishes: list[Wish]) -> None:
    """For lanes with equally many digits, which may go on alike."""
    allowed = wishes[0][0].answer.allowed()
    some = np.stack([row[allowed] for _, row in wishes])
    order = np.argsort(-some, axis=1, kind="stable")
    values = np.take_along_axis(some, order, axis=1).astype(np.float64)
    for lane, token in _drawn([lane for lane, _ in wishes], allowed[order], values):
        lane.answer.take_digit(token)


def _drawn(lanes: list[Lane], ids: Ints, values: Floats) -> list[tuple[Lane, int]]:
    """A token for every lane; those are broken off whose numbers are none."""
    good = np.flatnonzero(np.isfinite(values).all(axis=1))
    if len(good) < len(lanes):
        for i in set(range(len(lanes))).difference(good.tolist()):
            lanes[i].answer.break_off("broken")
        lanes, ids, values = [lanes[i] for i in good], ids[good], values[good]
    samplings = [lane.task.job.sampling for lane in lanes]
    temperature = np.array([one.temperature for one in samplings])
    top_p = np.array([one.top_p for one in samplings])
    uniform = np.array([lane.random.random() for lane in lanes])
    tokens: list[int] = draw(ids, values, temperature, top_p, uniform).tolist()
    return list(zip(lanes, tokens, strict=True))


def _choices(lane: Lane) -> int:
    """Among how many tokens is drawn."""
    sampling = lane.task.job.sampling
    return sampling.top_k if sampling.temperature > 0 else 1


def _grouped(wishes: list[Wish], key: Callable[[Lane], int]) -> dict[int, list[Wish]]:
    found: dict[int, list[Wish]] = {}
    for wish in wishes:
        found.setdefault(key(wish[0]), []).append(wish)
    return found
