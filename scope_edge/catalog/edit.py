"""Edits to the user's settings file: cards, pools, the active pool, profiles. Comments and layout of the file are kept.

The first edit of a bundled pool copies it into the user's file, where it overrides the bundled one. Every edit raises
ConfigError when the settings file cannot be read or written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scope_edge.catalog.cards import Catalog, load_catalog, nearest
from scope_edge.errors import AssetError, ConfigError, UsageError
from scope_edge.settings.config import Settings, load_settings, parse
from scope_edge.settings.schema import CHECKS
from scope_edge.settings.validation import check_name
from scope_edge.storage import assets

if TYPE_CHECKING:
    from tomlkit import TOMLDocument
    from tomlkit.items import Array


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Read and write the settings file while no other process or thread edits it. Raises ConfigError."""
    from scope_edge.storage.files import exclusive

    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive(assets.user_config_file().resolve()))
        except AssetError as error:
            raise ConfigError(f"{error}; nothing was changed") from error
        yield


@_one_at_a_time()
def use_pool(name: str) -> tuple[str, ...]:
    """Make a pool the active one; return its model ids. Raises UsageError (unknown or empty pool)."""
    settings, catalog = _loaded()
    if name not in catalog.pools:
        raise UsageError(
            f"unknown pool {name!r}{nearest(name, catalog.pools)}; the pools are {', '.join(sorted(catalog.pools))}"
        )
    ids = tuple(card.id for card in catalog.pool(name))
    _edit(settings.file, lambda document: document.update({"pool": name}))
    return ids


@_one_at_a_time()
def add_to_pool(model: str, pool: str) -> tuple[str, ...]:
    """Append a model to a pool, which is made if missing; return the pool's model ids.

    Raises UsageError (unknown model, already in the pool).
    """
    settings, catalog = _loaded()
    _check_pool_name(pool)
    catalog.card(model)
    before = catalog.pools.get(pool, ())
    if model in before:
        raise UsageError(f"{model} is in pool {pool} already")
    _edit(settings.file, lambda document: _own_list(document, catalog, pool).append(model))
    return (*before, model)


@_one_at_a_time()
def remove_from_pool(model: str, pool: str) -> tuple[str, ...]:
    """Remove a model from a pool; return the remaining model ids. Raises UsageError (unknown pool, not in it)."""
    settings, catalog = _loaded()
    before = catalog.pools.get(pool)
    if before is None:
        raise UsageError(f"unknown pool {pool!r}{nearest(pool, catalog.pools)}")
    if model not in before:
        raise UsageError(
            f"{model!r} is not in pool {pool}{nearest(model, before)}; it holds {', '.join(before) or 'nothing'}"
        )
    _edit(settings.file, lambda document: _own_list(document, catalog, pool).remove(model))
    return tuple(one for one in before if one != model)


@_one_at_a_time()
def add_card(model: str, fields: Mapping[str, Any], pool: str | None, *, replace: bool = False) -> Catalog:
    """Write a card, and append the model to a pool unless `pool` is None, in one step; return the new catalog.

    replace: overwrite an existing card of the user's. Raises UsageError (it exists, invalid name of a pool), ConfigError
    (invalid card).
    """
    import tomlkit

    settings, catalog = _loaded()
    if model in settings.models and not replace:
        raise UsageError(
            f"you have a card {model} already; give another --id, --replace to write it anew,"
            f" or `scope-edge models remove {model}` first"
        )
    if pool is not None:
        _check_pool_name(pool)
    # The card is checked before anything is written, with the messages of a card in the file.
    load_catalog({**settings.models, model: dict(fields)}, settings.pools, settings.pool, file=settings.file)

    def edit(document: TOMLDocument) -> None:
        table = tomlkit.table()
        table.update(fields)
        table.add(tomlkit.nl())
        document.setdefault("models", tomlkit.table(is_super_table=True))[model] = table
        if pool is not None and model not in catalog.pools.get(pool, ()):
            _own_list(document, catalog, pool).append(model)

    _edit(settings.file, edit)
    return _loaded()[1]


