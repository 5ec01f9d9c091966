"""`scope-edge models add`: write a card for the user's model, from options and questions on a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scope_edge.catalog.cards import check_key_env
from scope_edge.catalog.endpoint import is_loopback, parse_endpoint
from scope_edge.cli import format
from scope_edge.cli.commands.pool import active_pool
from scope_edge.cli.options import Features, amount_option, complete_pool, number
from scope_edge.cli.output import one_line, out, out_json, print_facts
from scope_edge.cli.run import complain
from scope_edge.errors import AssetError, ScopeEdgeError, UsageError
from scope_edge.management import add as drafts
from scope_edge.management.add import CardDraft, CardOverrides, Fit, estimate_fit, is_address
from scope_edge.providers.llama.memory import NoRoom, Plan
from scope_edge.settings.config import load_settings
from scope_edge.settings.validation import check_amount, join_some

if TYPE_CHECKING:
    from scope_edge.catalog.cards import Catalog
    from scope_edge.providers.openai.responses import Served
    from scope_edge.types import ModelCard

NO_ROOM = 3
# Models of a server to list in the question.
_SHOWN = 20
_EPILOG = """\b
Examples:
  scope-edge models add
  scope-edge models add ./our-finetune-q4_k_m.gguf
  scope-edge models add ./our-finetune-q4_k_m.gguf --estimate-only
  scope-edge models add http://127.0.0.1:11434/v1 --served-as qwen2.5:7b --where device --supports tools
  scope-edge models add https://api.vendor.example/v1 --served-as vendor-model --key-env VENDOR_API_KEY --usd-in 1.5 --usd-out 6

\b
Exit codes:
  0 ok   2 usage   3 --estimate-only: it does not fit now   5 a file is damaged, or the server does not answer
"""


@click.command("add", epilog=_EPILOG)
@click.argument("source", required=False)
@click.option(
    "--id", metavar="ID", help="The model's id. Default: made from the file's name or the server's name for it."
)
@click.option("--name", metavar="TEXT", help="A name for people.")
@click.option("--served-as", metavar="NAME", help="The server's name for the model. Default: the only model it serves.")
@click.option("--key-env", metavar="VARIABLE", help="The environment variable that holds the server's key.")
@click.option(
    "--where",
    type=click.Choice(["device", "cloud"]),
    help="Where it runs. Default: device for a GGUF, cloud for a server, since even a local server may forward requests.",
)
@amount_option("--usd-in", "USD", "US dollars per million prompt tokens.", zero=True)
@amount_option("--usd-out", "USD", "US dollars per million completion tokens.", zero=True)
@click.option("--context", "context_tokens", metavar="N", type=click.IntRange(min=1), help="Context length in tokens.")
@amount_option("--token-factor", "X", "The model's tokens per cl100k token.")
@click.option(
    "--supports",
    metavar="LIST",
    type=Features(),
    default="",
    help="What else the server's model supports, joined by commas: tools, json, images, audio, files.  [default: nothing]",
)
@click.option(
    "--pool", metavar="NAME", shell_complete=complete_pool, help="Add it to this pool.  [default: the active one]"
)
@click.option("--no-pool", is_flag=True, help="Add it to no pool.")
@click.option("--replace", is_flag=True, help="Replace an existing card of yours.")
@click.option("--no-check", is_flag=True, help="Do not check with the server or llama.cpp whether they know the model.")
@click.option("--estimate-only", is_flag=True, help="Show whether a GGUF fits on this machine; write nothing.")
@click.option("--yes", is_flag=True, help="Ask no questions: take the defaults.")
@click.option("--json", "as_json", is_flag=True, help="Ask no questions, and print one JSON object (docs/json.md).")
@click.pass_context
def add(context: click.Context, /, source: str | None, **options: Any) -> None:
    """Write a card for a model of yours and add it to a pool.

    SOURCE is a GGUF file or the address of an OpenAI-compatible server. The file or the server is asked for the model's
    details, you for the rest if this is a terminal. For a key, name its environment variable; the key is never written.
    """
    # Before the name is used, and so printed: it may be the key itself.
    if options["key_env"] is not None:
        check_key_env("--key-env", options["key_env"])
    dialog = _Dialog(options)
    question = "A GGUF file, or the address of a server such as http://127.0.0.1:11434/v1"
    source = source or dialog.ask(question, check=lambda text: is_address(text) or estimate_fit(Path(text)))
    if not source:
        raise UsageError("nothing to add; give a GGUF file, or the address of a server")
    overrides = CardOverrides(**{name: options[name] for name in CardOverrides.__dataclass_fields__})
    pool = None if dialog.no_pool or dialog.estimate_only else dialog.pool or active_pool()
    if is_address(source):
        if dialog.estimate_only:
            raise UsageError("--estimate-only is for a GGUF; leave it out for a server")
        draft, fit = _from_server(source, overrides, dialog), None
    else:
        fit = estimate_fit(Path(source))
        if dialog.estimate_only:
            context.exit(_print_estimate(fit, dialog.as_json))
        draft = _from_file(fit, overrides, dialog)
    if not _confirm_fit(fit, dialog):
        out("nothing was added")
        return
    if pool is not None and dialog.pool is None and not dialog.confirm(f"Add it to pool {pool}", default=True):
        pool = None
    _write(draft, fit, pool, dialog)


class _Dialog:
    """The options about the procedure. Questions are asked only on a terminal, and not with --yes or --json."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.pool: str | None = options["pool"]
        self.no_pool: bool = options["no_pool"]
        self.replace: bool = options["replace"]
        self.check: bool = not options["no_check"]
        self.estimate_only: bool = options["estimate_only"]
        self.as_json: bool = options["as_json"]
        self.guided = format.is_terminal(sys.stdin) and not (options["yes"] or self.as_json)
        if self.pool is not None and self.no_pool:
            raise UsageError("--pool and --no-pool contradict each other; give only one")

    def ask(self, question: str, default: str = "", check: Callable[[str], object] | None = None) -> str:
        """Return the answer, asking again while `check` refuses it; without questions, return the default."""
        if not self.guided:
            return default

        def read(text: str) -> str:
            text = text.strip()
            try:
                if check is not None and text:
                    check(text)
            except ScopeEdgeError as error:
                raise click.BadParameter(one_line(str(error))) from error
            return text

        answer: str = click.prompt(question, default=default, show_default=bool(default), value_proc=read, err=True)
        return answer

    def confirm(self, question: str, *, default: bool) -> bool:
        """Return the answer to a yes-or-no question; without questions, the default."""
        return click.confirm(question, default=default, err=True) if self.guided else default


