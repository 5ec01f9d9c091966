"""`scope-edge models`: list, show, test, compare and remove models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from scope_edge.catalog.cards import is_retired
from scope_edge.cli import format
from scope_edge.cli.commands.anchors import print_removed
from scope_edge.cli.commands.models_add import add, called, price, prices
from scope_edge.cli.format import Column
from scope_edge.cli.inputs import confirmed
from scope_edge.cli.options import amount_option, complete_model, json_array_option, json_option, yes_option
from scope_edge.cli.output import ProgressLine, one_line, out, out_json, print_facts
from scope_edge.cli.run import complain
from scope_edge.errors import AssetError
from scope_edge.factory import open_catalog
from scope_edge.settings.config import load_settings

if TYPE_CHECKING:
    from scope_edge.catalog.cards import Catalog
    from scope_edge.management.compare import FieldDifference
    from scope_edge.management.trial import Trial
    from scope_edge.types import ModelCard

_COMPARE_EPILOG = """\b
Examples:
  scope-edge models compare our-finetune gemma-2-2b-it
  scope-edge models compare our-finetune gemma-2-2b-it --json

\b
Exit codes:
  0 ok   2 usage, or a model without a fingerprint   5 a missing or damaged file
"""


@click.command("compare", epilog=_COMPARE_EPILOG)
@click.argument("a", shell_complete=complete_model)
@click.argument("b", shell_complete=complete_model)
@json_option
def compare_models(a: str, b: str, as_json: bool) -> None:
    """Show where one model is better than another.

    The tables have a row for each category. The first compares the models on the anchors that both were measured on, the
    second shows what to expect on a fair sample of the bundled sets' questions. A 95% interval is about one row: of 20 rows,
    one may be wrong by chance.
    """
    from scope_edge.management.compare import compare

    found = compare(open_catalog(load_settings()), a, b)
    if as_json:
        out_json(asdict(found))
        return
    if found.shared:
        _print_differences(f"measured on the same anchors, correct %, {a} - {b}", a, b, found.shared)
        out("")
    _print_differences(f"expected on a fair sample of each set's questions, correct %, {a} - {b}", a, b, found.expected)
    for note in found.notes:
        complain(note, 0)


def _print_differences(title: str, a: str, b: str, rows: Sequence[FieldDifference]) -> None:
    out(click.style(one_line(title), bold=True))
    titles = ("anchors", ">n", f">{format.clipped(a, 24)}", f">{format.clipped(b, 24)}", ">difference", ">95% interval")
    cells = [
        (
            format.clipped(one_line(one.anchor_set) if one.category is None else f"  {one_line(one.category)}", 40),
            str(one.anchors),
            f"{100 * one.a:.1f}",
            f"{100 * one.b:.1f}",
            f"{100 * one.difference:+.1f}",
            f"{100 * one.low:+.1f} to {100 * one.high:+.1f}",
            one.better or "not shown",
        )
        for one in rows
    ]
    head, *lines = format.grid((*titles, "better"), cells)
    out(click.style(head, dim=True))
    for row, line in zip(rows, lines, strict=True):
        out(click.style(line, bold=True) if row.category is None else line)


_REMOVE_EPILOG = """\b
Examples:
  scope-edge models remove our-finetune
  scope-edge models remove our-finetune --fingerprints --yes

\b
Exit codes:
  0 ok   2 usage, or a bundled card   5 a file cannot be removed
