"""Two answers say the same or they do not: by the graders, and only where those have no word by the encoder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from scope_edge.encoding.encoder import Encoder
from scope_edge.fingerprinting.grading.agree import agree

SKY = "The sky is blue because of Rayleigh scattering: short wavelengths are scattered more."


@pytest.fixture(scope="module")
def agrees() -> Callable[[str, str], bool]:
    return partial(agree, encode=Encoder.load().encode)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Answer: 42", "The result is 42."),
        ("<think>maybe 41</think>Answer: 42", "\\boxed{42.0}"),
        ("Answer: Paris", "Answer: paris."),
        ("Paris", "The capital is Paris"),
        ("There are 25 primes below one hundred.", "Below one hundred there are exactly 25 prime numbers."),
        ('{"a": 1, "b": [2]}', '{"b":[2], "a":1.0}'),
        ("Here:\n```python\nprint(1)\n```", "```python\nprint(1)\n```\nThat is it."),
        (SKY, "Air molecules scatter blue light more strongly than red (Rayleigh scattering), so the sky looks blue."),
    ],
)
def test_what_says_the_same(agrees: Callable[[str, str], bool], first: str, second: str) -> None:
    assert agrees(first, second) and agrees(second, first)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Answer: 42", "The result is 41."),
        ("Paris", "London"),
        ("yes", "no"),
        ("There are 25 primes below one hundred.", "There are 24 primes below one hundred."),
        ('{"a": 1}', '{"a": 2}'),
        ("```python\nprint(1)\n```", "```python\nprint(2)\n```"),
        (SKY, "The sky is blue because it reflects the ocean."),
        ("", "Paris"),
        ("", ""),
        ("<think>only thoughts", "Paris"),
        ("Answer: 16", "16 is not the answer."),
        ("16", "16 is too low."),
        ("not 42", "42"),
        ("Paris", "Anything but Paris."),
        ("Paris", "The capital used to be Paris."),
        ("The result of this sum is 16.", "16 is not the result of this sum."),
        ("B", "I would rule out B."),
    ],
)
def test_what_does_not(agrees: Callable[[str, str], bool], first: str, second: str) -> None:
    assert not agrees(first, second) and not agrees(second, first)


@pytest.mark.parametrize(
    "hostile", ["[" * 9999, "{" * 9999, "```" * 999, "\\boxed{" * 999, "Answer:", "\x00", "1/0", "Answer: 1e999999"]
)
def test_anything_at_all_can_be_compared(agrees: Callable[[str, str], bool], hostile: str) -> None:
    for other in ("Answer: 42", "Paris", hostile, "{}"):
        agrees(hostile, other)
        agrees(other, hostile)
