"""`scope-edge tune`: what alpha buys in a pool, and the alpha that keeps to a wish."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scope_edge.cli import format
from scope_edge.cli.options import Setting, complete_model, complete_profile, complete_selection
from scope_edge.cli.output import ProgressLine, one_line, out, out_json
from scope_edge.cli.run import complain
from scope_edge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from scope_edge.estimation.difficulty import DifficultyMap
    from scope_edge.settings.config import Settings
    from scope_edge.tuning.goals import SolvedGoal, TuningGoal
    from scope_edge.tuning.outlook import PoolForecast
    from scope_edge.tuning.traffic import Traffic

CANNOT = 3

_EPILOG = """\b
Examples:
  scope-edge tune
  scope-edge tune --max-usd-per-1k 0.10
  scope-edge tune --match llama-3.1-405b-instruct --within 1
  scope-edge tune --pool llama-3.1-8b-instruct,gpt-4o --queries mine.txt --max-usd-per-1k 1 --save work
  scope-edge route --profile work "Why is the sky blue?"

\b
Exit codes:
  0 ok   1 unexpected   2 usage   3 no alpha keeps to the wish   5 missing or damaged asset
"""


@click.command("tune", epilog=_EPILOG)
@click.option("--max-usd-per-1k", metavar="USD", help="Wish: at most so many US dollars per 1,000 queries.")
@click.option(
    "--max-tokens-per-query", metavar="N", help="Wish: at most so many tokens a query, prompt and completion."
)
@click.option(
    "--match",
    metavar="MODEL",
    shell_complete=complete_model,
    help="Wish: right as often as this model, at the least cost. It need not be in the pool.",
)
@click.option("--within", metavar="POINTS", help="With --match: may be right so many percent less often.  [default: 0]")
@click.option(
    "--queries",
    metavar="FILE",
    type=click.Path(),
    help="Your own queries, one a line or as JSON lines, instead of the bank's; no labels. - is standard input.",
)
@click.option(
    "--pool",
    metavar="POOL",
    type=Setting("pool"),
    shell_complete=complete_selection,
    help="A pool's name, or model ids joined by commas.  [default: the active one]",
)
@click.option("--alphas", metavar="FROM:TO:STEP", help="Show these, or numbers joined by commas.  [default: 0:1:0.05]")
@click.option("--max-usd", metavar="USD", type=Setting("max_usd"), help="Limit of each query, as in route.")
@click.option("--max-tokens", metavar="N", type=Setting("max_tokens"), help="Limit of each query, as in route.")
@click.option("--max-seconds", metavar="S", type=Setting("max_seconds"), help="Limit of each query, as in route.")
@click.option("--local-only/--no-local-only", default=None, help="Only models on the device.")
@click.option("--save", metavar="NAME", help="Keep alpha, pool and limits as a profile, for `route --profile NAME`.")
@click.option(
    "--profile",
    metavar="NAME",
    type=Setting("profile"),
    shell_complete=complete_profile,
    help="Start from what this profile says.",
)
@click.option("--list", "listing", is_flag=True, help="Show the profiles there are, and nothing else.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/json.md).")
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
    """Show what alpha buys in a pool, and find the alpha that keeps to a wish.

    Everything is expected from fingerprints alone: no model runs and no label is looked at. Without a wish, --save keeps
    the alpha in force.
    """
    from scope_edge.cli.options import read_alphas
    from scope_edge.settings.config import load_settings

    settings = load_settings(overrides)
    if listing:
        _list(settings, as_json)
        return
    shown = read_alphas(alphas if alphas is not None else "0:1:0.05")
    wish = _wish(max_usd_per_1k, max_tokens_per_query, match, within)
    if save is not None:
        from scope_edge.catalog.edit import check_profile_name

        check_profile_name(save)
    outlook = _outlook(settings, shown, wish, queries)
    granted = None
    if wish is not None:
        from scope_edge.tuning.goals import solve

        granted = solve(outlook, wish)
    saved = _save(save, settings, overrides, granted) if save is not None else None
    if as_json:
        from scope_edge.cli.render.tuning import body

        out_json(body(outlook, shown, settings, granted, saved))
    else:
        from scope_edge.cli.render.tuning import lines

        out(format.folded(lines(outlook, shown, settings, (wish, granted), saved)))
    if granted is not None and granted.found is None:
        if save is not None:
            complain("no alpha keeps to the wish, so no profile was written", CANNOT)
        context.exit(CANNOT)


def _wish(usd: str | None, tokens: str | None, match: str | None, within: str | None) -> TuningGoal | None:
    """What was wished for; None where nothing was. Raises UsageError."""
    from scope_edge.cli.options import number
    from scope_edge.settings.validation import check_amount
    from scope_edge.tuning.goals import TuningGoal

    if within is not None and match is None:
        raise UsageError("--within says how far below a model; name it with --match MODEL")
    points = 0.0 if within is None else check_amount("--within", number(within))
    if usd is tokens is match is None:
        return None
    return TuningGoal(
        usd=None if usd is None else check_amount("--max-usd-per-1k", number(usd)) / 1000,
        tokens=None if tokens is None else check_amount("--max-tokens-per-query", number(tokens)),
        match=match,
        within=points / 100,
    )


def _outlook(
    settings: Settings, shown: tuple[float, ...], wish: TuningGoal | None, queries: str | None
) -> PoolForecast:
    """What to expect at the alphas to show, at the one in force, and at those a wish may end at."""
    from scope_edge.factory import open_catalog
    from scope_edge.tuning.outlook import GRID, forecast_pool

    alphas = sorted({*shown, settings.alpha, *(GRID if wish is not None else ())})
    match = None if wish is None else wish.match
    look = partial(
        forecast_pool,
        open_catalog(settings),
        settings.preference(),
        alphas,
        coverage=settings.coverage,
        value_of_time=settings.value_of_time,
        match=match,
    )
    if queries is None:
        return look()
    with ProgressLine() as progress:
        return look(traffic=_reader(queries, settings, progress))


def _reader(path: str, settings: Settings, progress: ProgressLine) -> Callable[[DifficultyMap], Traffic]:
    def read(fitted: DifficultyMap) -> Traffic:
        from scope_edge.cli.inputs import read_queries
        from scope_edge.tuning.traffic import own_traffic

        return own_traffic(
            read_queries(path),
            fitted,
            progress,
            provider=settings.provider,
            threads=settings.threads,
        )

    return read


def _save(
    name: str, settings: Settings, overrides: dict[str, Any], granted: SolvedGoal | None
) -> tuple[str, Path, dict[str, Any]] | None:
    """The profile that was written: its name, file and values; None where the wish was not granted."""
    from scope_edge.catalog.edit import save_profile

    if granted is not None and granted.found is None:
        return None
    chosen = settings.alpha if granted is None or granted.found is None else granted.found.alpha
    # What the profile it starts from says is kept, unless it was said otherwise now.
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
        values = ", ".join(f"{key} {_shown(value)}" for key, value in one.items()) or "sets nothing"
        out(click.style(one_line(name), bold=True) + f"{active}  {values}")


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