def _confirm_fit(fit: Fit | None, dialog: _Dialog) -> bool:
    """Ask whether to add a model that cannot be loaded now; return true for any other."""
    if fit is None or isinstance(fit.plan, Plan) or not dialog.guided:
        return True
    return dialog.confirm(f"It cannot be loaded now: {fit.plan.why}. Add it anyway?", default=False)


def _from_file(fit: Fit, overrides: CardOverrides, dialog: _Dialog) -> CardDraft:
    if dialog.check:
        drafts.check_gguf(fit)
    return drafts.draft_gguf(fit, _with_id(drafts.draft_gguf(fit, overrides).id, overrides, dialog))


def _from_server(address: str, overrides: CardOverrides, dialog: _Dialog) -> CardDraft:
    if overrides.key_env is None and not is_loopback(parse_endpoint(address).host):
        question = "Environment variable that holds its key (empty: no key needed)"
        variable = dialog.ask(question, check=lambda text: check_key_env("that", text))
        overrides = replace(overrides, key_env=variable or None)
    listed = _list_served(drafts.listing_card(address, overrides)) if dialog.check else None
    served = drafts.pick(listed, overrides.served_as or _choose_model(listed, address, dialog), address)
    if overrides.where is None and drafts.may_be_device(address, served.name):
        question = "Does it run on this machine? A local server may forward requests to another"
        overrides = replace(overrides, where="device" if dialog.confirm(question, default=False) else None)
    overrides = _with_id(drafts.draft_endpoint(address, served, overrides).id, overrides, dialog)
    if overrides.where != "device" and overrides.usd_in is None and overrides.usd_out is None:
        overrides = _with_prices(overrides, dialog)
    return drafts.draft_endpoint(address, served, overrides)


def _list_served(card: Any) -> Sequence[Served] | None:
    """Return the models that the server lists. Raises RemoteError, UsageError, MissingExtraError."""
    from scope_edge.providers.openai.client import ChatClient, RetryPolicy

    with ChatClient(card, RetryPolicy(timeout=30.0, attempts=1), offline=load_settings().offline) as client:
        return client.served()


def _choose_model(listed: Sequence[Served] | None, address: str, dialog: _Dialog) -> str | None:
    """Return the name of one of the server's models, asking for it if there are several."""
    if listed is not None and len(listed) == 1:
        return None
    if dialog.guided and listed:
        click.echo(f"It serves {one_line(join_some([one.name for one in listed], _SHOWN))}.", err=True)
    return dialog.ask("Which model", check=lambda name: drafts.pick(listed, name, address)) or None


def _with_id(proposed: str, overrides: CardOverrides, dialog: _Dialog) -> CardOverrides:
    return overrides if overrides.id is not None else replace(overrides, id=dialog.ask("Id of the model", proposed))


