"""`scope-edge tune`: show what each alpha buys in a pool, and find the alpha for a goal."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scope_edge.cli import format
from scope_edge.cli.options import (
    complete_model,
    json_option,
    number,
    pool_option,
    profile_option,
    read_alphas,
    setting_option,
)
from scope_edge.cli.output import ProgressLine, one_line, out, out_json
from scope_edge.cli.run import complain
from scope_edge.errors import UsageError
from scope_edge.factory import open_catalog
from scope_edge.settings.config import load_settings
from scope_edge.settings.validation import check_amount

if TYPE_CHECKING:
    from collections.abc import Callable

    from scope_edge.estimation.difficulty import DifficultyMap
    from scope_edge.settings.config import Settings
    from scope_edge.tuning.goals import SolvedGoal, TuningGoal
    from scope_edge.tuning.outlook import PoolForecast
    from scope_edge.tuning.traffic import Traffic

UNMET = 3

_EPILOG = """\b
Examples:
  scope-edge tune
  scope-edge tune --max-usd-per-1k 0.10
  scope-edge tune --match llama-3.1-405b-instruct --within 1
  scope-edge tune --pool llama-3.1-8b-instruct,gpt-4o --queries mine.txt --max-usd-per-1k 1 --save work
  scope-edge route --profile work "Why is the sky blue?"

\b
Exit codes:
  0 ok   1 unexpected error   2 usage   3 no alpha reaches the goal   5 missing or damaged file
