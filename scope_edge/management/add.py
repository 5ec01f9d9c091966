"""A card in the making: what a GGUF or a server says of a model, and what the user says of it. Nothing is written here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scope_edge.catalog.cards import FORWARDED, nearest
from scope_edge.catalog.endpoint import is_loopback, parse_endpoint
from scope_edge.errors import AssetError, UsageError
from scope_edge.providers.llama.gguf import Header, check_template, read_header, writes_text
from scope_edge.providers.llama.memory import plan_device
from scope_edge.settings.validation import join_some
from scope_edge.types import ModelCard, Where

if TYPE_CHECKING:
    from scope_edge.providers.llama.memory import NoRoom, Plan
    from scope_edge.providers.openai.responses import Served

# Models named in an error; a vendor has hundreds.
_NAMED = 8


@dataclass(frozen=True, slots=True)
class CardOverrides:
    """What the user says of a model; None = nothing, then it is read, or left unknown.

    Attributes:
        id, name, where, key_env, usd_in, usd_out, context_tokens, token_factor: as on a card. served_as: its name at the server.
        supports: as on a card; () = nothing is said.
    """

    id: str | None = None
    name: str | None = None
    where: Where | None = None
    served_as: str | None = None
    key_env: str | None = None
    usd_in: float | None = None
    usd_out: float | None = None
    context_tokens: int | None = None
    token_factor: float | None = None
    supports: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CardDraft:
    """A card that could be written. fields: by their names on cards; what is not known is not among them."""

    id: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fit:
    """A GGUF, what it says of itself, and where it would go on this machine as it is now."""

    path: Path
    header: Header
    plan: Plan | NoRoom


def is_address(source: str) -> bool:
    """Whether a source is a server's address, as opposed to a file."""
    return source.lower().startswith(("http://", "https://"))


def estimate_fit(path: Path) -> Fit:
    """Read a GGUF's header and plan for it. Raises UsageError (no such file), AssetError (no GGUF, or damaged)."""
    path = path.expanduser().absolute()
    if not path.is_file():
        what = (
            "is a folder; give the GGUF in it"
            if path.is_dir()
            else "no such file; a server's address begins with http://"
        )
        raise UsageError(f"{path}: {what}")
    header = read_header(path)
    return Fit(path, header, plan_device(header.shape, header.size))


def check_gguf(fit: Fit) -> None:
    """Refuse what could never answer. Raises UsageError, or AssetError where llama.cpp is there and cannot read it."""
    from scope_edge.providers.llama.gguf import describe_gguf
    from scope_edge.providers.llama.process import installed

    if not writes_text(fit.header.shape):
        raise UsageError(f"{fit.path}: a {fit.header.shape.architecture} model writes no text, so it cannot be asked")
    check_template(fit.path, fit.header.shape.chat_template)
    if installed():
        describe_gguf(fit.path)


def draft_gguf(fit: Fit, said: CardOverrides) -> CardDraft:
    """A card for a GGUF. Raises UsageError: what is said of it belongs to an endpoint."""
    if said.served_as is not None or said.key_env is not None:
        raise UsageError("a GGUF is run here; leave out what belongs to a server (its name there, its key)")
    if said.supports:
        raise UsageError("a GGUF is asked for text alone here; leave out what else it can do (--supports)")
    shape, header = fit.header.shape, fit.header
    read = {
        "name": header.name,
        "where": "device",
        "context_tokens": shape.context or None,
        "parameters_b": _rounded(shape.parameters / 1e9),
        "size_gb": _rounded(header.size / 1e9),
        "licence": header.licence,
        "note": f"{shape.architecture}, {shape.quantization}",
    }
    return _draft(fit.path.stem, read | _free(), said, {"gguf": str(fit.path)})


def draft_endpoint(address: str, served: Served, said: CardOverrides) -> CardDraft:
    """A card for a model of a server, which is called what `served` says. Raises UsageError: no address."""
    endpoint = parse_endpoint(address)
    # A server on this machine may forward what it is asked: that it does not, only its user knows.
    where: Where = said.where or "cloud"
    read: dict[str, Any] = {
        "where": where,
        "context_tokens": served.context_tokens,
        "parameters_b": None if served.parameters is None else _rounded(served.parameters / 1e9),
    }
    if where == "device":
        read |= _free()
    draft = _draft(served.name, read, said, {"endpoint": endpoint.url, "key_env": said.key_env})
    named = {} if draft.id == served.name else {"served_as": served.name}
    return CardDraft(draft.id, {**draft.fields, **named})


def pick(listed: Sequence[Served] | None, wanted: str | None, address: str) -> Served:
    """The model that is meant among those a server lists; None = it lists none. Raises UsageError naming what there is."""
    from scope_edge.providers.openai.responses import Served

    if listed is None or not listed:
        if wanted is None:
            raise UsageError(f"{address} does not say what it serves; name the model with --served-as")
        return Served(wanted, None, None)
    names = [one.name for one in listed]
    shown = join_some(names, _NAMED)
    if wanted is None:
        if len(listed) == 1:
            return listed[0]
        raise UsageError(f"{address} serves {shown}; say which with --served-as")
    found = next((one for one in listed if one.name == wanted), None)
    if found is None:
        raise UsageError(f"{address} serves no {wanted!r}{nearest(wanted, names)}; it serves {shown}")
    return found


def may_be_device(address: str, name: str) -> bool:
    """Whether a model of a server could be declared to run on this machine."""
    return is_loopback(parse_endpoint(address).host) and not name.lower().endswith(FORWARDED)


def listing_card(address: str, said: CardOverrides) -> ModelCard:
    """A card to ask a server by what it serves, before it is known what that is. Raises UsageError."""
    endpoint = parse_endpoint(address)
    return ModelCard(id=endpoint.host, where=said.where or "cloud", endpoint=endpoint.url, key_env=said.key_env)


def _draft(name: str, read: Mapping[str, Any], said: CardOverrides, called: Mapping[str, Any]) -> CardDraft:
    """What was read, and over it what the user says."""
    told = {
        "name": said.name,
        "where": said.where,
        "usd_in": said.usd_in,
        "usd_out": said.usd_out,
        "context_tokens": said.context_tokens,
        "token_factor": said.token_factor,
        "supports": list(said.supports) or None,
    }
    fields = {**read, **{key: value for key, value in told.items() if value is not None}, **called}
    if said.usd_in or said.usd_out:
        fields["price_as_of"] = date.today().isoformat()
    return CardDraft(said.id or id_of(name), {key: value for key, value in fields.items() if value is not None})


def id_of(name: str) -> str:
    """An id made of a file's or a server's name: no space, no comma, no capitals. Raises AssetError when nothing is left."""
    made = re.sub(r"[\s,]+", "-", name).strip("-").lower()
    if not made or not made.isprintable():
        raise AssetError(f"{name!r} makes no id for a model; give one with --id")
    return made


def _free() -> dict[str, float]:
    """What a model on the device costs: nothing, electricity aside."""
    return {"usd_in": 0.0, "usd_out": 0.0}


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
