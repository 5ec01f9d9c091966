"""The options that say what a decision may cost and what it should weigh: those of `route` and `ask`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from scope_edge.cli.options import Setting, complete_model, complete_profile, complete_selection

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--alpha", metavar="A", type=Setting("alpha"), help="0 = cheapest, 1 = most accurate.  [default: 0.5]"
    ),
    click.option(
        "--max-tokens", metavar="N", type=Setting("max_tokens"), help="Limit on prompt and completion tokens together."
    ),
    click.option(
        "--max-usd",
        metavar="USD",
        type=Setting("max_usd"),
        help="Limit on cost in US dollars. A model of unknown price never keeps to it.",
    ),
    click.option(
        "--max-seconds",
        metavar="S",
        type=Setting("max_seconds"),
        help="Limit on time, loading included. A model of unknown speed never keeps to it.",
    ),
    click.option("--local-only/--no-local-only", default=None, help="Only models on the device."),
    click.option(
        "--pool",
        metavar="POOL",
        type=Setting("pool"),
        shell_complete=complete_selection,
        help="A pool's name, or model ids joined by commas.  [default: default]",
    ),
    click.option(
        "--profile",
        metavar="NAME",
        type=Setting("profile"),
        shell_complete=complete_profile,
        help="Use a profile of your settings file; `scope-edge tune --list` shows them.",
    ),
    click.option(
        "--exclude",
        "exclude",
        metavar="MODEL",
        multiple=True,
        callback=lambda context, parameter, value: model_ids(value),
        shell_complete=complete_model,
        help="Never this model; may be repeated, or list several with commas.",
    ),
    click.option(
        "--fallback",
        metavar="[none|cheapest]",
        type=Setting("fallback", ("none", "cheapest")),
        help="When nothing keeps to the limits: no choice, or the cheapest.  [default: none]",
    ),
    click.option("--top-k", metavar="K", type=Setting("top_k"), help="Neighbors shown.  [default: 10]"),
    click.option(
        "--policy",
        metavar="[scope-edge|paper]",
        type=Setting("policy", ("scope-edge", "paper")),
        help="How accuracy is weighed against cost.  [default: scope-edge]",
    ),
    click.option(
        "--estimator",
        metavar="[auto|prior|gguf]",
        type=Setting("estimator", ("auto", "prior", "gguf")),
        help="What estimates: fingerprints alone (prior), an installed GGUF as well, or that when it is fast enough (auto)."
        "  [default: auto]",
    ),
    click.option(
        "--estimate-seconds",
        metavar="S",
        type=Setting("estimate_seconds"),
        help="What the GGUF may take for a query, loading aside. With auto 2, else no limit, unless given.",
    ),
    click.option(
        "--estimate-tokens",
        metavar="N",
        type=Setting("estimate_tokens"),
        help="Limit on the tokens it reads and writes for a query.",
    ),
    click.option(
        "--server/--no-server",
        "use_server",
        default=None,
        help="Send the query to a `scope-edge serve` of yours that runs under the same settings (the default), or never do.",
    ),
    click.option(
        "--index",
        metavar="[auto|exact|hnsw]",
        type=Setting("index", ("auto", "exact", "hnsw")),
        help="How neighbors are searched.  [default: auto]",
    ),
)


def preference_options(command: Command) -> Command:
    """Give a command these options; those that are settings come as its keyword arguments of the settings' names."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def model_ids(given: tuple[str, ...]) -> tuple[str, ...]:
    """Ids given one by one or joined by commas."""
    return tuple(piece.strip() for one in given for piece in one.split(",") if piece.strip())
