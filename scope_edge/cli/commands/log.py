"""`scope-edge log`: show, explain and delete the journal's decisions; show spending."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from scope_edge.cli import format
from scope_edge.cli.inputs import Moment, confirmed, query_text
from scope_edge.cli.options import complete_model, count_option, json_option, yes_option
from scope_edge.cli.output import one_line, out, out_json, print_table
from scope_edge.errors import UsageError
from scope_edge.factory import open_journal, open_ledger
from scope_edge.settings.config import load_settings

if TYPE_CHECKING:
    from scope_edge.history import Entry, Journal
    from scope_edge.types import Run

_SPEND_EPILOG = """\b
Examples:
  scope-edge log spend
  SCOPE_EDGE_MAX_USD_DAY=0.50 scope-edge log spend --json
"""
_NAMES = {"day": "today", "month": "this month"}


@click.command("spend", epilog=_SPEND_EPILOG)
@json_option
def spend(as_json: bool) -> None:
    """Show spending today and this month, and what the caps leave.

    The caps are the settings max_usd_day and max_usd_month. "Reserved" is the most that running calls may cost. If a process
    dies before a call is settled, the amount stays reserved until the end of the day or month.
    """
    with open_ledger(load_settings()) as ledger:
        spans = ledger.spending()
    if as_json:
        names = ("spent", "reserved", "waiting", "cap", "left", "calls", "unpriced")
        out_json(
            {
                one.span: {
                    "since": one.first.isoformat(),
                    "resets": one.resets.isoformat(),
                    **{name: getattr(one, name) for name in names},
                    "models": dict(one.models),
                }
                for one in spans
            }
        )
        return
    print_table(
        ("", ">spent", ">calls", ">reserved", ">cap", ">left", "resets"),
        [
            (
                _NAMES[one.span],
                _usd(one.spent),
                str(one.calls),
                _usd(one.reserved),
                "none" if one.cap is None else _usd(one.cap),
                "" if one.left is None else _usd(one.left),
                f"{one.resets} 00:00",
            )
            for one in spans
        ],
    )
    month = spans[1]
    if month.models:
        out("this month by model: " + ", ".join(f"{one_line(model)} {_usd(usd)}" for model, usd in month.models))
    if month.unpriced:
        out(f"{format.plural(month.unpriced, 'call')} of models whose price is unknown, which no sum includes")
    if all(one.cap is None for one in spans):
        out("spending has no cap; the settings max_usd_day and max_usd_month set one")


def _usd(value: float) -> str:
    return "$0" if value == 0 else format.usd(value)


_EPILOG = """\b
Examples:
  scope-edge log
  scope-edge log --limit 5 --model llama-3.1-70b-instruct --json
  scope-edge log --why last
  scope-edge log --text "Why is the sky blue?"
  scope-edge log spend
  scope-edge log purge --older-than 30d

\b
Exit codes:
  0 ok   2 usage, or no such entry   5 the journal is damaged or cannot be written