@dataclasses.dataclass(frozen=True, slots=True)
class Removed:
    """A removed card. pools: those the model was removed from. bundled: whether a bundled card of that id applies again."""

    pools: tuple[str, ...]
    bundled: bool


@_one_at_a_time()
def remove_card(model: str) -> Removed:
    """Remove a card of the user's from the settings file, and the model from the user's pools.

    If it overrode a bundled card, that one applies again and the pools stay. Raises UsageError (unknown or bundled card).
    """
    settings, catalog = _loaded()
    if model not in settings.models:
        catalog.card(model)
        raise UsageError(
            f"{model} is a bundled card and stays; `scope-edge pool remove {model}` takes it out of a pool"
        )
    bundled = model in load_catalog().by_id
    pools = () if bundled else tuple(name for name, ids in settings.pools.items() if model in ids)

    def edit(document: TOMLDocument) -> None:
        del document["models"][model]
        for name in pools:
            _own_list(document, catalog, name).remove(model)
        listed = [one.strip() for one in str(document.get("pool", "")).split(",")]
        if not bundled and model in listed and document["pool"] not in catalog.pools:
            document["pool"] = ",".join(one for one in listed if one != model)
            if not document["pool"]:
                del document["pool"]

    _edit(settings.file, edit)
    return Removed(pools, bundled)


@_one_at_a_time()
def update_card(model: str, facts: Mapping[str, float]) -> None:
    """Write numbers on a card of the user's. Raises ConfigError, also if the card is missing."""
    settings = load_settings()
    if model not in settings.models:
        raise ConfigError(f'{settings.file}: has no card [models."{model}"] to write on')
    _edit(settings.file, lambda document: document["models"][model].update(facts))


def check_profile_name(name: str) -> str:
    """Check the name of a profile. Raises UsageError."""
    return check_name("the profile's name", name)


@_one_at_a_time()
def save_profile(name: str, values: Mapping[str, Any]) -> Path:
    """Write a profile, replacing one of that name; return the settings file.

    values: setting -> value, of the settings in `schema.PROFILED`. Raises UsageError (invalid name or value).
    """
    name, path = check_profile_name(name), load_settings().file
    checked = {key: CHECKS[key](key, value) for key, value in values.items()}

    def edit(document: TOMLDocument) -> None:
        import tomlkit

        profiles = document.setdefault("profiles", tomlkit.table(is_super_table=True))
        profile = profiles.setdefault(name, tomlkit.table())
        for key in [key for key in profile if key not in checked]:
            del profile[key]
        profile.update(checked)

    _edit(path, edit)
    return path


def _check_pool_name(pool: str) -> None:
    check_name("the pool's name", pool)
    if "," in pool:
        raise UsageError(f"the pool's name must have no comma, not {pool!r}")


def _loaded() -> tuple[Settings, Catalog]:
    settings = load_settings()
    return settings, load_catalog(settings.models, settings.pools, settings.pool, file=settings.file)


def _own_list(document: TOMLDocument, catalog: Catalog, pool: str) -> Array:
    """Return the pool's list in the user's file, copied from the bundled pool if missing."""
    import tomlkit
    from tomlkit.items import Array

    pools = document.setdefault("pools", tomlkit.table())
    if pool not in pools:
        ids = tomlkit.array().multiline(True)
        ids.extend(catalog.pools.get(pool, ()))
        pools[pool] = ids
    found = pools[pool]
    assert isinstance(found, Array)  # settings/config.py has read it as a list
    return found


def _edit(path: Path, change: Callable[[TOMLDocument], object]) -> None:
    """Change the settings file in one step; a link to it stays a link. Raises ConfigError."""
    import tomlkit

    from scope_edge.storage.files import write_atomically

    real = path.resolve()
    try:
        document = tomlkit.parse(real.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        document = tomlkit.document()
    change(document)
    raw = tomlkit.dumps(document).encode("utf-8")
    parse(raw, path)
    try:
        write_atomically(real, raw)
    except AssetError as error:
        raise ConfigError(f"{error}; nothing was changed") from error
