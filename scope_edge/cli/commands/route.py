"""`scope-edge route`: choose a model for a text, or for each line of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from scope_edge.cli.format import screen_width
from scope_edge.cli.inputs import local_router, query_options, read_query, several
from scope_edge.cli.options import json_option
from scope_edge.cli.output import out, out_json, out_line
from scope_edge.cli.preferences import preference_options
from scope_edge.cli.run import complain
from scope_edge.errors import UsageError

if TYPE_CHECKING:
    from scope_edge.settings.config import Settings
    from scope_edge.types import Decision, ModelCard

INFEASIBLE, SOME_FAILED = 3, 4

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
  0 ok   1 unexpected error   2 usage   3 no model keeps to the limits   4 some lines failed
  5 missing or damaged file   130 interrupted   141 the output was closed
"""


@click.command("route", epilog=_EPILOG)
@query_options("route")
@click.option(
    "--jsonl", metavar="F", type=click.Path(), help="Route every line of a file of JSON objects; - = standard input."
)
@preference_options
@click.option("--explain", is_flag=True, help="Also show how the choice was made, and the nearest anchors.")
@json_option
@click.option("--quiet", "-q", is_flag=True, help="Print only the model's id.")
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
    """Choose a model for a query, before any model runs.

    The text is one argument, or - for standard input. Options win over the environment variables SCOPE_EDGE_*, which win
    over a profile and the rest of the settings file; `scope-edge doctor` shows the settings in force.
    """
    if len(texts) + (file is not None) + (jsonl is not None) > 1:
        raise several(file, jsonl)
    if quiet and (as_json or explain):
        raise UsageError(f"--quiet prints only the model's id; leave it or {'--json' if as_json else '--explain'} out")
    from scope_edge.settings.config import load_settings

    settings = load_settings(overrides)
    if jsonl is not None:
        from scope_edge.cli.commands.route_jsonl import route_lines

        context.exit(route_lines(jsonl, settings, exclude, system=system, quiet=quiet))
    text = read_query(texts, file, system, "route")
    decision, pool = _decide(text, settings, {"system": system, "exclude": exclude})
    from scope_edge.cli.render.decision import infeasible, shown

    if quiet and decision.choice is None:
        complain(infeasible(decision.bound), INFEASIBLE)
    elif quiet:
        out_line(decision.choice or "")
    elif as_json:
        out_json(decision.as_dict())
    else:
        from scope_edge.execution.fallback import reference_models
        from scope_edge.settings.config import DEFAULT_POOL

        reference = settings.pool == DEFAULT_POOL and len(reference_models(pool)) == len(pool)
        width, value = screen_width(), settings.value_of_time
        out(shown(decision, explain=explain, width=width, value_of_time=value, reference=reference))
    context.exit(0 if decision.feasible or decision.over_budget else INFEASIBLE)


def _decide(text: str, settings: Settings, options: dict[str, Any]) -> tuple[Decision, tuple[ModelCard, ...]]:
    """Return the decision, by the user's server if one runs, and the pool's cards."""
    from scope_edge.cli import server_client

    decision = server_client.route(settings, text, options)
    if decision is not None:
        from scope_edge.factory import open_catalog

        return decision, open_catalog(settings).pool()
    with local_router(settings) as router:
        return router.route(text, **options), router.pool
