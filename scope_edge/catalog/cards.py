"""The catalog: every known model card, bundled or the user's own, and the pools a decision may choose from.

A user's `[models."id"]` table overrides the bundled card of that id field by field, or makes a new card. Unknown facts stay
None: a card without prices is unpriced, never free. Prices of models on the device are 0 because the card says so
(electricity is not counted).
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from scope_edge.catalog.endpoint import is_loopback, is_private, parse_endpoint
from scope_edge.errors import AssetError, ConfigError, UsageError
from scope_edge.settings.validation import check_amount, check_choice, check_name, check_positive, label, suggestion
from scope_edge.storage import assets
from scope_edge.types import ModelCard, Where

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CARDS = "models/cards.toml"
STATUSES = ("available", "retired", "unknown")
# What a request may need besides text: tools to call, an answer of a given form, attachments.
FEATURES = ("tools", "json", "images", "audio", "files")
_PRICES = ("usd_in", "usd_out")
# Endings of names under which local servers list models that run at a vendor (Ollama: `name:size-cloud`, `name:cloud`).
FORWARDED = ("-cloud", ":cloud")


@dataclass(frozen=True, slots=True)
class Catalog:
    """All model cards and pools, checked.

    Attributes:
        cards: every card, bundled cards first, in the files' order.
        pools: pool name -> model ids, in the order that breaks ties.
        active_pool: the default of `pool()`: a pool's name, or model ids joined by commas.
        own_cards, own_pools: ids and names that the user's settings file adds or changes.
    """

    cards: tuple[ModelCard, ...]
    pools: Mapping[str, tuple[str, ...]]
    active_pool: str
    own_cards: frozenset[str]
    own_pools: frozenset[str]
    by_id: Mapping[str, ModelCard]

    def card(self, model: str) -> ModelCard:
        """Return the card of one model. Raises UsageError naming the nearest ids."""
        found = self.by_id.get(model)
        if found is None:
            raise UsageError(f"unknown model {model!r}{nearest(model, self.by_id)}; `scope-edge models list` shows all")
        return found

    def pool(self, selection: str | Sequence[str] | None = None) -> tuple[ModelCard, ...]:
        """Return the cards of a pool, in order: by its name, or for model ids given as a list or joined by commas.

        The default is the active pool. A pool's name wins over a model of the same name. Retired models are included:
        see `is_retired`. Raises UsageError: unknown pool or model, a model named twice, an empty pool.
        """
        chosen = self.active_pool if selection is None else selection
        ids = self._listed(chosen) if isinstance(chosen, str) else tuple(chosen)
        if not ids:
            if not isinstance(chosen, str) or chosen not in self.pools:
                raise UsageError("the pool names no model; give a pool's name, or model ids joined by commas")
            raise UsageError(
                f"pool {chosen!r} is empty; `scope-edge pool add MODEL --pool {chosen}` puts a model in it"
            )
        twice = next((one for one in ids if ids.count(one) > 1), None)
        if twice is not None:
            raise UsageError(f"{twice} is named twice; name each model once")
        stranger = next((one for one in ids if one not in self.by_id), None)
        if stranger is not None and chosen in self.pools:
            raise UsageError(
                f"pool {chosen} lists {stranger!r}, which has no card{nearest(stranger, self.by_id)};"
                f" write it a card, or `scope-edge pool remove {stranger} --pool {chosen}`"
            )
        return tuple(self.card(one) for one in ids)

    def _listed(self, text: str) -> tuple[str, ...]:
        if text in self.pools:
            return self.pools[text]
        ids = tuple(piece.strip() for piece in text.split(",") if piece.strip())
        if len(ids) == 1 and ids[0] not in self.by_id:
            hint = nearest(ids[0], [*self.pools, *self.by_id])
            raise UsageError(f"{ids[0]!r} is neither a pool nor a model{hint}; `scope-edge pool list` shows the pools")
        return ids


def load_catalog(
    models: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    pools: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    active_pool: str = "default",
    *,
    file: Path = Path(),
) -> Catalog:
    """Load the bundled cards and pools, overridden by the user's. file: the settings file, which errors name.

    Raises AssetError (bundled cards missing or damaged) or ConfigError (a card or pool of the user's is invalid).
    """
    bundled = _bundled()
    raw: dict[str, dict[str, Any]] = bundled["models"]
    cards = {id: _card(id, fields, CARDS) for id, fields in raw.items() if id not in models}
    folded = {id.lower(): id for id in raw}
    for id, fields in models.items():
        where = f'{file}, [models."{label(id)}"]'
        twin = folded.setdefault(id.lower(), id)
        if twin != id:
            raise ConfigError(f"{where}: differs from {twin} in capitals only; write {twin}, or another name")
        cards[id] = _card(id, _overridden(raw.get(id, {}), fields), where)
    ordered = tuple(cards[id] for id in dict.fromkeys((*raw, *models)))
    listed = {name: tuple(ids) for name, ids in bundled["pools"].items()} | dict(pools)
    return Catalog(ordered, listed, active_pool, frozenset(models), frozenset(pools), cards)


def is_retired(card: ModelCard, on: date | None = None) -> bool:
    """Return whether the model can no longer be called on that day (default: today)."""
    announced = card.retires is not None and card.retires <= (on or date.today()).isoformat()
    return announced or card.status == "retired"


def nearest(word: str, known: Iterable[str]) -> str:
    """Suggest up to three model ids or pools near to a word, or that contain it; see `suggestion`."""
    import difflib

    names = list(known)
    near = difflib.get_close_matches(word.lower(), names, n=3, cutoff=0.6)
    near = near or sorted((name for name in names if word.lower() in name), key=len)[:3]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _bundled() -> dict[str, Any]:
    try:
        body = tomllib.loads(assets.read(CARDS).decode("utf-8"))
    except ValueError as error:
        raise AssetError(f"{CARDS}: cannot be used ({error}); reinstall scope-edge") from error
    if not all(isinstance(body.get(part), dict) for part in ("models", "pools")):
        raise AssetError(f"{CARDS}: holds no [models] and [pools]; reinstall scope-edge")
    return body


def _overridden(bundled: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Override bundled fields by the user's. A fact that depends on a changed field is dropped."""
    moved = "where" in own and own["where"] != bundled.get("where")
    dropped: tuple[str, ...] = _PRICES if moved else ()
    if moved or any(name in own for name in _PRICES):
        dropped += ("price_as_of", "price_source")
    return {name: value for name, value in bundled.items() if name not in dropped} | dict(own)


def _card(id: str, fields: Mapping[str, Any], where: str) -> ModelCard:
    """Check every field of a card and make it; `where` names the file and table. Raises ConfigError."""
    if not id.isprintable() or not id.strip() or re.search(r"[\s,]", id) or len(id) > 200:
        raise ConfigError(f"{where}: a model id is 1 to 200 characters with no space and no comma, not {id[:60]!r}")
    if "where" not in fields:
        raise ConfigError(f'{where}: does not say where it runs; add where = "device" or where = "cloud"')
    values: dict[str, Any] = {}
    for name, value in fields.items():
        check = _CARD_CHECKS.get(name)
        if check is None:
            raise ConfigError(
                f"{where}: {label(name)} is not a field of a card{suggestion(name, _CARD_CHECKS)};"
                f" the fields are {', '.join(_CARD_CHECKS)}"
            )
        try:
            values[name] = check(name, value)
        except UsageError as error:
            raise ConfigError(f"{where}: {error}; leave out what is not known") from error
    missing = [name for name in _PRICES if name not in values]
    if len(missing) == 1:
        raise ConfigError(f"{where}: half a price; add {missing[0]}, or remove the other (unknown prices are left out)")
    card = ModelCard(id=id, **values)
    if conflict := _conflict(card):
        raise ConfigError(f"{where}: {conflict}")
    return card


def _conflict(card: ModelCard) -> str | None:
    """Return which fields on where and how the model is called contradict each other, and what to write instead, or None."""
    if card.where == "device" and any(name.lower().endswith(FORWARDED) for name in (card.id, card.served_as or "")):
        return 'a name ending in -cloud runs at a vendor, never on the device; write where = "cloud"'
    if card.gguf is not None and card.endpoint is not None:
        return "has both an endpoint and a gguf; remove the one it is not to be called by"
    if card.gguf is not None and card.where != "device":
        return 'a gguf runs here; write where = "device"'
    if card.gguf is not None and card.supports:
        return "a gguf is asked for text alone here; remove supports"
    if card.endpoint is None and (card.served_as is not None or card.key_env is not None):
        return "served_as and key_env belong to an endpoint; add endpoint, or remove them"
    if card.endpoint is None:
        return None
    endpoint = parse_endpoint(card.endpoint)
    if card.key_env is not None and endpoint.scheme == "http" and not is_private(endpoint.host):
        return "a key would be sent to the endpoint in the clear; write https:// in the endpoint"
    if card.where == "device" and not is_loopback(endpoint.host):
        return f'{endpoint.host} is another machine; write where = "cloud"'
    return None


def _text(name: str, value: object) -> str:
    if isinstance(value, str) and value.isprintable():
        return value
    raise UsageError(f"{name} must be text on one line, not {value!r}")


def check_key_env(name: str, value: object) -> str:
    """Return the name of a key's variable. Raises UsageError, without the value: it may be the key itself."""
    # In capitals, which keys are not.
    if isinstance(value, str) and re.fullmatch(r"[A-Z_][A-Z0-9_]{0,99}", value):
        return value
    raise UsageError(
        f"{name} must be the name of an environment variable in capitals, such as OPENAI_API_KEY, never the key itself"
    )


def _features(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, list) and all(one in FEATURES for one in value):
        return tuple(dict.fromkeys(value))
    raise UsageError(f"{name} must be a list of {', '.join(FEATURES)}, not {value!r}")


def features_of(text: str) -> tuple[str, ...]:
    """Read a user's comma-separated list of features. Raises UsageError."""
    found = dict.fromkeys(piece.strip() for piece in text.split(",") if piece.strip())
    if unknown := next((one for one in found if one not in FEATURES), None):
        raise UsageError(f"{unknown!r} is not a feature{suggestion(unknown, FEATURES)}; they are {', '.join(FEATURES)}")
    return tuple(found)


def _day(name: str, value: object) -> str:
    text = value.isoformat() if type(value) is date else value
    if isinstance(text, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        with contextlib.suppress(ValueError):
            return date.fromisoformat(text).isoformat()
    raise UsageError(f"{name} must be a date such as 2026-11-05, not {value!r}")


def _as_of(name: str, value: object) -> str:
    # The month or the year alone is enough where the source gives no more.
    if isinstance(value, str) and re.fullmatch(r"\d{4}(-(0[1-9]|1[0-2]))?", value):
        return value
    return _day(name, value)


def _tokens(name: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**53:
        return value
    raise UsageError(f"{name} must be a whole number above 0, not {value!r}")


# Field of a card -> its check: (name, value) -> the value as stored. Each raises UsageError.
_CARD_CHECKS: Mapping[str, Callable[[str, object], object]] = {
    "where": lambda name, value: check_choice(name, value, get_args(Where)),
    "name": _text,
    "usd_in": check_amount,
    "usd_out": check_amount,
    "price_as_of": _as_of,
    "price_source": _text,
    "token_factor": check_positive,
    "context_tokens": _tokens,
    "parameters_b": check_positive,
    "size_gb": check_positive,
    "tokens_per_second": check_positive,
    "prompt_tokens_per_second": check_positive,
    "load_seconds": check_amount,
    "status": lambda name, value: check_choice(name, value, STATUSES),
    "retires": _day,
    "licence": _text,
    "note": _text,
    "endpoint": lambda name, value: parse_endpoint(value, name).url,
    "served_as": check_name,
    "key_env": check_key_env,
    "gguf": check_name,
    "supports": _features,
}
