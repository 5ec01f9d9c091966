"""Prompts out of model cards: every way a card may show its prompt gives the same template."""

from __future__ import annotations

import pytest

from scope_edge.estimator.convert.card import mode_from_card, template_from_card
from scope_edge.estimator.prompt import Example, PromptTemplate

# A prompt of our own in the structure that released cards use, with holes to be spelled in each card's way.
PROMPT = """### Task
Guess how a model will do, given {COUNT} anchor questions.

### Target Model
{MODEL}

{EXAMPLES}### Target Question
{QUESTION}

### Prediction Requirements
Mind \\\\boxed answers.

### Output Format (STRICT)
Analysis: [why]
Predicted Performance: {OPEN}len: [integer], correct: [yes/no]{CLOSE}

### Important Notes
- be brief

### Output:"""
SHOWN = """Example 1:
Question: {Q1}
Performance: {OPEN}len: {L1}, correct: {C1}{CLOSE}

Example 2:
Question: {Q1}
Performance: {OPEN}len: {L1}, correct: {C1}{CLOSE}

...

"""


def prompt(examples: str = SHOWN, **holes: str) -> str:
    values = {"COUNT": "5", "OPEN": "{", "CLOSE": "}", **holes}
    text = PROMPT.replace("{EXAMPLES}", examples)
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def card(block: str, language: str = "") -> str:
    return f"# A model\n\n```bash\npip install x\n```\n\nIt reads this:\n\n```{language}\n{block}\n```\n\n## Licence\n"


PLAIN = {
    "braces": prompt(MODEL="{model_name}", QUESTION="{question}", Q1="{q}", L1="{n}", C1="{yes_no}", COUNT="5"),
    "brackets": prompt(MODEL="[model name]", QUESTION="[question text]", Q1="[q]", L1="[int]", C1="[yes/no]"),
    "angles": prompt(MODEL="<provider/model>", QUESTION="<question>", Q1="<q>", L1="<int>", C1="<yes/no>"),
    "worked example": prompt(MODEL="acme/tiny-1", QUESTION="What is\ntwo?", Q1="One?", L1="12", C1="yes"),
    "a count": prompt(MODEL="{model}", QUESTION="{q}", Q1="x", L1="1", C1="no", COUNT="{num_anchor_examples}"),
}
F_STRING = prompt(
    MODEL="{model_name}",
    QUESTION="{target['question']}",
    Q1="{a[0]['q']}",
    L1="{a[0]['len']}",
    C1="{a[0]['c']}",
    OPEN="{{",
    CLOSE="}}",
    COUNT="{num_anchor_examples}",
)
FORMAT = prompt(MODEL="{model}", QUESTION="{question}", Q1="x", L1="1", C1="no", OPEN="{{", CLOSE="}}")
SEPARATE = prompt("{examples_text}", MODEL="{model_name}", QUESTION="{question}", OPEN="{{", CLOSE="}}")
SNIPPET = 'examples_text = ""\nfor i, e in enumerate(anchors, 1):\n    examples_text += f"Example {i}: ..."\n'
PYTHON = {
    "f-string": f'prompt = f"""{F_STRING}"""\n',
    "returned": f'def build(model_name, a, target):\n    return f"""{F_STRING}"""\n',
    "format": f'prompt = """{FORMAT}""".format(model=m, question=q)\n',
    "code left out": f'prompt = f"""{F_STRING}"""\n... and so on, see below\n',
    "examples apart": f'{SNIPPET}prompt = f"""{SEPARATE}"""\n',
}
RENDERED = prompt(
    "Example 1:\nQuestion: Why?\nPerformance: {len: 31, correct: no}\n\n", MODEL="acme/big-2", QUESTION="How?"
)


def rendered(template: str) -> str:
    pieces = PromptTemplate.parse(template, "card").render("acme/big-2", (Example("Why?", 31, False),), "How?")
    return pieces[1].text


@pytest.mark.parametrize("block", PLAIN.values(), ids=PLAIN)
def test_a_prompt_shown_as_text(block: str) -> None:
    template = template_from_card(card(block))
    assert template is not None and rendered(template) == RENDERED


@pytest.mark.parametrize("code", PYTHON.values(), ids=PYTHON)
def test_a_prompt_shown_as_code(code: str) -> None:
    template = template_from_card(card(code, "python"))
    expected = RENDERED if "code left out" in code or "and so on" in code else RENDERED.replace("\\\\", "\\")
    assert template is not None and rendered(template) == expected


def test_windows_line_ends_and_longer_fences() -> None:
    text = card(PLAIN["braces"]).replace("```", "````").replace("\n", "\r\n")
    template = template_from_card(text)
    assert template is not None and rendered(template) == RENDERED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# A model\n\nNo prompt here.",
        card("### Task\nsomething else"),
        card(PLAIN["braces"].replace("### Target Question", "### Question")),
        card('f"""' + F_STRING.replace("- be brief", "- {house_rules}") + '"""', "python"),
        "```\n" + PLAIN["braces"],
    ],
    ids=["empty", "no block", "another prompt", "no question", "a placeholder nobody knows", "fence left open"],
)
def test_a_card_without_a_usable_prompt_gives_none(text: str) -> None:
    assert template_from_card(text) is None
    assert mode_from_card(text) is None


def test_the_mode_is_what_the_output_format_asks_for() -> None:
    assert mode_from_card(card(PLAIN["braces"])) == "cot"
    assert mode_from_card(card(PLAIN["braces"].replace("Analysis: [why]\n", ""))) == "direct"


def test_code_in_a_card_is_never_run(tmp_path: object) -> None:
    code = f'import os\nos._exit(7)\nprompt = f"""{F_STRING}"""\n'
    assert template_from_card(card(code, "python")) is not None
