"""Thoughts are taken off, however a model spells them and however its answer is cut into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scope_edge.providers.thoughts import ThoughtFilter, marks_thought, opened_thought, without_thoughts

THOUGHT, ANSWER = "Is it 7? No: 3 < 4.\n[1] so", "The answer is 42."
SPELLED = [
    "<think>{}</think>\n\n{}",
    "<thinking>{}</thinking>{}",
    "<reasoning>{}</reasoning>\n{}",
    "[THINK]{}[/THINK]{}",
    "<seed:think>{}</seed:think>{}",
    "<start_of_thought>{}<end_of_thought>{}",
    "<unused94>thought\n{}<unused95>{}",
    "<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>{}",
    "<|start|>assistant<|channel|>commentary to=user<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>{}",
    "  \n<think>\n{}\n</think>\n{}",
]


def filtered(pieces: list[str]) -> tuple[str, str]:
    made = ThoughtFilter()
    parts = [made.feed(piece) for piece in pieces] + [made.rest()]
    return "".join(thought for thought, _ in parts), "".join(text for _, text in parts)


def cut(text: str, sizes: list[int]) -> list[str]:
    pieces = []
    for size in sizes:
        pieces.append(text[:size])
        text = text[size:]
    return [*pieces, text]


@pytest.mark.parametrize("spelled", SPELLED)
def test_a_thought_is_not_the_answer(spelled: str) -> None:
    assert without_thoughts(spelled.format(THOUGHT, ANSWER)).strip() == ANSWER


@pytest.mark.parametrize("spelled", SPELLED)
@given(sizes=st.lists(st.integers(1, 9), max_size=60))
def test_in_pieces_it_is_the_same(spelled: str, sizes: list[int]) -> None:
    thought, text = filtered(cut(spelled.format(THOUGHT, ANSWER), sizes))
    assert text == ANSWER and thought.strip() == THOUGHT


@pytest.mark.parametrize(
    "text",
    [
        ANSWER,
        "",
        "<b>bold</b> and <i>so</i>",
        "<thin",
        "[1] is a source",
        "[THIN ice]",
        "Use <think> to let it think, and </think> to end.",
        "<thinker>Rodin</thinker>",
        "<",
    ],
)
@given(sizes=st.lists(st.integers(1, 5), max_size=40))
def test_what_is_no_thought_stays_to_the_letter(text: str, sizes: list[int]) -> None:
    assert filtered(cut(text, sizes)) == ("", text)


def test_a_thought_without_an_end_is_all_thought_and_one_without_a_beginning_begins_with_the_reply() -> None:
    assert filtered(["<think>", "and so ", "on </thi"]) == ("and so on </thi", "")
    assert without_thoughts("<think>and so on") == ""
    assert without_thoughts("Answer: 7\n</think>\nAnswer: 42") == "\nAnswer: 42"


@pytest.mark.parametrize(
    ("prompt", "tag"),
    [
        ("<|im_start|>assistant\n<think>\n", "<think>"),
        ("[THINK]", "[THINK]"),
        ("<think>\n\n</think>\n\n", ""),
        ("<think>\nFirst,", ""),
        ("<|start|>assistant", ""),
        ("", ""),
    ],
)
def test_a_prompt_that_begins_the_thought(prompt: str, tag: str) -> None:
    assert opened_thought(prompt) == tag


@pytest.mark.parametrize(
    ("token", "marks"),
    [
        *(
            (one, True)
            for one in ("<think>", "</think>", "[THINK]", "[/THINK]", "<|channel|>", "<|message|>", "<|start|>")
        ),
        *((one, False) for one in ("<|im_end|>", "<s>", "<|end|>", "<unused7>", "think", "")),
    ],
)
def test_control_tokens_around_a_thought(token: str, marks: bool) -> None:
    assert marks_thought(token) is marks