"""


@click.command("remove", epilog=_REMOVE_EPILOG)
@click.argument("model", shell_complete=complete_model)
@click.option("--fingerprints", is_flag=True, help="Delete its fingerprints and answers as well.")
@yes_option
def remove_model(model: str, fingerprints: bool, yes: bool) -> None:
    """Remove one of your cards, and the model from your pools.

    The model's fingerprints stay unless --fingerprints is given: if you add it again under the same id, it need not be
    measured again. The GGUF itself is never deleted.
    """
    from scope_edge.catalog.edit import remove_card
    from scope_edge.management.remove import forget, journals_of, own_sets_of

    what = f"the card of {model}" + (" and its fingerprints" if fingerprints else "")
    if model in load_settings().models and not confirmed(f"Remove {what}", yes):
        out(f"{model} was not removed")
        return
    removed = remove_card(model)
    out(f"the card of {model} was removed" + ("; the bundled card is used again" if removed.bundled else ""))
    if removed.pools:
        out(f"removed from pool {', '.join(removed.pools)}")
    sets = own_sets_of(model)
    if fingerprints and (sets or journals_of(model)):
        print_removed(forget(model, answers=True))
    elif sets:
        out(f"its fingerprint on {', '.join(sets)} is kept; `scope-edge anchors forget {model}` deletes it")
    after = open_catalog(load_settings())
    empty = next((name for name in removed.pools if not after.pools.get(name)), None)
    if empty is not None and empty == after.active_pool:
        complain(f"the active pool {empty} is empty now; `scope-edge pool use default` activates the bundled one", 0)


# Characters of an answer to show.
_SHOWN = 200
_TEST_EPILOG = """\b
Examples:
  scope-edge models test our-finetune
  scope-edge models test vendor-model --timeout 20 --json

\b
Exit codes:
  0 the model answers   1 the GGUF's worker failed   2 usage, or no key   5 no answer, or a missing or damaged file
"""


@click.command("test", epilog=_TEST_EPILOG)
@click.argument("model", shell_complete=complete_model)
@amount_option("--timeout", "S", "Limit on the time for the answer, without loading, in seconds.", 60)
@json_option
@click.pass_context
def test_model(context: click.Context, /, model: str, timeout: float, as_json: bool) -> None:
    """Ask a model one short question.

    The model is called as its card says. Prints the answer with its time and tokens, or the problem; the exit code says
    whether the model works.
    """
    from scope_edge.management.trial import try_model

    settings = load_settings()
    card = open_catalog(settings).card(model)
    with ProgressLine() as progress:
        trial = try_model(card, timeout, progress, threads=settings.threads, offline=settings.offline)
    if as_json:
        out_json({name: value for name, value in asdict(trial).items() if name != "exit_code"})
    elif trial.problem is not None:
        complain(f"{model} does not work: {trial.problem}", trial.exit_code)
    else:
        out(f"{click.style(model, bold=True)} answers")
        print_facts(_trial_facts(trial))
    context.exit(trial.exit_code)


def _trial_facts(trial: Trial) -> dict[str, str]:
    tokens = f"{format.count(trial.prompt_tokens)} in, {format.count(trial.completion_tokens)} out"
    if trial.prompt_tokens is None and trial.completion_tokens is None:
        tokens = "not counted by the server"
    loaded = "" if trial.load_seconds is None else f", after {format.seconds(trial.load_seconds)} s of loading"
    text = format.clipped(one_line(trial.text or ""), _SHOWN)
    return {
        "called": trial.how,
        "answer": (text or "empty") + (" (cut off, which does not matter here)" if trial.cut else ""),
        "seconds": format.seconds(trial.seconds) + loaded,
        "tokens": tokens,
    }


_EPILOG = """\b
Examples:
  scope-edge models list
  scope-edge models list --json
  scope-edge models show llama-3.1-70b-instruct
  scope-edge models add ./our-finetune-q4_k_m.gguf
  scope-edge models test our-finetune
  scope-edge models compare our-finetune gemma-2-2b-it
"""


@click.group("models", epilog=_EPILOG)
def command() -> None:
    """Show the models; add, test, compare and remove yours."""


for _command in (add, remove_model, test_model, compare_models):
    command.add_command(_command)


@command.command("list")
@json_array_option
def list_models(as_json: bool) -> None:
    """List all model cards, including yours.

    Prices are US dollars per million prompt and completion tokens; "?" is an unknown price. Retired models can no longer be
    called and are listed for reference.
    """
    catalog, fingerprints = _loaded()
    if as_json:
        out_json([_body(card, catalog, fingerprints) for card in catalog.cards])
        return
    cards, width = catalog.cards, format.screen_width()
    for level in range(4):
        columns = _columns(cards, fingerprints, level)
        if format.table_width(columns) <= width:
            break
    head, *lines = format.table(columns)
    out(click.style(head, dim=True))
    for card, line in zip(cards, lines, strict=True):
        out(click.style(line, dim=True) if is_retired(card) else line)


@command.command("show")
@click.argument("model", shell_complete=complete_model)
@json_option
def show_model(model: str, as_json: bool) -> None:
    """Show a model's card, including the source of its price."""
    catalog, fingerprints = _loaded()
    body = _body(catalog.card(model), catalog, fingerprints)
    if as_json:
        out_json(body)
        return
    out(click.style(body["id"], bold=True))
    print_facts(_facts(catalog.card(model), body))


