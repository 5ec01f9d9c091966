"""`scope-edge feedback`: say whether an answer was right. Estimates use it from the next query on."""

from __future__ import annotations

import click

from scope_edge.cli import format
from scope_edge.cli.inputs import query_text
from scope_edge.cli.options import count_option, json_option
from scope_edge.cli.output import one_line, out, out_json
from scope_edge.cli.run import complain
from scope_edge.errors import UsageError

_EPILOG = """\b
Examples:
  scope-edge feedback last --correct
  scope-edge feedback 7k2m9q --wrong --text "Why is the sky blue?"
  scope-edge feedback 7k2m9q --correct --tokens 240
  scope-edge feedback 7k2m9q --undo

\b
Exit codes:
  0 ok   2 usage, no such entry, or another text than the entry's   5 a file is damaged or cannot be written
"""


@click.command("feedback", epilog=_EPILOG)
@click.argument("id")
@click.option("--correct", is_flag=True, help="The answer was right.")
@click.option("--wrong", is_flag=True, help="The answer was wrong.")
@click.option("--undo", "undone", is_flag=True, help="Take the feedback back.")
@count_option("--tokens", "Tokens of the whole answer, if the journal does not have them.")
@click.option(
    "--text",
    metavar="TEXT",
    help="The query's text, if the journal has neither the text nor its embedding; - = standard input.",
)
@json_option
def command(
    id: str, correct: bool, wrong: bool, undone: bool, tokens: int | None, text: str | None, as_json: bool
) -> None:
    """Say whether the answer of a journal entry was right; the id "last" is the latest entry.

    The feedback becomes an anchor of yours: embedding and outcome, no text. It changes what is expected of that model on
    similar queries, and on no others. New feedback on an entry replaces the old.
    """
    if correct + wrong + undone != 1:
        raise UsageError("give one of --correct, --wrong and --undo")
    word = "correct" if correct else "wrong" if wrong else "undo"
    if word == "undo" and (tokens is not None or text is not None):
        raise UsageError("--undo takes feedback back; leave --tokens and --text out")
    from scope_edge.factory import open_catalog, open_journal
    from scope_edge.history.feedback import give, undo
    from scope_edge.settings.config import load_settings

    settings = load_settings()
    with open_journal(settings) as journal:
        if word == "undo":
            done = undo(journal, id)
        else:
            text = query_text(text)
            done = give(journal, open_catalog(settings), id, float(word == "correct"), tokens=tokens, text=text)
    if as_json:
        body = {"id": done.id, "model": done.model, "feedback": None if word == "undo" else word, "anchors": done.total}
        out_json(body)
    elif word == "undo":
        out(f"{done.id}: your feedback on {one_line(done.model)} is taken back; {_judged(done.total)}")
    else:
        said = "right" if word == "correct" else "wrong"
        changed = " (different from before)" if done.before not in (None, done.correct) else ""
        out(
            f"{done.id}: {one_line(done.model)} was {said}{changed}; {_judged(done.total)}, used from the next query on"
        )
    if not done.known:
        complain(
            f"{done.model} has no fingerprint, so feedback moves an average model's numbers;"
            f" `scope-edge fingerprint {done.model}` makes one",
            0,
        )


def _judged(total: int) -> str:
    return f"{format.plural(total, 'answer')} judged"
