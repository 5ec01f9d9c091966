"""Model names: a virtual model, under whose settings the router decides, or a real one, which alone is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from scope_edge.catalog.cards import Catalog, nearest
from scope_edge.execution.fallback import callable_now, why_not_called
from scope_edge.server.errors import ApiError
from scope_edge.server.schemas import AUTO
from scope_edge.settings.config import load_settings

if TYPE_CHECKING:
    from scope_edge.settings.config import Settings
    from scope_edge.types import ModelCard

# At a fifth of the way, a twenty-fifth of what the most accurate choice would spend (docs/alpha.md).
CHEAP_ALPHA = 0.2


@dataclass(frozen=True, slots=True)
class Target:
    """The model that a request names. pinned: the real model, the only one that is asked."""

    name: str
    settings: Settings
    pinned: ModelCard | None = None


class Names:
    """The known names."""

    def __init__(self, settings: Settings, catalog: Catalog, overrides: Mapping[str, Any]) -> None:
        """overrides: options of the server, which no profile changes. Raises ConfigError."""
        self._catalog = catalog
        self._auto = Target(AUTO, settings)
        self.virtual: dict[str, Target] = {
            AUTO: self._auto,
            f"{AUTO}:cheap": Target(f"{AUTO}:cheap", replace(settings, alpha=CHEAP_ALPHA)),
            f"{AUTO}:best": Target(f"{AUTO}:best", replace(settings, alpha=1.0)),
            f"{AUTO}:local": Target(f"{AUTO}:local", replace(settings, local_only=True)),
        }
        given = {key: value for key, value in overrides.items() if value is not None and key != "profile"}
        for profile in settings.profiles:
            if profile not in self.virtual and profile not in catalog.by_id:
                self.virtual[profile] = Target(profile, load_settings({**given, "profile": profile}))

    @property
    def real(self) -> tuple[ModelCard, ...]:
        """The cards of all models that can be called."""
        return tuple(card for card in self._catalog.cards if callable_now(card))

    def find(self, name: str) -> Target:
        """Return the model of a name. Raises Problem: it is unknown, or cannot be called."""
        target = self.virtual.get(name)
        if target is not None:
            return target
        card = self._catalog.by_id.get(name)
        if card is not None and callable_now(card):
            return Target(name, self._auto.settings, card)
        if card is not None:
            why = f"{name} cannot be called: {why_not_called(card, local_only=False)}"
        else:
            known = (*self.virtual, *(one.id for one in self.real))
            why = f"there is no model {name!r}{nearest(name, known)}; /v1/models lists them"
        raise ApiError(404, why, "model_not_found", param="model")
