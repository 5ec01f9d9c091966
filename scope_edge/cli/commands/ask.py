"""`scope-edge ask`: choose a model for a text and print its answer."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from scope_edge.cli.format import is_terminal
from scope_edge.cli.inputs import query_options, read_query
from scope_edge.cli.options import complete_model, json_option, setting_option
from scope_edge.cli.output import one_line, out_json, out_line, out_piece
from scope_edge.cli.preferences import preference_options
from scope_edge.cli.run import complain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scope_edge.cli.server_client import ServedStream
    from scope_edge.router import Stream
    from scope_edge.settings.config import Settings
    from scope_edge.types import Decision, Run

    AnswerStream = Stream | ServedStream

INFEASIBLE = 3

_EPILOG = """\b
Examples:
  scope-edge ask "What is the capital of France?"
  scope-edge ask --local-only "Translate to German: good morning"
  scope-edge ask --alpha 0.9 --max-usd 0.002 --json "Prove that 2 has no rational root."
  git diff | scope-edge ask --system "Write a commit message for this change." -
  scope-edge ask --verify 2 "How many primes are there below one hundred?"

\b
Exit codes:
  0 answered   1 unexpected error   2 usage, or the model's server refused the request
  3 no model keeps to the limits or to a spending cap   4 the answer broke off
  5 no model answered, or a missing or damaged file   130 interrupted   141 the output was closed
"""


@click.command("ask", epilog=_EPILOG)
@query_options("ask")
@click.option(
    "--model", metavar="MODEL", shell_complete=complete_model, help="Ask this model only. The limits hold for it, too."
)
@preference_options
@setting_option(
    "max_answer_tokens",
    "N",
    "The most tokens of the answer, as OpenAI's max_tokens, whatever the limits on prompt and answer together.  [default: the"
    " model's server's; 4096 on the device]",
)
@click.option(
    "--temperature",
    metavar="T",
    type=click.FloatRange(0.0, 2.0),
    help="How freely tokens are drawn, from 0 (the most probable) to 2.  [default: the model's own]",
)
@setting_option(
    "verify",
    "[0|2]",
    "2 = let a model on the device answer twice; if the answers contradict each other, ask a better model in the cloud."
    " Takes twice the time on the device.  [default: 0]",
)
@setting_option(
    "keep_alive",
    "S",
    "Seconds a model on the device stays loaded after its answer. This command unloads it at its end; a running server"
    " uses its own setting.",
)
@click.option("--no-stream", is_flag=True, help="Print the answer only when it is complete.")
@json_option
@click.option("--quiet", "-q", is_flag=True, help="Print only the answer, without the line about the model.")
@click.pass_context
def command(
    context: click.Context,
    /,
    texts: tuple[str, ...],
    file: str | None,
    system: str | None,
    model: str | None,
    exclude: tuple[str, ...],
    temperature: float | None,
    no_stream: bool,
    as_json: bool,
    quiet: bool,
    **overrides: Any,
) -> None:
    """Choose a model for a query, ask it, and print the answer.

    The answer goes to standard output as it arrives; one line about the model and the reason goes to standard error. If the
    model does not answer, the next best one is asked, but never one that the limits rule out. The text is one argument, or -
    for standard input.
    """
    from scope_edge.settings.config import load_settings

    text = read_query(texts, file, system, "ask")
    settings = _with_model(load_settings(overrides), model)
    from scope_edge.errors import InfeasibleError

    fields = {} if temperature is None else {"temperature": temperature}
    options: dict[str, Any] = {"system": system, "model": model, "exclude": exclude, "fields": fields}
    try:
        with _answering(settings, text, options) as stream:
            context.exit(_json(stream) if as_json else _plain(stream, whole=no_stream, quiet=quiet))
    except InfeasibleError as error:
        context.exit(_infeasible(error.decision, as_json))


@contextlib.contextmanager
def _answering(settings: Settings, text: str, options: dict[str, Any]) -> Iterator[AnswerStream]:
    """Give the answer as a stream, from the user's server or from this process. Raises what `Router.stream` does."""
    from scope_edge.cli import server_client

    with server_client.ask(settings, text, options) as served:
        if served is not None:
            yield served
            return
    from scope_edge.router import Router

    with Router(settings) as router, router.stream(text, **options) as stream:
        yield stream


def _with_model(settings: Settings, model: str | None) -> Settings:
    """Return the settings with a pool that contains the model. Raises UsageError: the model is unknown."""
    if model is None:
        return settings
    from scope_edge.factory import open_catalog

    catalog = open_catalog(settings)
    catalog.card(model)
    return settings if model in [card.id for card in catalog.pool()] else replace(settings, pool=model)


def _infeasible(decision: Decision, as_json: bool) -> int:
    from scope_edge.cli.render.decision import infeasible

    if as_json:
        _out(decision, None, None, None, ())
        return INFEASIBLE
    for warning in decision.warnings:
        complain(f"warning: {warning}", 0)
    return complain(infeasible(decision.bound), INFEASIBLE)


def _json(stream: AnswerStream) -> int:
    """Print the whole answer, or the error, as one object. Return the exit code."""
    from scope_edge.errors import BrokenAnswerError, RefusedError, UnansweredError

    try:
        for _ in stream:
            pass
    except BrokenAnswerError as error:
        _out(stream.decision, error.text, error.run, None, (str(error),))
        return error.exit_code
    except (UnansweredError, RefusedError) as error:
        _out(stream.decision, None, error.run, None, (str(error),))
        return error.exit_code
    if stream.answer is not None:
        out_json(stream.answer.as_dict())
    return 0


def _out(decision: Decision, text: str | None, run: Run | None, id: str | None, warnings: tuple[str, ...]) -> None:
    from scope_edge.types import run_body

    ran = None if run is None else run_body(run)
    out_json({"answer": text, "id": id, "run": ran, "warnings": list(warnings), "decision": decision.as_dict()})


def _plain(stream: AnswerStream, *, whole: bool, quiet: bool) -> int:
    """Print pieces as they arrive, or all at the end; the line about the model comes before the first."""
    announced, last = quiet, ""
    pieces: list[str] = []
    try:
        for piece in stream:
            if not announced:
                announced = _announce(stream)
            pieces.append(piece)
            if not whole:
                out_piece(piece)
                last = piece
    finally:
        # The terminal's next line must not be glued to an answer that breaks off or is interrupted.
        if last and not last.endswith("\n"):
            out_line("")
    if not announced:
        _announce(stream)
    if whole:
        out_piece("".join(pieces))
    if (whole or not last) and not "".join(pieces).endswith("\n"):
        out_line("")
    answer = stream.answer
    for warning in () if answer is None else answer.warnings:
        complain(f"warning: {warning}", 0)
    return 0


def _announce(stream: AnswerStream) -> bool:
    """Print on standard error the decision's warnings, the models that did not answer, and the one that does."""
    from scope_edge.cli.render.decision import one_line_of

    decision = stream.decision
    for warning in (*decision.degraded, *decision.warnings):
        complain(f"warning: {warning}", 0)
    for attempt in stream.attempts:
        complain(f"{attempt.model} did not answer: {attempt.error}", 0)
    colored = is_terminal(sys.stderr) and click.get_current_context().color is not False
    click.echo(click.style(one_line(one_line_of(decision, stream.model)), dim=True), err=True, color=colored)
    return True