"""


@click.command("tune", epilog=_EPILOG)
@click.option("--max-usd-per-1k", metavar="USD", help="Goal: at most this many US dollars per 1,000 queries.")
@click.option(
    "--max-tokens-per-query", metavar="N", help="Goal: at most this many prompt and completion tokens per query."
)
@click.option(
    "--match",
    metavar="MODEL",
    shell_complete=complete_model,
    help="Goal: right as often as this model, at the least cost. The model need not be in the pool.",
)
@click.option(
    "--within", metavar="POINTS", help="With --match: may be right less often, by this many percent.  [default: 0]"
)
@click.option(
    "--queries",
    metavar="FILE",
    type=click.Path(),
    help="Use your queries, one a line or as JSON lines, instead of the bank's. They need no labels. - = standard input.",
)
@pool_option("A pool's name, or model ids joined by commas.  [default: the active one]")
@click.option(
    "--alphas", metavar="FROM:TO:STEP", help="Alphas to show, or numbers joined by commas.  [default: 0:1:0.05]"
)
@setting_option("max_usd", "USD", "Limit for each query, as in route.")
@setting_option("max_tokens", "N", "Limit for each query, as in route.")
@setting_option("max_seconds", "S", "Limit for each query, as in route.")
@click.option("--local-only/--no-local-only", default=None, help="Only models on the device.")
@click.option("--save", metavar="NAME", help="Save alpha, pool and limits as a profile, for `route --profile NAME`.")
@profile_option("Start from this profile.")
@click.option("--list", "listing", is_flag=True, help="List the profiles, and nothing else.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    max_usd_per_1k: str | None,
    max_tokens_per_query: str | None,
    match: str | None,
    within: str | None,
    queries: str | None,
    alphas: str | None,
    save: str | None,
    listing: bool,
    as_json: bool,
    **overrides: Any,
) -> None:
    """Show what each alpha buys in a pool, and find the alpha that reaches a goal.

    All numbers are forecasts from fingerprints: no model runs, and no labels are used. Without a goal, --save saves the
    alpha in force.
    """
    settings = load_settings(overrides)
    if listing:
        _list(settings, as_json)
        return
    shown = read_alphas(alphas if alphas is not None else "0:1:0.05")
    goal = _goal(max_usd_per_1k, max_tokens_per_query, match, within)
    if save is not None:
        from scope_edge.catalog.edit import check_profile_name

        check_profile_name(save)
    outlook = _forecast(settings, shown, goal, queries)
    solved = None
    if goal is not None:
        from scope_edge.tuning.goals import solve

        solved = solve(outlook, goal)
    saved = _save(save, settings, overrides, solved) if save is not None else None
    from scope_edge.cli.render.tuning import body, lines

    if as_json:
        out_json(body(outlook, shown, settings, solved, saved))
    else:
        out(format.folded(lines(outlook, shown, settings, (goal, solved), saved)))
    if solved is not None and solved.found is None:
        if save is not None:
            complain("no alpha reaches the goal, so no profile was written", UNMET)
        context.exit(UNMET)


def _goal(usd: str | None, tokens: str | None, match: str | None, within: str | None) -> TuningGoal | None:
    """Return the goal; None = none is given. Raises UsageError."""
    from scope_edge.tuning.goals import TuningGoal

    if within is not None and match is None:
        raise UsageError("--within needs --match MODEL; it says how far below that model")
    points = 0.0 if within is None else check_amount("--within", number(within))
    if usd is tokens is match is None:
        return None
    return TuningGoal(
        usd=None if usd is None else check_amount("--max-usd-per-1k", number(usd)) / 1000,
        tokens=None if tokens is None else check_amount("--max-tokens-per-query", number(tokens)),
        match=match,
        within=points / 100,
    )


def _forecast(
    settings: Settings, shown: tuple[float, ...], goal: TuningGoal | None, queries: str | None
) -> PoolForecast:
    """Forecast at the alphas to show, at the one in force, and at those where a goal may end."""
    from scope_edge.tuning.outlook import GRID, forecast_pool

    forecast = partial(
        forecast_pool,
        open_catalog(settings),
        settings.preference(),
        sorted({*shown, settings.alpha, *(() if goal is None else GRID)}),
        coverage=settings.coverage,
        value_of_time=settings.value_of_time,
        match=None if goal is None else goal.match,
    )
    if queries is None:
        return forecast()
    with ProgressLine() as progress:
        return forecast(traffic=_traffic_reader(queries, settings, progress))


def _traffic_reader(path: str, settings: Settings, progress: ProgressLine) -> Callable[[DifficultyMap], Traffic]:
    def read(fitted: DifficultyMap) -> Traffic:
        from scope_edge.cli.lines import read_queries
        from scope_edge.tuning.traffic import own_traffic

        return own_traffic(read_queries(path), fitted, progress, provider=settings.provider, threads=settings.threads)

    return read


def _save(
    name: str, settings: Settings, overrides: dict[str, Any], solved: SolvedGoal | None
) -> tuple[str, Path, dict[str, Any]] | None:
    """Write the profile and return its name, file and values; None if no alpha reaches the goal."""
    from scope_edge.catalog.edit import save_profile

    if solved is not None and solved.found is None:
        return None
    chosen = settings.alpha if solved is None or solved.found is None else solved.found.alpha
    # The values of the profile it starts from are kept, unless an option overrides them.
    base = dict(settings.profiles.get(settings.profile, {})) if settings.profile is not None else {}
    given = {key: value for key, value in overrides.items() if value is not None and key != "profile"}
    values = {**base, "pool": settings.pool, **given, "alpha": chosen}
    return name, save_profile(name, values), values


def _list(settings: Settings, as_json: bool) -> None:
    if as_json:
        profiles = [
            {"name": name, "active": name == settings.profile, **one} for name, one in settings.profiles.items()
        ]
        out_json({"active": settings.profile, "file": str(settings.file), "profiles": profiles})
        return
    if not settings.profiles:
        out(f"no profiles in {settings.file}; `scope-edge tune --save NAME` writes one")
    for name, one in settings.profiles.items():
        active = "  (active)" if name == settings.profile else ""
        shown = {key: str(value).lower() if isinstance(value, bool) else value for key, value in one.items()}
        values = ", ".join(f"{key} {value}" for key, value in shown.items()) or "sets nothing"
        out(click.style(one_line(name), bold=True) + f"{active}  {values}")
