"""Option types that refuse what the settings file refuses, in the same words; and what the shell completes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from scope_edge.errors import ScopeEdgeError, UsageError
from scope_edge.settings.validation import check_alpha

# Alphas as they are written on the command line.

# A sweep of more alphas than this shows nothing that fewer would not.
_MOST = 1001


def read_alphas(text: str) -> tuple[float, ...]:
    """Numbers in [0, 1], rising: "0:1:0.05" or "0,0.5,1". Raises UsageError."""
    try:
        if ":" in text:
            first, last, step = (float(part) for part in text.split(":"))
            if not step > 0 or not last >= first or (last - first) / step >= _MOST:
                raise ValueError
            numbers = [round(first + i * step, 10) for i in range(int((last - first) / step + 1e-9) + 1)]
        else:
            numbers = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--alphas must be FROM:TO:STEP or numbers joined by commas, not {text!r}") from error
    return tuple(sorted({check_alpha(number, "--alphas") for number in numbers}))


if TYPE_CHECKING:
    from scope_edge.catalog.cards import Catalog

    AnyParamType = click.ParamType[Any]
else:
    AnyParamType = click.ParamType


class Setting(AnyParamType):
    """The value of a setting, checked by config.py. `choices` are for the shell to complete."""

    name = "setting"

    def __init__(self, key: str, choices: tuple[str, ...] = ()) -> None:
        self.key = key
        self.choices = choices

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value as config.py stores it. Raises UsageError."""
        from scope_edge.settings.schema import CHECKS

        read = value if self.choices or self.key in ("pool", "profile") else number(value)
        return CHECKS[self.key](f"--{self.key.replace('_', '-')}", read)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(choice) for choice in self.choices if choice.startswith(incomplete)]


class Features(AnyParamType):
    """What a model can do beside text, joined by commas, as on its card."""

    name = "features"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A tuple of them. Raises UsageError."""
        from scope_edge.catalog.cards import features_of

        return features_of(str(value))

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from scope_edge.catalog.cards import FEATURES

        return _items(FEATURES, incomplete)


def number(text: str) -> int | float | str:
    """What is written as a number, or the text, for the check to refuse."""
    for kind in (int, float):
        # "1_000" is a number to Python, not to people.
        with contextlib.suppress(ValueError):
            return text if "_" in text else kind(text)
    return text


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Model ids; after a comma, the next one."""
    catalog = _catalog()
    return _items(catalog.by_id, incomplete) if catalog else []


def complete_pool(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Pool names."""
    catalog = _catalog()
    return _items(catalog.pools, incomplete) if catalog else []


def complete_profile(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of the user's profiles."""
    from scope_edge.settings.config import load_settings

    with contextlib.suppress(ScopeEdgeError):
        return _items(load_settings().profiles, incomplete)
    return []


def complete_selection(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Pool names and model ids; after a comma, model ids."""
    catalog = _catalog()
    if catalog is None:
        return []
    return _items(catalog.by_id if "," in incomplete else [*catalog.pools, *catalog.by_id], incomplete)


def _items(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    return [CompletionItem(before + comma + name) for name in names if name.startswith(last) and name not in taken]


def _catalog() -> Catalog | None:
    """None when it cannot be read: a shell that completes is no place to say so."""
    from scope_edge.factory import open_catalog
    from scope_edge.settings.config import load_settings

    with contextlib.suppress(ScopeEdgeError):
        return open_catalog(load_settings())
    return None
