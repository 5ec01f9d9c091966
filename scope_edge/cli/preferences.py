"""The options of `route` and `ask` that limit a decision and say what it should weigh."""

from __future__ import annotations

import click

from scope_edge.cli.options import Command, complete_model, pool_option, profile_option, setting_option

_OPTIONS = (
    setting_option("alpha", "A", "0 = cheapest, 1 = most accurate.  [default: 0.5]"),
    setting_option(
        "max_tokens",
        "N",
        "Limit on the tokens of prompt and answer together. (OpenAI's max_tokens, of the answer alone, is `ask"
        " --max-answer-tokens`.)",
    ),
    setting_option("max_usd", "USD", "Limit on cost in US dollars. Rules out models whose price is unknown."),
    setting_option(
        "max_seconds", "S", "Limit on time, including loading the model. Rules out models whose speed is unknown."
    ),
    click.option("--local-only/--no-local-only", default=None, help="Only models on the device."),
    pool_option(),
    profile_option("Use a profile of your settings file; `scope-edge tune --list` shows the profiles."),
    click.option(
        "--exclude",
        metavar="MODEL",
        multiple=True,
        callback=lambda context, parameter, value: model_ids(value),
        shell_complete=complete_model,
        help="Never choose this model. May be repeated, or list several, joined by commas.",
    ),
    setting_option(
        "fallback",
        "[none|cheapest]",
        "If no model keeps to the limits: choose none, or the cheapest.  [default: none]",
        choices=("none", "cheapest"),
    ),
    setting_option("top_k", "K", "Number of neighbors to show.  [default: 10]"),
    setting_option(
        "policy",
        "[scope-edge|paper]",
        "How to weigh accuracy against cost.  [default: scope-edge]",
        choices=("scope-edge", "paper"),
    ),
    setting_option(
        "estimator",
        "[auto|prior|gguf]",
        "How to estimate: from fingerprints alone (prior), with an installed GGUF as well (gguf), or with the GGUF if it is"
        " fast enough (auto).  [default: auto]",
        choices=("auto", "prior", "gguf"),
    ),
    setting_option(
        "estimate_seconds",
        "S",
        "Limit on the GGUF's time for a query, without loading. With auto, the default is 2.",
    ),
    setting_option("estimate_tokens", "N", "Limit on the tokens that the GGUF reads and writes for a query."),
    click.option(
        "--server/--no-server",
        "use_server",
        default=None,
        help="Send the query to your `scope-edge serve` if one runs under the same settings (the default), or never.",
    ),
    setting_option(
        "index", "[auto|exact|hnsw]", "How to search neighbors.  [default: auto]", choices=("auto", "exact", "hnsw")
    ),
)


def preference_options(command: Command) -> Command:
    """Add these options to a command, with the settings' names as keyword arguments."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def model_ids(given: tuple[str, ...]) -> tuple[str, ...]:
    """Return the ids that were given one by one or joined by commas."""
    return tuple(piece.strip() for one in given for piece in one.split(",") if piece.strip())
