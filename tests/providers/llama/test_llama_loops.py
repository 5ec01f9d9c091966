"""A text that only repeats itself is ended; one that has a reason to repeat is not."""

from __future__ import annotations

import pytest

from scope_edge.providers.llama.decoding import LoopGuard, shortest_period

REFRAIN = "Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is but a dream.\n"
ROWS = "".join(f"| {n} | {n * n} | 0 | 0 | 0 |\n" for n in range(200))
CODE = "".join(f"    if value == {n}:\n        return '{n}'\n" for n in range(100))
VERSES = "".join(f"{n} green bottles hanging on the wall, {n} green bottles hanging on the wall.\n" for n in range(99))


def caught(text: str) -> int | None:
    """After how many tokens the guard ends a text, each word and mark being one token; None = it does not."""
    guard, ids = LoopGuard(), {}
    for number, word in enumerate(text.replace("\n", " \n ").split(" "), 1):
        guard.add(ids.setdefault(word, len(ids)))
        if guard.found():
            return number
    return None


@pytest.mark.parametrize(
    "loop", ["la Femme, ", "no ", "I am sorry, I cannot do that. ", "a b c d e f g h i j k l m n o p "]
)
def test_a_loop_is_ended_soon(loop: str) -> None:
    begun = "Here is what I think about that. "
    ended = caught(begun + loop * 1000)
    assert ended is not None and ended <= LoopGuard.WINDOW + len(begun.split()) + 64


@pytest.mark.parametrize("text", [ROWS, CODE, VERSES, REFRAIN * 8, "0\n" * 150, "na " * 300])
def test_repetition_with_a_reason_goes_on(text: str) -> None:
    assert caught(text) is None


def test_the_shortest_period() -> None:
    for tokens, period in (((1, 1, 1, 1), 1), ((1, 2, 1, 2, 1), 2), ((1, 2, 3, 4), 4), ((5,), 1), ((1, 2, 3, 1, 2), 3)):
        assert shortest_period(tokens) == period
