"""`scope-edge models`: the model cards."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from scope_edge.cli import format
from scope_edge.cli.commands.imports import print_facts
from scope_edge.cli.commands.models_add import add
from scope_edge.cli.format import Column
from scope_edge.cli.options import complete_model
from scope_edge.cli.output import ProgressLine, one_line, out, out_json
from scope_edge.cli.render.models import called, price, prices
from scope_edge.cli.run import complain
from scope_edge.errors import AssetError, UsageError

if TYPE_CHECKING:
    from scope_edge.catalog.cards import Catalog
    from scope_edge.management.compare import FieldDifference
    from scope_edge.management.remove import RemovalSummary
    from scope_edge.management.trial import Trial
    from scope_edge.types import ModelCard

# `scope-edge models compare`: where one model is better than another.

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
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/json.md).")
def compare_models(a: str, b: str, as_json: bool) -> None:
    """Show where one model is better than another, by category, with how sure that is.

    First on anchors both were measured on, pair by pair. Then what their abilities let expect on a fair sample of the bundled
    sets' questions. Intervals hold in 95 of 100 cases, for one row at a time: of 20 rows one may be off by chance.
    """
    from scope_edge.factory import open_catalog
    from scope_edge.management.compare import compare
    from scope_edge.settings.config import load_settings

    found = compare(open_catalog(load_settings()), a, b)
    if as_json:
        out_json(asdict(found))
        return
    if found.shared:
        _print(f"measured on the same anchors, correct %, {a} - {b}", a, b, found.shared)
        out("")
    _print(f"expected on a fair sample of each set's questions, correct %, {a} - {b}", a, b, found.expected)
    for note in found.notes:
        complain(note, 0)


def _print(title: str, a: str, b: str, rows: Sequence[FieldDifference]) -> None:
    out(click.style(one_line(title), bold=True))
    names = [one.anchor_set if one.category is None else f"  {one.category}" for one in rows]
    columns = [
        Column(
            "anchors",
            [format.clipped(one_line(name) if name[0] != " " else "  " + one_line(name), 40) for name in names],
        ),
        Column("n", [str(one.anchors) for one in rows], right=True),
        Column(format.clipped(a, 24), [f"{100 * one.a:.1f}" for one in rows], right=True),
        Column(format.clipped(b, 24), [f"{100 * one.b:.1f}" for one in rows], right=True),
        Column("difference", [f"{100 * one.difference:+.1f}" for one in rows], right=True),
        Column("95% interval", [f"{100 * one.low:+.1f} to {100 * one.high:+.1f}" for one in rows], right=True),
        Column("better", [one.better or "not shown" for one in rows]),
    ]
    head, *lines = format.table(columns)
    out(click.style(head, dim=True))
    for row, line in zip(rows, lines, strict=True):
        out(click.style(line, bold=True) if row.category is None else line)


# `scope-edge models remove`: a card of the user's taken away, with what hangs on it.

_REMOVE_EPILOG = """\b
Examples:
  scope-edge models remove our-finetune
  scope-edge models remove our-finetune --fingerprints --yes

\b
Exit codes:
  0 ok   2 usage, or a bundled card   5 a file that cannot be removed
"""


@click.command("remove", epilog=_REMOVE_EPILOG)
@click.argument("model", shell_complete=complete_model)
@click.option("--fingerprints", is_flag=True, help="Delete what it was measured on, too, its answers included.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove_model(model: str, fingerprints: bool, yes: bool) -> None:
    """Remove a card of yours, and the model from your pools.

    What the model was measured on stays, unless --fingerprints is given: added again under its id, it need not be asked
    again. The GGUF itself is never touched.
    """
    from scope_edge.catalog.edit import remove_card
    from scope_edge.factory import open_catalog
    from scope_edge.management.remove import forget, journals_of, own_sets_of
    from scope_edge.settings.config import load_settings

    settings = load_settings()
    what = f"the card of {model}" + (" and its fingerprints" if fingerprints else "")
    if model in settings.models and not confirmed(f"Remove {what}", yes):
        out(f"{model} stays")
        return
    removed = remove_card(model)
    out(f"the card of {model} is removed" + ("; the bundled one holds again" if removed.bundled else ""))
    if removed.pools:
        out(f"taken out of pool {', '.join(removed.pools)}")
    sets = own_sets_of(model)
    if fingerprints and (sets or journals_of(model)):
        tell_gone(forget(model, answers=True))
    elif sets:
        out(f"its fingerprint on {', '.join(sets)} is kept; `scope-edge anchors forget {model}` deletes it")
    after = open_catalog(load_settings())
    empty = next((name for name in removed.pools if not after.pools.get(name)), None)
    if empty is not None and empty == after.active_pool:
        complain(f"pool {empty} is active and empty now; `scope-edge pool use default` goes back to the bundled one", 0)


def confirmed(question: str, yes: bool) -> bool:
    """Whether to do it. Raises UsageError where nobody can be asked and --yes is not given."""
    if yes:
        return True
    if not format.is_terminal(sys.stdin):
        raise UsageError(f"{question}? That cannot be asked here; give --yes")
    return click.confirm(f"{question}?", err=True)


def tell_gone(gone: RemovalSummary) -> None:
    """What was deleted, and what stays."""
    if gone.fingerprints:
        models = format.plural(len({model for model, _ in gone.fingerprints}), "model")
        sets = ", ".join(dict.fromkeys(name for _, name in gone.fingerprints))
        out(f"{format.plural(len(gone.fingerprints), 'fingerprint')} of {models} deleted, on {one_line(sets)}")
    out(format.plural(len(gone.files), "file") + " deleted or written anew")
    if gone.left:
        files = ", ".join(map(str, gone.left))
        out(f"the answers stay, so that `scope-edge fingerprint` asks nothing again; --answers deletes them: {files}")


# `scope-edge models test`: does a model answer?

# Characters of an answer that are shown.
_SHOWN = 200
_TEST_EPILOG = """\b
Examples:
  scope-edge models test our-finetune
  scope-edge models test vendor-model --timeout 20 --json

