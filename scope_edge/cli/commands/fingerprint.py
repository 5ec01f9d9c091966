"""`scope-edge fingerprint`: have a model answer the anchors, so that it becomes a candidate."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from scope_edge.cli import format
from scope_edge.cli.format import Column
from scope_edge.cli.options import complete_model
from scope_edge.cli.output import ProgressLine, one_line, out, out_json

if TYPE_CHECKING:
    from scope_edge.fingerprinting.progress import FingerprintProgress, Projection, Summary
    from scope_edge.fingerprinting.run import Fingerprinting

CAPPED, SOME_MISSING = 3, 4
# Questions that --dry-run shows to people.
_SHOWN = 10
_EPILOG = """\b
Examples:
  scope-edge fingerprint our-finetune --dry-run
  scope-edge fingerprint our-finetune --limit 25
  scope-edge fingerprint vendor-model --max-usd 0.50 --concurrency 4
  scope-edge fingerprint vendor-model --precision 0.4 --json

\b
Exit codes:
  0 ok   1 the GGUF's worker failed   2 usage   3 --max-usd would be, or was, exceeded   4 some questions got no answer
  5 nobody answers, or a missing or damaged asset   130 interrupted
"""


@click.command("fingerprint", epilog=_EPILOG)
@click.argument("model", shell_complete=complete_model)
@click.option("--anchors", default="core-250", show_default=True, metavar="SET", help="The anchor set to ask.")
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=1),
    help="Answers wanted, each to what tells most.  [default: all]",
)
@click.option(
    "--precision",
    metavar="E",
    type=click.FloatRange(min=0, min_open=True),
    help="Stop once the standard error of ability, in log-odds, is this small.",
)
@click.option(
    "--max-usd",
    metavar="USD",
    type=click.FloatRange(min=0),
    help="Ask nothing if more is expected; stop before a call that could exceed it.",
)
@click.option(
    "--max-tokens",
    metavar="N",
    type=click.IntRange(min=1),
    default=2048,
    show_default=True,
    help="Limit on one answer.",
)
@click.option(
    "--concurrency",
    metavar="N",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Calls to an endpoint at once; a killed run loses as many answers at most.",
)
@click.option(
    "--rate", metavar="N", type=click.FloatRange(min=0, min_open=True), help="Calls to an endpoint a minute, at most."
)
@click.option(
    "--timeout",
    metavar="S",
    type=click.FloatRange(min=0, min_open=True),
    default=120,
    show_default=True,
    help="Seconds a call may take.",
)
@click.option(
    "--attempts",
    metavar="N",
    type=click.IntRange(1, 20),
    default=5,
    show_default=True,
    help="Calls for one question, at most.",
)
@click.option(
    "--fresh-seed",
    "seed",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    help="Draw other numbers for questions made by templates.",
)
@click.option("--again", is_flag=True, help="Forget earlier answers and ask everything.")
@click.option("--dry-run", is_flag=True, help="Show questions, cost and time; ask nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/json.md).")
@click.pass_context
def command(context: click.Context, /, model: str, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Have a model answer the anchors and grade it; then it is a candidate like any other.

    MODEL is the id of a card that says how the model is called: an endpoint, or a GGUF (docs/models.md). Every answer is on
    the disk before the next question: an interrupted run is taken up again by the same command.
    """
    from scope_edge.factory import open_catalog
    from scope_edge.fingerprinting.run import Fingerprinting
    from scope_edge.settings.config import load_settings

    settings = load_settings()
    with ProgressLine() as reading:
        prepared = Fingerprinting(
            open_catalog(settings),
            model,
            _wishes(**options),
            reading,
            threads=settings.threads,
            offline=settings.offline,
        )
    if dry_run:
        projection = prepared.project()
        if as_json:
            out_json(_projected(projection))
        else:
            out("\n".join(_projection_lines(projection)))
        return
    summary = _run(prepared)
    if as_json:
        out_json(_summed(summary))
    else:
        out("\n".join(_lines(summary)))
    context.exit(CAPPED if summary.ended == "max_usd" else SOME_MISSING if summary.missing else 0)


