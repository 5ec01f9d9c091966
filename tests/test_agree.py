"""Two answers say the same or they do not: by the graders, and only where those have no word by the encoder."""

from __future__ import annotations

import pytest

from scope_edge.agreement import Agreement
from scope_edge.encoder import Encoder

SKY = "The sky is blue because of Rayleigh scattering: short wavelengths are scattered more."


@pytest.fixture(scope="module")
def agreement() -> Agreement:
    return Agreement(Encoder.load().encode)


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
def test_what_says_the_same(agreement: Agreement, first: str, second: str) -> None:
    assert agreement.agree(first, second) and agreement.agree(second, first)


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
    ],
)
def test_what_does_not(agreement: Agreement, first: str, second: str) -> None:
    assert not agreement.agree(first, second) and not agreement.agree(second, first)


@pytest.mark.parametrize(
    "hostile", ["[" * 9999, "{" * 9999, "```" * 999, "\\boxed{" * 999, "Answer:", "\x00", "1/0", "Answer: 1e999999"]
)
def test_anything_at_all_can_be_compared(agreement: Agreement, hostile: str) -> None:
    for other in ("Answer: 42", "Paris", hostile, "{}"):
        agreement.agree(hostile, other)
        agreement.agree(other, hostile)