def _with_prices(overrides: CardOverrides, dialog: _Dialog) -> CardOverrides:
    def amount(text: str) -> float:
        return check_amount("the price", number(text.lstrip("$")))

    prices: list[float] = []
    for what in ("prompt", "completion"):
        text = dialog.ask(f"US dollars per million {what} tokens (empty: unknown)", check=amount)
        if not text:
            return overrides
        prices.append(amount(text))
    return replace(overrides, usd_in=prices[0], usd_out=prices[1])


def _write(draft: CardDraft, fit: Fit | None, pool: str | None, dialog: _Dialog) -> None:
    from scope_edge.catalog.edit import add_card

    catalog = add_card(draft.id, draft.fields, pool, replace=dialog.replace)
    if dialog.as_json:
        out_json({"id": draft.id, **draft.fields, "pool": pool, "fit": None if fit is None else _fit_body(fit)})
        return
    card = catalog.card(draft.id)
    out(f"{click.style(card.id, bold=True)} was added")
    print_facts(
        {
            "called": called(card),
            "where": card.where,
            **({} if fit is None else _fit_facts(fit)),
            "context": f"{card.context_tokens:,} tokens" if card.context_tokens and fit is None else "",
            "price": prices(card),
            "supports": ", ".join(card.supports),
            "key": f"in the variable {card.key_env}" if card.key_env else "",
            "pool": "none; `scope-edge pool add` adds it to one" if pool is None else pool,
            "written": str(load_settings().file),
        }
    )
    for line in _hints(card.id, fit, catalog):
        complain(line, 0)


def _hints(model: str, fit: Fit | None, catalog: Catalog) -> list[str]:
    """Return hints about the new card and the next step."""
    from scope_edge.estimation.fingerprints import fingerprint_names
    from scope_edge.providers.llama.process import installed

    card, found = catalog.card(model), []
    if card.endpoint is not None and card.where == "cloud" and is_loopback(parse_endpoint(card.endpoint).host):
        found.append(
            "it counts as cloud, since a local server may forward; `--where device --replace` if it runs on this machine"
        )
    if fit is not None and isinstance(fit.plan, NoRoom):
        found.append(f"it is not chosen as long as it cannot be loaded: {fit.plan.why}")
    if fit is not None and not installed():
        found.append('it needs llama-cpp-python to run; pip install "scope-edge[llama]"')
    known: tuple[str, ...] = ()
    with contextlib.suppress(AssetError):  # damaged fingerprints do not matter here
        known = fingerprint_names().get(model, ())
    if known:
        found.append(
            f"it uses the fingerprint of that name ({', '.join(known)}); if that is another model, give another --id"
        )
    else:
        found.append(
            f"it counts as an average model until it is measured on anchors; next: `scope-edge models test {model}`,"
            f" then `scope-edge fingerprint {model} --limit 25`"
        )
    return found


def _print_estimate(fit: Fit, as_json: bool) -> int:
    """Print whether a GGUF fits. Return the exit code."""
    if as_json:
        out_json(_fit_body(fit))
    else:
        out(click.style(one_line(str(fit.path)), bold=True))
        print_facts(_fit_facts(fit))
    return NO_ROOM if isinstance(fit.plan, NoRoom) else 0


def price(value: float | None) -> str:
    """Return US dollars per million tokens as the card writes them."""
    return format.UNKNOWN if value is None else f"{value:.10g}"


def prices(card: ModelCard) -> str:
    """Return a card's prices in words."""
    if card.usd_in is None:
        return "unknown (never taken as free)"
    return f"${price(card.usd_in)} in, ${price(card.usd_out)} out, per million tokens"


def called(card: ModelCard) -> str:
    """Return how a model is called, or "" if its card does not say."""
    return card.gguf or ("" if card.endpoint is None else f"{card.served_as or card.id} at {card.endpoint}")


def _fit_facts(fit: Fit) -> dict[str, str]:
    from scope_edge.cli.commands.estimator import weights

    shape = fit.header.shape
    return {
        "weights": weights(shape, fit.header.size),
        "context": f"{shape.context:,} tokens" if shape.context else "unknown",
        "template": "its own chat template" if shape.chat_template else "none, so it cannot be asked",
        "memory": fit.plan.why if isinstance(fit.plan, Plan) else f"it does not fit: {fit.plan.why}",
    }


def _fit_body(fit: Fit) -> dict[str, Any]:
    plan = fit.plan if isinstance(fit.plan, Plan) else None
    return {
        "path": str(fit.path),
        "size": fit.header.size,
        "shape": asdict(fit.header.shape),
        "fits": plan is not None,
        "needs": None if plan is None else plan.needs,
        "gpu": None if plan is None else plan.gpu_layers != 0,
        "context": None if plan is None else plan.context,
        "why": fit.plan.why,
    }
