"""Agreement of two answers to one question, decided by the graders: one answer is the key of the other.

    1. Two JSON values are compared by the grader of JSON.
    2. If one announces its answer ("Answer: 42", a boxed answer) or is a few words on one line, that answer is the key: a
       number is graded as a number, other text as a short text. Two code blocks are compared by the graders of output and JSON.
    3. Else both are free text: they differ if their closing lines name different numbers, and else agree if the cosine of
       their embeddings is at least `LEAST_COSINE`. That compares their topics more than their claims: two essays that
       contradict each other in one word pass.

Thoughts before an answer do not count, and an empty answer agrees with no other.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING

from scope_edge.estimation.anchor_spec import AnchorSpec, Kind
from scope_edge.fingerprinting.grading.answers import bare, fences, stated, statements, visible
from scope_edge.fingerprinting.grading.grade import grade
from scope_edge.fingerprinting.grading.numbers import read_number
from scope_edge.types import Query

if TYPE_CHECKING:
    from scope_edge.types import EncodedQuery

LEAST_COSINE = 0.85
_SHORT = 80


def agree(first: str, second: str, encode: Callable[[Query], EncodedQuery]) -> bool:
    """Return whether two replies say the same. encode: embeds a text; called only where nothing else decides."""
    one, other = visible(first), visible(second)
    if not one or not other:
        return False
    if one == other:
        return True
    if one[0] in "[{" and other[0] in "[{":
        return _graded_json(one, other)
    for a, b in ((one, other), (other, one)):
        if (key := _final(a)) is not None:
            return _same_answer(key, b)
    if fences(one) and fences(other):
        return _graded("output", fences(one)[-1][1], other) or _graded_json(fences(one)[-1][1], other)
    numbers = [read_number(_closing(text), {}) for text in (one, other)]
    if numbers[0] is not None and numbers[1] is not None:
        claimed = [_claims(_closing(text), numbers[0]) for text in (one, other)]
        if numbers[0] != numbers[1] or claimed[0] != claimed[1]:
            return False
    return float(encode(Query(one)).vector @ encode(Query(other)).vector) >= LEAST_COSINE


def _final(text: str) -> str | None:
    """Return the answer that a reply announces, or all of a reply of a few words, or None."""
    announced = stated(text)
    if announced is not None:
        return bare(announced[1]) or None
    return bare(text) or None if "\n" not in text and len(text) <= _SHORT and len(text.split()) <= 3 else None


def _same_answer(key: str, reply: str) -> bool:
    number = read_number(key, {})
    if number is not None:
        return _claims(key, number) and _claims(_final(reply) or _closing(reply), number)
    return _graded("short", key, reply)


def _claims(statement: str, number: Fraction) -> bool:
    """Return whether a statement says a number and does not turn it down."""
    return grade(AnchorSpec("pair", "", 1, "number", "", str(number), relative=1e-6), statement) == 1.0


def _graded(kind: Kind, key: str, reply: str) -> bool:
    return bool(key.strip()) and grade(AnchorSpec("pair", "", 1, kind, "", key), reply) == 1.0


def _graded_json(key: str, reply: str) -> bool:
    try:
        return _graded("json", key, reply)
    except (ValueError, RecursionError):
        return False


def _closing(text: str) -> str:
    return next(iter(statements(text)), "")