def _wishes(*, rate: float | None, timeout: float, attempts: int, **rest: Any) -> Any:
    from scope_edge.fingerprinting.progress import FingerprintOptions
    from scope_edge.providers.openai.client import RetryPolicy

    return FingerprintOptions(patience=RetryPolicy(timeout, attempts, rate), **rest)


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
    names = ("prompt_tokens", "completion_tokens", "usd", "usd_most", "seconds", "spent_usd")
    numbers = {name: getattr(projection, name) for name in names}
    head = {
        "model": projection.model,
        "anchor_set": projection.anchor_set,
        "how": projection.how,
        "left": projection.left,
    }
    return {**head, **numbers, "questions": questions}


def _projection_lines(projection: Projection) -> Iterator[str]:
    total, left = format.plural(len(projection.questions), "question"), projection.left
    before = f", {len(projection.answered)} of them answered already" if projection.answered else ""
    yield f"{projection.model}: {total} of {projection.anchor_set}{before}"
    yield f"  asked       {projection.how}"
    yield f"  tokens      about {format.count(projection.prompt_tokens)} in, {format.count(projection.completion_tokens)} out"
    if projection.usd is None:
        yield "  cost        unknown: the card has no prices"
    else:
        yield f"  cost        about {format.usd(projection.usd)}, at most {format.usd(projection.usd_most)}"
    if projection.spent_usd:
        yield f"  spent       {format.usd(projection.spent_usd)} by earlier runs"
    time = (
        "unknown until it was measured"
        if projection.seconds is None
        else f"about {format.duration(projection.seconds)}"
    )
    yield f"  time        {time}"
    if left:
        answered = set(projection.answered)
        first = [one for one in projection.questions if one.anchor not in answered][:_SHOWN]
        yield from format.table(
            [
                Column("next", [one.anchor for one in first]),
                Column("field", [one.spec.field for one in first]),
                Column("tier", [str(one.spec.tier) for one in first], right=True),
                Column("kind", [one.spec.kind for one in first]),
            ]
        )
        if left > len(first):
            yield f"and {left - len(first)} more; --json shows every question"


def _summed(summary: Summary) -> dict[str, Any]:
    body = asdict(summary)
    body["fields"] = {name: {"correct": mean, "answers": n} for name, (mean, n) in summary.fields.items()}
    body["fingerprint"] = str(summary.fingerprint)
    return body


def _lines(summary: Summary) -> Iterator[str]:
    yield click.style(f"{summary.model} has a fingerprint on {summary.anchor_set}", bold=True)
    why = {"all": "", "precision": "; ability is precise enough", "max_usd": "; the next call could exceed --max-usd"}
    yield f"  answers     {summary.answered}, {summary.asked} of them in this run{why[summary.ended]}"
    if summary.missing:
        anchor, reason = next(iter(summary.missing.items()))
        yield f"  missing     {len(summary.missing)}, asked again by the same command; {anchor}: {one_line(reason)}"
    if summary.cut:
        yield f"  cut off     {format.plural(summary.cut, 'answer')} at --max-tokens"
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
    names = list(summary.fields)
    yield from format.table(
        [
            Column("field", names),
            Column("correct %", [_share(mean) for mean, _ in summary.fields.values()], right=True),
            Column("answers", [str(n) for _, n in summary.fields.values()], right=True),
        ]
    )
    yield f"written to {summary.fingerprint}; {_next(summary.model)}"


def _next(model: str) -> str:
    """Whether it is a candidate now, or what makes it one."""
    from scope_edge.errors import ScopeEdgeError
    from scope_edge.factory import open_catalog
    from scope_edge.settings.config import load_settings

    # What is wrong with the pool is not this command's to say, which has done its work.
    with contextlib.suppress(ScopeEdgeError):
        if any(card.id == model for card in open_catalog(load_settings()).pool()):
            return "it is a candidate of `scope-edge route`"
    return f"`scope-edge pool add {model}` makes it a candidate"


def _share(mean: float) -> str:
    """What was counted, in percent; unlike an estimate it may be 0 or 100."""
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
        yield f"  speed       {', '.join(parts)}{'; written on its card' if summary.card else ''}"
