"""Options and option types that commands share. Values are checked as in the settings file; the shell can complete them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click
from click.shell_completion import CompletionItem

from scope_edge.errors import ScopeEdgeError, UsageError
from scope_edge.settings.validation import check_alpha

if TYPE_CHECKING:
    from scope_edge.catalog.cards import Catalog

    AnyParamType = click.ParamType[Any]
else:
    AnyParamType = click.ParamType

Command = TypeVar("Command", bound=Callable[..., Any])


class Decorator(Protocol):
    """What adds an option to a command."""

    def __call__(self, command: Command, /) -> Command: ...


Completion = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

# A sweep of more alphas than this shows nothing that fewer would not.
_MOST_ALPHAS = 1001


def read_alphas(text: str) -> tuple[float, ...]:
    """Return numbers in [0, 1], rising, from "0:1:0.05" or "0,0.5,1". Raises UsageError."""
    try:
        if ":" in text:
            first, last, step = (float(part) for part in text.split(":"))
            if not step > 0 or not last >= first or (last - first) / step >= _MOST_ALPHAS:
                raise ValueError
            numbers = [round(first + i * step, 10) for i in range(int((last - first) / step + 1e-9) + 1)]
        else:
            numbers = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--alphas must be FROM:TO:STEP or numbers joined by commas, not {text!r}") from error
    return tuple(sorted({check_alpha(number, "--alphas") for number in numbers}))


class Setting(AnyParamType):
    """The value of a setting, checked like in the settings file. `choices` are for the shell to complete."""

    name = "setting"

    def __init__(self, key: str, choices: tuple[str, ...] = ()) -> None:
        self.key = key
        self.choices = choices

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the checked value. Raises UsageError."""
        from scope_edge.settings.schema import CHECKS

        read = value if self.choices or self.key in ("pool", "profile") else number(value)
        return CHECKS[self.key](f"--{self.key.replace('_', '-')}", read)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(choice) for choice in self.choices if choice.startswith(incomplete)]


class Features(AnyParamType):
    """What a model can do besides text, joined by commas, as on its card."""

    name = "features"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a tuple of features. Raises UsageError."""
        from scope_edge.catalog.cards import features_of

        return features_of(str(value))

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from scope_edge.catalog.cards import FEATURES

        return _items(FEATURES, incomplete)


def number(text: str) -> int | float | str:
    """Return the number that a text is, or the text, which the check then refuses."""
    for kind in (int, float):
        # "1_000" is a number to Python, but not to people.
        with contextlib.suppress(ValueError):
            return text if "_" in text else kind(text)
    return text


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a model id; after a comma, the next one."""
    catalog = _catalog()
    return _items(catalog.by_id, incomplete) if catalog else []


def complete_pool(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a pool name."""
    catalog = _catalog()
    return _items(catalog.pools, incomplete) if catalog else []


def complete_profile(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of one of the user's profiles."""
    from scope_edge.settings.config import load_settings

    with contextlib.suppress(ScopeEdgeError):
        return _items(load_settings().profiles, incomplete)
    return []


def complete_selection(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a pool name or a model id; after a comma, a model id."""
    catalog = _catalog()
    if catalog is None:
        return []
    return _items(catalog.by_id if "," in incomplete else [*catalog.pools, *catalog.by_id], incomplete)


def _items(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    return [CompletionItem(before + comma + name) for name in names if name.startswith(last) and name not in taken]


def _catalog() -> Catalog | None:
    """Return the catalog, or None if it cannot be read: shell completion cannot report errors."""
    from scope_edge.factory import open_catalog
    from scope_edge.settings.config import load_settings

    with contextlib.suppress(ScopeEdgeError):
        return open_catalog(load_settings())
    return None


# Options that several commands share.

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/json.md).")
json_array_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON array (docs/json.md).")
yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


def setting_option(
    key: str, metavar: str, help: str, complete: Completion | None = None, choices: tuple[str, ...] = ()
) -> Decorator:
    """Return an option that overrides a setting for one run. choices: the setting's values, if they are words."""
    flag = f"--{key.replace('_', '-')}"
    return click.option(flag, metavar=metavar, type=Setting(key, choices), shell_complete=complete, help=help)


def pool_option(help: str = "A pool's name, or model ids joined by commas.  [default: default]") -> Decorator:
    """Return the option --pool, checked as the setting."""
    return setting_option("pool", "POOL", help, complete_selection)


def profile_option(help: str) -> Decorator:
    """Return the option --profile, checked as the setting."""
    return setting_option("profile", "NAME", help, complete_profile)


def count_option(flag: str, help: str, low: int = 1, high: int | None = None, default: int | None = None) -> Decorator:
    """Return an option that takes a whole number N from `low` to `high`."""
    kind = click.IntRange(low, high)
    return click.option(flag, metavar="N", type=kind, default=default, show_default=default is not None, help=help)


def amount_option(flag: str, metavar: str, help: str, default: float | None = None, *, zero: bool = False) -> Decorator:
    """Return an option that takes a number above 0, or from 0 on if `zero` is true."""
    kind = click.FloatRange(min=0, min_open=not zero)
    return click.option(flag, metavar=metavar, type=kind, default=default, show_default=default is not None, help=help)
