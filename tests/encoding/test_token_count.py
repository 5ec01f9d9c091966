"""The prompt token estimate: its bound holds on real queries, on facts about byte-pair encoding, and on hostile text."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scope_edge.encoding import token_count
from scope_edge.encoding.token_count import CHAT_WRAPPING, PromptTokens, estimate_prompt_tokens, query_prompt_tokens
from scope_edge.types import Query

DATA = os.environ.get("SCOPE_EDGE_ROUTING_DATA")

# cl100k tokens per UTF-8 byte of whole corpora in one language: FLORES-200 counts published with arXiv 2305.15425.
PUBLISHED = {
    "Meidän pitäisi lähteä huomenna aikaisin, jotta ehdimme junaan.": 0.367,
    "Wir sollten morgen früh aufbrechen, damit wir den Zug nicht verpassen.": 0.272,
    "Nous devrions partir tôt demain pour ne pas rater le train.": 0.263,
    "Yarın trene yetişmek için erkenden yola çıkmalıyız.": 0.349,
    "Chúng ta nên đi sớm ngày mai để không bị lỡ chuyến tàu.": 0.359,
    "Завтра нам нужно выйти рано, чтобы не опоздать на поезд.": 0.256,
    "Αύριο πρέπει να φύγουμε νωρίς για να μη χάσουμε το τρένο.": 0.483,
    "מחר אנחנו צריכים לצאת מוקדם כדי לא לאחר לרכבת.": 0.538,
    "غدا يجب أن نغادر مبكرا حتى لا يفوتنا القطار.": 0.388,
    "हमें कल जल्दी निकलना चाहिए ताकि ट्रेन न छूटे।": 0.383,
    "พรุ่งนี้เราควรออกแต่เช้าเพื่อไม่ให้พลาดรถไฟ": 0.325,
    "ხვალ ადრე უნდა გავიდეთ, რომ მატარებელი არ გავუშვათ.": 0.681,
    "ነገ ባቡሩ እንዳያመልጠን በጠዋት መውጣት አለብን።": 0.910,
    "Վաղը պետք է շուտ դուրս գանք, որ գնացքից չուշանանք։": 0.996,
    "明天我们应该早点出发,这样才不会错过火车。": 0.421,
    "明日は電車に乗り遅れないように早く出発するべきです。": 0.370,
    "내일 기차를 놓치지 않으려면 일찍 출발해야 합니다.": 0.405,
}


@pytest.mark.skipif(not DATA, reason="SCOPE_EDGE_ROUTING_DATA is not set")
@pytest.mark.parametrize("name", ["zeroeval", "kor_bench", "mmlu_pro", "reasoning_gym"])
def test_bound_covers_and_estimate_is_close_on_real_queries(name: str) -> None:
    with gzip.open(Path(str(DATA)) / name / "queries.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    estimates = [estimate_prompt_tokens(row["text"]) for row in rows]
    true = [row["text_tokens"] for row in rows]
    covered = sum(e.high >= t for e, t in zip(estimates, true, strict=True)) / len(rows)
    error = sum(abs(e.expected / t - 1) for e, t in zip(estimates, true, strict=True)) / len(rows)
    width = sorted(e.high / e.expected for e in estimates)[len(rows) // 2]
    assert covered >= 0.95
    assert error <= 0.08
    assert width <= 1.3


@pytest.mark.parametrize("text", PUBLISHED)
def test_bound_holds_at_the_published_rate_of_languages_the_data_lacks(text: str) -> None:
    tokens = PUBLISHED[text] * len(text.encode())
    estimate = estimate_prompt_tokens(text)
    assert estimate.high >= tokens
    if not any(character.isascii() and character.isalpha() for character in text):
        assert tokens / 2 <= estimate.expected <= tokens * 2


def test_digits_cost_a_token_for_every_three() -> None:
    estimate = estimate_prompt_tokens("7" * 3000)
    assert estimate.expected == pytest.approx(1000, rel=0.15)
    assert estimate.high >= 1000
    # A remainder of one or two digits is a token of its own.
    assert estimate_prompt_tokens("12345678").expected == pytest.approx(3, rel=0.15)


def test_runs_of_white_space_are_cheap_and_still_bounded() -> None:
    estimate = estimate_prompt_tokens("x =" + " " * 100_000 + "1")
    assert estimate.high <= 10_000
    assert estimate.expected < estimate.high


def test_base64_and_hex_are_not_taken_for_prose() -> None:
    noise = random.Random(0).randbytes(3000)
    encoded, hexed = base64.b64encode(noise).decode(), noise.hex()
    # English spends about one token on 4.5 characters, random base64 one on less than two.
    assert estimate_prompt_tokens(encoded).expected >= 0.5 * len(encoded)
    assert estimate_prompt_tokens(encoded).high >= 0.8 * len(encoded)
    assert estimate_prompt_tokens(hexed).high >= 0.7 * len(hexed)


def test_code_costs_more_than_its_words() -> None:
    code = "for (int i = 0; i < n; ++i) {\n    total[i] += weights[i] * inputs[i];\n}\n"
    prose = "for each of the items in the list we add the weighted input to the total"
    assert estimate_prompt_tokens(code).expected > 1.5 * estimate_prompt_tokens(prose).expected


def test_text_without_english_gets_a_wider_bound() -> None:
    english = estimate_prompt_tokens("the cat and the dog that you saw with the man of the house " * 20)
    german = estimate_prompt_tokens("die katze und der hund die du mit dem mann vom haus sahst " * 20)
    assert german.high / german.expected > 1.5 * english.high / english.expected


@given(st.text())
def test_bound_never_exceeds_the_bytes_and_never_falls_below_the_estimate(text: str) -> None:
    estimate = estimate_prompt_tokens(text)
    assert 0 <= estimate.expected <= estimate.high <= len(text.encode())
    assert (estimate.high == 0) == (text == "")


@given(st.text(alphabet=st.characters(min_codepoint=1, max_codepoint=0x10FFFF), min_size=1, max_size=40))
def test_repeating_a_text_repeats_its_cost(text: str) -> None:
    # Weights are linear: what is lost or gained is only what happens where two copies meet.
    one, many = estimate_prompt_tokens(text + "\n"), estimate_prompt_tokens((text + "\n") * 200)
    assert many.expected <= 200 * (one.expected + 2)
    assert many.high >= 200 * max(0.0, one.high - 6)


@pytest.mark.parametrize("text", ["\ud800", "a\udcffb", "\0" * 10, "\u202e" + "مرحبا", "👩‍👩‍👧‍👦" * 50, "\r\n" * 5])
def test_odd_text_is_counted(text: str) -> None:
    estimate = estimate_prompt_tokens(text)
    assert 0 < estimate.expected <= estimate.high


def test_a_megabyte_costs_what_its_parts_cost() -> None:
    part = "What is the capital of the country that you like, and why?\n"
    copies = 1_000_000 // len(part)
    assert estimate_prompt_tokens(part * copies).expected == pytest.approx(
        copies * estimate_prompt_tokens(part).expected, rel=0.05
    )


def test_a_query_pays_for_its_system_prompt_and_the_wrapping() -> None:
    bare = query_prompt_tokens(Query("What is the time?"))
    whole = query_prompt_tokens(Query("What is the time?", system="You answer in one word."))
    assert bare.expected == estimate_prompt_tokens("What is the time?").expected + CHAT_WRAPPING.expected
    assert bare.high == estimate_prompt_tokens("What is the time?").high + CHAT_WRAPPING.high
    system = estimate_prompt_tokens("You answer in one word.")
    assert whole.expected == pytest.approx(bare.expected + system.expected)
    assert whole.high == pytest.approx(bare.high + system.high)


def test_every_count_has_its_weight_and_no_bound_undercuts_its_estimate() -> None:
    raw = "Any text, 12 of it — été".encode()
    assert len(token_count.ascii_counts(raw)) == len(token_count.ASCII_WEIGHTS)
    assert len(token_count.script_counts(raw)) == len(token_count.SCRIPT_WEIGHTS)
    for weight in (*token_count.ASCII_WEIGHTS.values(), *token_count.SCRIPT_WEIGHTS.values()):
        assert 0 <= weight.expected <= weight.high


def test_estimates_are_values() -> None:
    estimate = PromptTokens(1.0, 2.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        estimate.expected = 3.0  # type: ignore[misc]
    assert estimate + PromptTokens(1.0, 1.0) == PromptTokens(2.0, 3.0)