"""
_COUNTED = {
    "server": "as the server counted",
    "tokenizer": "counted by its tokenizer",
    "estimate": "estimated from the text",
}
_ENDINGS = {
    "complete": "answered",
    "cut": "answered, cut off by a limit on tokens",
    "loop": "answered, ended because it only repeated itself",
    "broken": "broke off in its answer",
    "cancelled": "was cancelled",
}


@click.group("log", epilog=_EPILOG, invoke_without_command=True)
@click.option("--why", metavar="ID", help="Explain one decision: the candidates, and the result.")
@count_option("--limit", "Show at most N entries.  [default: 20]")
@click.option("--before", metavar="ID", help="Only entries older than this one.")
@click.option(
    "--model",
    metavar="MODEL",
    shell_complete=complete_model,
    help="Only entries that chose this model or got its answer.",
)
@click.option(
    "--since", metavar="WHEN", type=Moment(), help="Only entries since a date (2026-01-31) or age (12h, 30d, 8w)."
)
@click.option("--text", metavar="TEXT", help="Only entries of exactly this query; - = standard input.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array, with --why one object (docs/json.md).")
@click.pass_context
def command(context: click.Context, /, why: str | None, as_json: bool, **filters: Any) -> None:
    """Show past decisions, the latest first; explain one; show spending; delete entries.

    An id may be shortened as long as it is unambiguous; "last" is the latest entry. `scope-edge ask` and `scope-edge serve`
    write the journal, `scope-edge route` only with the setting journal = "all" (docs/journal.md).
    """
    given = [f"--{name}" for name, value in filters.items() if value is not None]
    if context.invoked_subcommand is not None:
        if given or why is not None or as_json:
            name = context.invoked_subcommand
            raise UsageError(f"options go after `log {name}`, not before {name}")
        return
    if why is not None and given:
        raise UsageError(f"--why explains one entry; leave {given[0]} out")
    with open_journal(load_settings()) as journal:
        if why is not None:
            _explain(journal, why, as_json)
            return
        filters |= {"text": query_text(filters["text"]), "limit": filters["limit"] or 20}
        entries = journal.entries(**filters)
    if as_json:
        out_json([entry.as_dict() for entry in entries])
    elif entries:
        _print_entries(entries)
    else:
        out("no entries" + (" of that kind" if given else "; `scope-edge ask` and `scope-edge serve` write them"))


command.add_command(spend)


@command.command("purge")
@click.option(
    "--older-than", metavar="WHEN", type=Moment(), help="Only entries older than a date (2026-01-31) or 12h, 30d, 8w."
)
@click.option("--keep-feedback", is_flag=True, help="Keep the anchors made of your feedback on these entries.")
@yes_option
@json_option
def purge_log(older_than: datetime | None, keep_feedback: bool, yes: bool, as_json: bool) -> None:
    """Delete entries and overwrite them on the disk.

    All entries are deleted unless --older-than is given. The anchors made of your feedback on them are deleted as well,
    unless --keep-feedback is given. Deleting all entries also deletes the key of the hashes, and replaces a damaged journal.
    The record of spending is kept.
    """
    from scope_edge.history.feedback import purge

    which = "all entries" if older_than is None else f"entries older than {_time(older_than)}"
    learned = "" if keep_feedback else " and the anchors made of your feedback on them"
    if not confirmed(f"Delete {which} of the journal{learned}", yes):
        out("nothing was deleted")
        return
    with open_journal(load_settings()) as journal:
        done = purge(journal, older_than=older_than, keep_feedback=keep_feedback)
        file = journal.file
    if as_json:
        out_json({"entries": done.entries, "anchors": done.anchors, "wiped": done.wiped})
        return
    if done.entries is None:
        out(f"{file}: damaged; overwritten and deleted")
    else:
        out(f"{format.plural(done.entries, 'entry', 'entries')} deleted")
    if done.anchors:
        out(f"{format.plural(done.anchors, 'anchor')} made of your feedback deleted")
    if not done.wiped:
        out(f"not everything is overwritten: another process is reading {file}; end it and purge again")


def _print_entries(entries: Sequence[Entry]) -> None:
    print_table(
        ("id", "when", "model", "result", ">right %", ">tokens", ">cost", ">seconds", "your feedback"),
        [
            (
                one.id,
                _time(one.time),
                format.clipped(one_line(one.model or format.UNKNOWN), 36),
                _result(one),
                _chance(one),
                format.count(one.run.completion_tokens) if one.run else "",
                format.usd(one.run.usd) if one.run else "",
                format.seconds(one.run.seconds) if one.run else "",
                "" if one.feedback is None else _verdict(one.feedback.correct),
            )
            for one in entries
        ],
    )


def _result(entry: Entry) -> str:
    attempts = len(entry.run.attempts) if entry.run is not None else 0
    return entry.state + (f" after {format.plural(attempts, 'other')}" if attempts else "")


def _chance(entry: Entry) -> str:
    p = next((one.p_correct for one in entry.decision.candidates if one.model == entry.model), None)
    return "" if entry.model is None else format.percent(p)


def _verdict(correct: float) -> str:
    return {0.0: "wrong", 1.0: "right"}.get(correct, f"{100 * correct:g}% right")


def _time(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"


def _explain(journal: Journal, id: str, as_json: bool) -> None:
    from scope_edge.cli.render.decision import shown

    entry = journal.entry(id)
    if as_json:
        out_json(entry.as_dict())
        return
    out(format.folded(_head(journal, entry)) + "\n")
    width = format.screen_width()
    out(shown(entry.decision, explain=True, width=width, value_of_time=entry.value_of_time))
    out("\n" + format.folded(_outcome(entry)))


def _head(journal: Journal, entry: Entry) -> Iterator[str]:
    profile = "" if entry.profile is None else f", profile {entry.profile}"
    yield f"{entry.id}, decided {entry.time.astimezone():%Y-%m-%d %H:%M:%S} in pool {one_line(entry.pool)}{profile}"
    if entry.text is not None:
        yield format.clipped(one_line(entry.text), 2000)
    else:
        yield "the query's text was not kept (setting journal_text)"
    others = journal.same_query(entry)
    if others:
        yield f"the same query was decided {format.plural(len(others), 'other time')}: {', '.join(others)}"


def _outcome(entry: Entry) -> Iterator[str]:
    yield click.style("result", bold=True)
    if entry.run is None:
        yield "only decided, not run"
    else:
        yield from _run(entry.run)
    if entry.feedback is not None:
        yield f"your feedback: {_verdict(entry.feedback.correct)}; `scope-edge feedback {entry.id} --undo` takes it back"


def _run(run: Run) -> Iterator[str]:
    from scope_edge.cli.render.decision import PLACES

    for attempt in run.attempts:
        yield f"{one_line(attempt.model)}, {PLACES[attempt.where]}, did not answer: {one_line(attempt.error)}"
    if run.model is None:
        yield "no model answered"
    else:
        place = "" if run.where is None else f", {PLACES[run.where]},"
        yield f"{one_line(run.model)}{place} {_ENDINGS.get(run.ending, run.ending)}"
    yield ", ".join(_numbers(run))


def _numbers(run: Run) -> Iterator[str]:
    how = "" if run.counted is None else f" ({_COUNTED.get(run.counted, run.counted)})"
    yield f"prompt {format.count(run.prompt_tokens)} and answer {format.count(run.completion_tokens)} tokens{how}"
    yield format.usd(run.usd) if run.usd is not None else "at an unknown cost"
    yield f"first token after {format.seconds(run.first_token_seconds)} s, the whole answer after {format.seconds(run.seconds)} s"