def _loaded() -> tuple[Catalog, Mapping[str, tuple[str, ...]] | None]:
    """Return the catalog, and the anchor sets each model was measured on; None if those files are damaged."""
    from scope_edge.estimation.fingerprints import fingerprint_names

    catalog = open_catalog(load_settings())
    try:
        return catalog, fingerprint_names()
    except AssetError as error:
        complain(f"{error}; so it is unknown which models have a fingerprint", 0)
        return catalog, None


def _body(card: ModelCard, catalog: Catalog, fingerprints: Mapping[str, tuple[str, ...]] | None) -> dict[str, Any]:
    from scope_edge.providers.llama.loadable import why_not, with_speed

    return {
        **asdict(with_speed(card)),
        "retired": is_retired(card),
        "own": card.id in catalog.own_cards,
        "fingerprints": None if fingerprints is None else list(fingerprints.get(card.id, ())),
        "pools": [name for name, ids in catalog.pools.items() if card.id in ids],
        "cannot_load": None if card.gguf is None else why_not(card),
    }


def _columns(
    cards: tuple[ModelCard, ...], fingerprints: Mapping[str, tuple[str, ...]] | None, level: int
) -> list[Column]:
    """Return the list's columns; each level shows less than the one before."""
    known = fingerprints or {}
    sets = [known.get(card.id, ()) for card in cards]
    named = [", ".join(names) if level < 1 else str(len(names)) for names in sets]
    columns = [
        Column("model", [format.clipped(card.id, 40 if level < 3 else 28) for card in cards]),
        Column("where", [card.where for card in cards]),
        Column("$ in", [price(card.usd_in) for card in cards], right=True),
        Column("$ out", [price(card.usd_out) for card in cards], right=True),
        Column("as of", [card.price_as_of or "" for card in cards]),
        Column("status", [_status(card) for card in cards]),
    ]
    if fingerprints is not None and level < 2:
        columns.append(Column("fingerprints", [name if name != "0" else "" for name in named]))
    return columns


def _status(card: ModelCard) -> str:
    return "retired" if is_retired(card) else f"until {card.retires}" if card.retires else card.status


def _facts(card: ModelCard, body: Mapping[str, Any]) -> dict[str, str]:
    """Return the card's content for people, with "unknown" for missing values."""
    sets = body["fingerprints"]
    return {
        "name": card.name,
        "where": card.where,
        "called": called(card),
        "cannot load": body["cannot_load"] or "",
        "price": prices(card),
        "price as of": card.price_as_of or "",
        "price from": card.price_source or "",
        "token factor": f"{card.token_factor:g} own tokens per cl100k token",
        "supports": ", ".join(card.supports),
        "context": _known(card.context_tokens, "tokens"),
        "parameters": _known(card.parameters_b, "billion"),
        "size": _known(card.size_gb, "GB quantized") if card.where == "device" else "",
        "speed": _known(body["tokens_per_second"], "tokens a second"),
        "prompt speed": _known(body["prompt_tokens_per_second"], "tokens a second"),
        "load time": _known(body["load_seconds"], "seconds") if card.where == "device" else "",
        "status": "retired" if body["retired"] else card.status,
        "retires": card.retires or "",
        "licence": card.licence or "",
        "fingerprints": format.UNKNOWN if sets is None else ", ".join(sets) or "none, so it counts as an average model",
        "pools": ", ".join(body["pools"]),
        "card": "yours" if body["own"] else "bundled",
        "note": card.note,
    }


def _known(value: float | None, unit: str) -> str:
    return "unknown" if value is None else f"{value:,.10g} {unit}"
