"""`scope-edge fingerprint`: measure a model on anchors, so that it becomes a candidate."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from scope_edge.cli import format
from scope_edge.cli.options import amount_option, complete_model, count_option, json_option
from scope_edge.cli.output import ProgressLine, one_line, out, out_json
from scope_edge.cli.run import INTERRUPTED, complain
from scope_edge.errors import ScopeEdgeError
from scope_edge.factory import open_catalog
from scope_edge.settings.config import load_settings

if TYPE_CHECKING:
    from scope_edge.fingerprinting.progress import FingerprintProgress, Projection, Summary
    from scope_edge.fingerprinting.run import Fingerprinting

CAPPED, SOME_MISSING = 3, 4
# Questions to show with --dry-run.
_SHOWN = 10
_EPILOG = """\b
Examples:
  scope-edge fingerprint our-finetune --dry-run
  scope-edge fingerprint our-finetune --limit 25
  scope-edge fingerprint vendor-model --max-usd 0.50 --concurrency 4
  scope-edge fingerprint vendor-model --precision 0.4 --json

\b
Exit codes:
  0 ok   1 the GGUF's worker failed   2 usage   3 --max-usd would be or was exceeded   4 some questions got no answer
  5 the model does not answer, or a missing or damaged file   130 interrupted
"""


@click.command("fingerprint", epilog=_EPILOG)
@click.argument("model", shell_complete=complete_model)
@click.option("--anchors", default="core-250", show_default=True, metavar="SET", help="The anchor set.")
@count_option("--limit", "Stop after N answers (most informative questions first).  [default: all]")
@amount_option("--precision", "E", "Stop when the standard error of the ability, in log-odds, is this small.")
@amount_option(
    "--max-usd", "USD", "Do not start if more is expected; stop before a call that could exceed it.", zero=True
)
@click.option(
    "--max-answer-tokens",
    "max_tokens",
    metavar="N",
    type=click.IntRange(1),
    default=2048,
    show_default=True,
    help="Limit on the tokens of an answer, as in `ask`.",
)
@count_option("--concurrency", "Concurrent calls to an endpoint. A killed run loses at most as many answers.", 1, 64, 1)
@amount_option("--rate", "N", "Limit on the calls to an endpoint per minute.")
@amount_option("--timeout", "S", "Limit on the time of a call, in seconds.", 120)
@count_option("--attempts", "Limit on the calls for a question.", 1, 20, 5)
@click.option(
    "--fresh-seed",
    "seed",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    help="The seed that draws the numbers in questions made from templates.",
)
@click.option("--again", is_flag=True, help="Discard earlier answers and ask every question.")
@click.option("--dry-run", is_flag=True, help="Show questions, cost and time; ask nothing.")
@json_option
@click.pass_context
def command(context: click.Context, /, model: str, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Measure a model on anchor questions, so that it can be chosen like any other.

    MODEL is the id of a card that says how to call the model: an endpoint, or a GGUF (docs/models.md). Every answer is saved
    at once: the same command continues an interrupted run. Ctrl-C ends the run and keeps what the answers tell.
    """
    from scope_edge.fingerprinting.progress import FingerprintOptions
    from scope_edge.fingerprinting.run import Fingerprinting
    from scope_edge.providers.openai.client import RetryPolicy

    settings = load_settings()
    with ProgressLine() as reading:
        patience = RetryPolicy(options.pop("timeout"), options.pop("attempts"), options.pop("rate"))
        chosen = FingerprintOptions(patience=patience, **options)
        prepared = Fingerprinting(
            open_catalog(settings), model, chosen, reading, threads=settings.threads, offline=settings.offline
        )
    if dry_run:
        projection = prepared.project()
        if as_json:
            out_json(_projected(projection))
        else:
            out("\n".join(_projection_lines(projection)))
        return
    try:
        summary = _run(prepared)
    except KeyboardInterrupt:
        complain("interrupted before the first answer; there is nothing to save", 0)
        raise
    if as_json:
        out_json(_summed(summary))
    else:
        out("\n".join(_lines(summary)))
    if summary.ended == "interrupted":
        complain(
            f"interrupted; {format.plural(summary.answered, 'answer')} saved; `scope-edge fingerprint {model}` asks the rest",
            0,
        )
        context.exit(INTERRUPTED)
    context.exit(CAPPED if summary.ended == "max_usd" else SOME_MISSING if summary.missing else 0)


def _run(prepared: Fingerprinting) -> Summary:
    with ProgressLine() as progress:

        def show(step: FingerprintProgress) -> None:
            ability = f"ability {_ability(step.ability.value, step.ability.error)}"
            spent = [format.usd(step.usd)] if step.usd else []
            progress.count(step.done, step.total, "question", step.seconds_left, ability, *spent)

        return prepared.run(show)


def _ability(value: float, error: float) -> str:
    return f"{value:+.2f} ± {error:.2f}"


def _projected(projection: Projection) -> dict[str, Any]:
    answered = set(projection.answered)
    questions = [
        {
            "anchor": one.anchor,
            "field": one.spec.field,
            "tier": one.spec.tier,
            "kind": one.spec.kind,
            "answered": one.anchor in answered,
            "prompt": one.prompt,
        }
        for one in projection.questions
    ]
    names = ("model", "anchor_set", "how", "left", "prompt_tokens", "completion_tokens", "usd", "usd_most", "seconds")
    return {**{name: getattr(projection, name) for name in (*names, "spent_usd")}, "questions": questions}