\b
Exit codes:
  0 it answers   1 the GGUF's worker failed   2 usage, or no key   5 nobody answers, or a missing or damaged file
"""


@click.command("test", epilog=_TEST_EPILOG)
@click.argument("model", shell_complete=complete_model)
@click.option(
    "--timeout",
    metavar="S",
    type=click.FloatRange(min=0, min_open=True),
    default=60,
    show_default=True,
    help="Seconds the answer may take, loading aside.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/json.md).")
@click.pass_context
def test_model(context: click.Context, /, model: str, timeout: float, as_json: bool) -> None:
    """Ask a model one tiny question, as its card says it is called.

    Says what answered, in how many seconds and tokens, or what is wrong. The exit code says whether it works.
    """
    from scope_edge.factory import open_catalog
    from scope_edge.management.trial import try_model
    from scope_edge.settings.config import load_settings

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
        tokens = "the server does not count them"
    loaded = "" if trial.load_seconds is None else f", after {format.seconds(trial.load_seconds)} s of loading"
    text = format.clipped(one_line(trial.text or ""), _SHOWN)
    return {
        "called": trial.how,
        "answer": (text or "empty") + (" (cut off, which is no matter here)" if trial.cut else ""),
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
    """Show the models, add and remove yours, test and compare them."""


for _command in (add, remove_model, test_model, compare_models):
    command.add_command(_command)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def list_models(as_json: bool) -> None:
    """List every model card, yours included.

    Prices are US dollars per million tokens, prompt and completion. A price that is not known shows as "?". Retired
    models can no longer be called and stay for reference.
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
        out(click.style(line, dim=True) if _retired(card) else line)


@command.command("show")
@click.argument("model", shell_complete=complete_model)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show_model(model: str, as_json: bool) -> None:
    """Show one model's card, with where its price comes from."""
    catalog, fingerprints = _loaded()
    body = _body(catalog.card(model), catalog, fingerprints)
    if as_json:
        out_json(body)
        return
    out(click.style(body["id"], bold=True))
    print_facts(_facts(catalog.card(model), body))


def _loaded() -> tuple[Catalog, Mapping[str, tuple[str, ...]] | None]:
    """The catalog, and the anchor sets each model was measured on; None when those files are damaged."""
    from scope_edge.estimation.fingerprints import fingerprint_names
    from scope_edge.factory import open_catalog
    from scope_edge.settings.config import load_settings

    catalog = open_catalog(load_settings())
    try:
        return catalog, fingerprint_names()
    except AssetError as error:
        from scope_edge.cli.run import complain

        complain(f"{error}; which models have a fingerprint is not known", 0)
        return catalog, None


def _retired(card: ModelCard) -> bool:
    from scope_edge.catalog.cards import is_retired

    return is_retired(card)


def _body(card: ModelCard, catalog: Catalog, fingerprints: Mapping[str, tuple[str, ...]] | None) -> dict[str, Any]:
    return {
        **asdict(card),
        "retired": _retired(card),
        "own": card.id in catalog.own_cards,
        "fingerprints": None if fingerprints is None else list(fingerprints.get(card.id, ())),
        "pools": [name for name, ids in catalog.pools.items() if card.id in ids],
        "cannot_load": _cannot_load(card),
    }


def _cannot_load(card: ModelCard) -> str | None:
    if card.gguf is None:
        return None
    from scope_edge.providers.llama.loadable import why_not

    return why_not(card)


def _columns(
    cards: tuple[ModelCard, ...], fingerprints: Mapping[str, tuple[str, ...]] | None, level: int
) -> list[Column]:
    """The list's columns; each level shows less than the one before."""
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
    if _retired(card):
        return "retired"
    return f"until {card.retires}" if card.retires else card.status


def _facts(card: ModelCard, body: Mapping[str, Any]) -> dict[str, str]:
    """What the card says, for people; what is not known is said to be."""
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
        "speed": _known(card.tokens_per_second, "tokens a second"),
        "prompt speed": _known(card.prompt_tokens_per_second, "tokens a second"),
        "load time": _known(card.load_seconds, "seconds") if card.where == "device" else "",
        "status": "retired" if body["retired"] else card.status,
        "retires": card.retires or "",
        "licence": card.licence or "",
        "fingerprints": format.UNKNOWN if sets is None else ", ".join(sets) or "none: nothing is predicted for it",
        "pools": ", ".join(body["pools"]),
        "card": "yours" if body["own"] else "bundled",
        "note": card.note,
    }


def _known(value: float | None, unit: str) -> str:
    return "unknown" if value is None else f"{value:,.10g} {unit}"
