"""`scope-edge route`: one text, or a file of them, to a choice of model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from scope_edge.cli.options import Setting, complete_model, complete_profile, complete_selection
from scope_edge.cli.output import out, out_json, out_line
from scope_edge.errors import UsageError

if TYPE_CHECKING:
    from scope_edge.config import Settings
    from scope_edge.records import Decision
    from scope_edge.router import Noted, Router

INFEASIBLE, SOME_FAILED = 3, 4
_NOTHING = 'nothing to route; give a text, as in `scope-edge route "Why is the sky blue?"`, or - to read it from standard input'

_EPILOG = """\b
Examples:
  scope-edge route "What is the capital of France?"
  scope-edge route --alpha 0.9 --max-usd 0.002 --explain "Prove that 2 has no rational root."
  scope-edge route --local-only --quiet "Translate to German: good morning"
  echo "Why is the sky blue?" | scope-edge route --json -
  scope-edge route --pool gemma-2-2b-it,llama-3.1-70b-instruct --file question.txt
  scope-edge route --jsonl queries.jsonl > decisions.jsonl

\b
Exit codes:
  0 ok   1 unexpected   2 usage   3 nothing keeps to the limits   4 some lines failed
  5 missing or damaged asset   130 interrupted   141 nobody reads the output any more
"""


@click.command("route", epilog=_EPILOG)
@click.argument("texts", metavar="[TEXT | -]", nargs=-1)
@click.option("--file", "file", metavar="F", type=click.Path(), help="Route the text of a file.")
@click.option(
    "--jsonl",
    "jsonl",
    metavar="F",
    type=click.Path(),
    help="Route every line of a file of JSON objects; - is standard input.",
)
@click.option(
    "--system", metavar="TEXT", help="A system prompt that goes along; it costs tokens but is not what is asked."
)
@click.option("--alpha", metavar="A", type=Setting("alpha"), help="0 = cheapest, 1 = most accurate.  [default: 0.5]")
@click.option(
    "--max-tokens", metavar="N", type=Setting("max_tokens"), help="Limit on prompt and completion tokens together."
)
@click.option(
    "--max-usd",
    metavar="USD",
    type=Setting("max_usd"),
    help="Limit on cost in US dollars. A model of unknown price never keeps to it.",
)
@click.option(
    "--max-seconds",
    metavar="S",
    type=Setting("max_seconds"),
    help="Limit on time, loading included. A model of unknown speed never keeps to it.",
)
@click.option("--local-only/--no-local-only", default=None, help="Only models on the device.")
@click.option(
    "--pool",
    metavar="POOL",
    type=Setting("pool"),
    shell_complete=complete_selection,
    help="A pool's name, or model ids joined by commas.  [default: default]",
)
@click.option(
    "--profile",
    metavar="NAME",
    type=Setting("profile"),
    shell_complete=complete_profile,
    help="Use a profile of your settings file; `scope-edge tune --list` shows them.",
)
@click.option(
    "--exclude",
    "exclude",
    metavar="MODEL",
    multiple=True,
    shell_complete=complete_model,
    help="Never this model; may be repeated, or list several with commas.",
)
@click.option(
    "--fallback",
    metavar="[none|cheapest]",
    type=Setting("fallback", ("none", "cheapest")),
    help="When nothing keeps to the limits: no choice, or the cheapest.  [default: none]",
)
@click.option("--top-k", metavar="K", type=Setting("top_k"), help="Neighbors shown.  [default: 10]")
@click.option(
    "--policy",
    metavar="[scope-edge|paper]",
    type=Setting("policy", ("scope-edge", "paper")),
    help="How accuracy is weighed against cost.  [default: scope-edge]",
)
@click.option(
    "--estimator",
    metavar="[auto|prior|gguf]",
    type=Setting("estimator", ("auto", "prior", "gguf")),
    help="What estimates: fingerprints alone (prior), an installed GGUF as well, or that when it is fast enough (auto)."
    "  [default: auto]",
)
@click.option(
    "--estimate-seconds",
    metavar="S",
    type=Setting("estimate_seconds"),
    help="What the GGUF may take for a query, loading aside. With auto 2, else no limit, unless given.",
)
@click.option(
    "--estimate-tokens",
    metavar="N",
    type=Setting("estimate_tokens"),
    help="Limit on the tokens it reads and writes for a query.",
)
@click.option(
    "--index",
    metavar="[auto|exact|hnsw]",
    type=Setting("index", ("auto", "exact", "hnsw")),
    help="How neighbors are searched.  [default: auto]",
)
@click.option("--explain", is_flag=True, help="Also show how the choice came about and the nearest anchors.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/json.md).")
@click.option("--quiet", "-q", is_flag=True, help="Print the model id alone.")
@click.pass_context
def command(
    context: click.Context,
    /,
    texts: tuple[str, ...],
    file: str | None,
    jsonl: str | None,
    system: str | None,
    exclude: tuple[str, ...],
    explain: bool,
    as_json: bool,
    quiet: bool,
    **overrides: Any,
) -> None:
    """Choose a model for a query, before any of them runs.

    The text is one argument, or - for standard input. Options win over environment variables SCOPE_EDGE_*, which win
    over a profile and the rest of the settings file; `scope-edge doctor` shows what is in force.
    """
    if len(texts) + (file is not None) + (jsonl is not None) > 1:
        _refuse_several(texts, file, jsonl)
    if quiet and (as_json or explain):
        raise UsageError(f"--quiet prints the model id alone; leave it or {'--json' if as_json else '--explain'} out")
    from scope_edge.config import load_settings

    settings = load_settings(overrides)
    if jsonl is not None:
        from scope_edge.cli.lines import route_lines

        context.exit(route_lines(jsonl, settings, _ids(exclude), system=system, quiet=quiet))
    text = _text(texts, file)
    decision = _decide(text, system, settings, _ids(exclude))
    if quiet:
        _print_id(decision)
    elif as_json:
        out_json(decision.as_dict())
    else:
        _print(decision, settings, explain)
    context.exit(0 if decision.feasible or decision.over_budget else INFEASIBLE)


def check_known(models: tuple[str, ...], router: Router, settings: Settings) -> None:
    """Raises UsageError naming the nearest ids for one that the catalog does not know."""
    strangers = set(models) - {card.id for card in router.pool}
    if strangers:
        from scope_edge.catalog import load_catalog

        catalog = load_catalog(settings)
        for model in sorted(strangers):
            catalog.card(model)


@contextlib.contextmanager
def journal_of(settings: Settings) -> Iterator[Noted | None]:
    """What is to be told of decisions: the journal, where the user wants those recorded that nobody runs; else None.

    That it could not be written is said at the end, and changes nothing else.
    """
    if settings.journal != "all":
        yield None
        return
    from scope_edge.cli.run import complain
    from scope_edge.journal import Journal

    with Journal.open(settings) as journal:
        yield journal.noted
    if journal.problem is not None:
        complain(journal.problem, 0)


def _decide(text: str, system: str | None, settings: Settings, exclude: tuple[str, ...]) -> Decision:
    from scope_edge.records import Query
    from scope_edge.router import check_query

    query = Query(text, system=system)
    check_query(query)
    from scope_edge.assemble import load_router

    with journal_of(settings) as noted:
        router = load_router(settings, noted)
        check_known(exclude, router, settings)
        return router.route(query, settings.preference(exclude=exclude), top_k=settings.top_k)


def _text(texts: tuple[str, ...], file: str | None) -> str:
    from scope_edge.cli.inputs import read_text
    from scope_edge.router import MAX_QUERY_CHARACTERS

    if file is None and not texts:
        raise UsageError(_NOTHING)
    if file is not None or texts == ("-",):
        return read_text(file if file is not None else "-", MAX_QUERY_CHARACTERS)
    try:
        texts[0].encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"the text: not UTF-8 (at character {error.start}); convert it, or put it in a file"
        ) from error
    return texts[0]


def _refuse_several(texts: tuple[str, ...], file: str | None, jsonl: str | None) -> None:
    if file is None and jsonl is None:
        raise UsageError('more than one text; put the text in quotes, as in `scope-edge route "Why is the sky blue?"`')
    raise UsageError("give one of: a text, - for standard input, --file, --jsonl")


def _ids(exclude: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(piece.strip() for one in exclude for piece in one.split(",") if piece.strip())


def _print_id(decision: Decision) -> None:
    if decision.choice is not None:
        out_line(decision.choice)
        return
    from scope_edge.cli.decision import infeasible
    from scope_edge.cli.run import complain

    complain(infeasible(decision.bound), INFEASIBLE)


def _print(decision: Decision, settings: Settings, explain: bool) -> None:
    from scope_edge.cli.decision import shown
    from scope_edge.cli.words import screen_width

    out(
        shown(
            decision,
            explain=explain,
            width=screen_width(),
            value_of_time=settings.value_of_time,
        )
    )