def _projection_lines(projection: Projection) -> Iterator[str]:
    total, left = format.plural(len(projection.questions), "question"), projection.left
    before = f", {len(projection.answered)} already answered" if projection.answered else ""
    yield f"{projection.model}: {total} of {projection.anchor_set}{before}"
    yield f"  called      {projection.how}"
    yield f"  tokens      about {format.count(projection.prompt_tokens)} in, {format.count(projection.completion_tokens)} out"
    if projection.usd is None:
        yield "  cost        unknown: the card has no prices"
    else:
        yield f"  cost        about {format.usd(projection.usd)}, at most {format.usd(projection.usd_most)}"
    if projection.spent_usd:
        yield f"  spent       {format.usd(projection.spent_usd)} by earlier runs"
    seconds = projection.seconds
    yield f"  time        {'unknown until measured' if seconds is None else f'about {format.duration(seconds)}'}"
    if left:
        answered = set(projection.answered)
        first = [one for one in projection.questions if one.anchor not in answered][:_SHOWN]
        yield from format.grid(
            ("next", "field", ">tier", "kind"),
            [(one.anchor, one.spec.field, str(one.spec.tier), one.spec.kind) for one in first],
        )
        if left > len(first):
            yield f"and {left - len(first)} more; --json shows every question"


def _summed(summary: Summary) -> dict[str, Any]:
    body = asdict(summary)
    body["fields"] = {name: {"correct": mean, "answers": n} for name, (mean, n) in summary.fields.items()}
    body["fingerprint"] = None if summary.fingerprint is None else str(summary.fingerprint)
    return body


def _lines(summary: Summary) -> Iterator[str]:
    yield click.style(f"{summary.model} has a fingerprint on {summary.anchor_set}", bold=True)
    why = {
        "all": "",
        "precision": "; the ability is precise enough",
        "max_usd": "; the next call could exceed --max-usd",
        "interrupted": "; interrupted",
    }
    yield f"  answers     {summary.answered}, {summary.asked} of them in this run{why[summary.ended]}"
    if summary.missing:
        anchor, reason = next(iter(summary.missing.items()))
        yield f"  missing     {len(summary.missing)}; the same command asks them again; {anchor}: {one_line(reason)}"
    if summary.cut:
        yield f"  cut off     {format.plural(summary.cut, 'answer')} at --max-answer-tokens"
    yield f"  correct     {_share(summary.correct)} %"
    yield f"  ability     {_ability(summary.ability.value, summary.ability.error)} in log-odds on an average question"
    place = summary.place
    near = [f"after {place.better[0]}"] if place.better else []
    near += [f"before {place.worse[0]}"] if place.worse else []
    yield f"  rank        {place.rank} of {place.of} models{': ' if near else ''}{', '.join(near)}"
    estimated = summary.counted.get("estimate", 0)
    counted = f" (of {format.plural(estimated, 'answer')} estimated)" if estimated else ""
    yield f"  tokens      {format.count(summary.prompt_tokens)} in, {format.count(summary.completion_tokens)} out{counted}"
    yield f"  cost        {_cost(summary)}"
    yield from _speed(summary)
    fields = [(name, _share(mean), str(n)) for name, (mean, n) in summary.fields.items()]
    yield from format.grid(("field", ">correct %", ">answers"), fields)
    if summary.fingerprint is None:
        yield "the fingerprint stored earlier stays: it rests on more answers"
    else:
        yield f"written to {summary.fingerprint}; {_next(summary.model)}"


def _next(model: str) -> str:
    """Say that the model is a candidate, or how to make it one."""
    # A problem with the pool is not for this command to report: its own work is done.
    with contextlib.suppress(ScopeEdgeError):
        if any(card.id == model for card in open_catalog(load_settings()).pool()):
            return "it is a candidate of `scope-edge route`"
    return f"`scope-edge pool add {model}` makes it a candidate"


def _share(mean: float) -> str:
    """Format a measured share in percent; unlike an estimate it may be 0 or 100."""
    return f"{100 * mean:.3g}"


def _cost(summary: Summary) -> str:
    if summary.usd is None:
        return "unknown: the card has no prices"
    if summary.usd_most is not None and summary.usd_most > summary.usd + 1e-9:
        return f"{format.usd(summary.usd)}, at most {format.usd(summary.usd_most)} with calls that got no answer"
    return format.usd(summary.usd)


def _speed(summary: Summary) -> Iterator[str]:
    speed, parts = summary.speed, []
    if speed.tokens_per_second is not None:
        parts.append(f"{speed.tokens_per_second:.3g} tokens a second")
    if speed.prompt_tokens_per_second is not None:
        parts.append(f"{speed.prompt_tokens_per_second:.3g} of prompts")
    if speed.load_seconds is not None:
        parts.append(f"loaded in {format.seconds(speed.load_seconds)} s")
    if parts:
        yield f"  speed       {', '.join(parts)}{'; written to its card' if summary.card else ''}"
