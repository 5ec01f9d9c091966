"""Drafts of model cards, from a GGUF or a server and the user's own values. Nothing is written here."""

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
from scope_edge.providers.openai.responses import Served
from scope_edge.settings.validation import join_some
from scope_edge.storage.files import expand_user
from scope_edge.types import ModelCard, Where

if TYPE_CHECKING:
    from scope_edge.providers.llama.memory import NoRoom, Plan

# The most models named in an error; a vendor has hundreds.
_NAMED = 8
# The price of a model on the device; electricity is not counted.
_FREE = {"usd_in": 0.0, "usd_out": 0.0}


@dataclass(frozen=True, slots=True)
class CardOverrides:
    """The user's own values of a card; a None is read from the model, or stays unknown.

    Attributes are as on a card; served_as: the model's name at the server.
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
    """A card to be written. fields: the known ones, by their names on cards."""

    id: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fit:
    """A GGUF, its header, and its memory plan on this machine now."""

    path: Path
    header: Header
    plan: Plan | NoRoom


def is_address(source: str) -> bool:
    """Return whether a source is a server's address, not a file."""
    return source.lower().startswith(("http://", "https://"))


def estimate_fit(path: Path) -> Fit:
    """Read a GGUF's header and plan for it. Raises UsageError (no such file), AssetError (no GGUF, or damaged)."""
    path = expand_user(path).absolute()
    if not path.is_file():
        if path.is_dir():
            raise UsageError(f"{path}: is a folder; give the GGUF in it")
        raise UsageError(f"{path}: no such file; a server's address begins with http://")
    header = read_header(path)
    return Fit(path, header, plan_device(header.shape, header.size))


def check_gguf(fit: Fit) -> None:
    """Raise UsageError for a GGUF that cannot answer, or AssetError if an installed llama.cpp cannot read it."""
    from scope_edge.providers.llama.gguf import describe_gguf
    from scope_edge.providers.llama.process import installed

    if not writes_text(fit.header.shape):
        raise UsageError(f"{fit.path}: a {fit.header.shape.architecture} model writes no text, so it cannot answer")
    check_template(fit.path, fit.header.shape.chat_template)
    if installed():
        describe_gguf(fit.path)


def draft_gguf(fit: Fit, said: CardOverrides) -> CardDraft:
    """Draft a card for a GGUF. Raises UsageError for values that belong to an endpoint."""
    if said.served_as is not None or said.key_env is not None:
        raise UsageError("a GGUF runs on this machine; leave out what belongs to a server (--served-as, --key-env)")
    if said.supports:
        raise UsageError("a GGUF answers with text alone here; leave out --supports")
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
    return _draft(fit.path.stem, read | _FREE, said, {"gguf": str(fit.path)})


def draft_endpoint(address: str, served: Served, said: CardOverrides) -> CardDraft:
    """Draft a card for a model of a server, by default with its served name as the id. Raises UsageError for no address."""
    endpoint = parse_endpoint(address)
    # A server on this machine may forward queries; only the user knows that it does not.
    where: Where = said.where or "cloud"
    read: dict[str, Any] = {
        "where": where,
        "context_tokens": served.context_tokens,
        "parameters_b": None if served.parameters is None else _rounded(served.parameters / 1e9),
    }
    if where == "device":
        read |= _FREE
    draft = _draft(served.name, read, said, {"endpoint": endpoint.url, "key_env": said.key_env})
    named = {} if draft.id == served.name else {"served_as": served.name}
    return CardDraft(draft.id, {**draft.fields, **named})


def pick(listed: Sequence[Served] | None, wanted: str | None, address: str) -> Served:
    """Return the wanted model of a server's list (None = no list). Raises UsageError that names the served models."""
    if not listed:
        if wanted is None:
            raise UsageError(f"{address} does not list its models; name the model with --served-as")
        return Served(wanted, None, None)
    names = [one.name for one in listed]
    shown = join_some(names, _NAMED)
    if wanted is None:
        if len(listed) == 1:
            return listed[0]
        raise UsageError(f"{address} serves {shown}; say which with --served-as")
    if wanted not in names:
        raise UsageError(f"{address} serves no {wanted!r}{nearest(wanted, names)}; it serves {shown}")
    return listed[names.index(wanted)]


def may_be_device(address: str, name: str) -> bool:
    """Return whether the user may declare that a server's model runs on this machine."""
    return is_loopback(parse_endpoint(address).host) and not name.lower().endswith(FORWARDED)


def listing_card(address: str, said: CardOverrides) -> ModelCard:
    """Return a card for listing a server's models. Raises UsageError."""
    endpoint = parse_endpoint(address)
    return ModelCard(id=endpoint.host, where=said.where or "cloud", endpoint=endpoint.url, key_env=said.key_env)


def _draft(name: str, read: Mapping[str, Any], said: CardOverrides, called: Mapping[str, Any]) -> CardDraft:
    """Lay the user's values over those that were read."""
    names = ("name", "where", "usd_in", "usd_out", "context_tokens", "token_factor")
    own: dict[str, Any] = {name: getattr(said, name) for name in names} | {"supports": list(said.supports) or None}
    fields = {**read, **{key: value for key, value in own.items() if value is not None}, **called}
    if said.usd_in or said.usd_out:
        fields["price_as_of"] = date.today().isoformat()
    return CardDraft(said.id or id_of(name), {key: value for key, value in fields.items() if value is not None})


def id_of(name: str) -> str:
    """Make an id of a file's or served name: no space, comma or capital. Raises AssetError if nothing is left."""
    made = re.sub(r"[\s,]+", "-", name).strip("-").lower()
    if not made or not made.isprintable():
        raise AssetError(f"{name!r} gives no id for a model; give one with --id")
    return made


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
