"""Names of imported models and anchor sets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from scope_edge.errors import AssetError, UsageError
from scope_edge.estimation.feedback_store import FEEDBACK
from scope_edge.estimation.fingerprints import ASKED, usable_anchor_sets

if TYPE_CHECKING:
    from scope_edge.catalog.cards import Catalog

# The dataset's spelling -> the card of the same weights. Reviewed by hand against the OpenRouter ids in the paper's own code;
# a model that is neither here nor spelled like a card has no card.
ALIASES: Mapping[str, str] = {
    "llama-3-3-70b": "llama-3.3-70b-instruct",  # meta-llama/llama-3.3-70b-instruct
    "llama-3-1-8b": "llama-3.1-8b-instruct",  # meta-llama/llama-3.1-8b-instruct
    "gemma-3-27b": "gemma-3-27b-it",  # google/gemma-3-27b-it
}
_SET = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def model_name(name: str) -> str:
    """Return a dataset's name of a model without provider and price class, in lower case."""
    return name.strip().lower().rpartition("/")[2].removesuffix(":free")


class Cards:
    """Finds the card of a model, whatever its spelling."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._folded = {id.lower(): id for id in catalog.by_id}

    def __contains__(self, model: str) -> bool:
        return model in self._catalog.by_id

    def known_as(self, name: str) -> str:
        """Return the id of the card spelled like the whole name or without its provider; else the name unchanged."""
        name = name.strip()
        short = model_name(name)
        # Meta's own repositories say Meta-Llama where others say Llama.
        for spelled in (name.lower(), short, short.removeprefix("meta-")):
            if spelled in self._folded:
                return self._folded[spelled]
        return ALIASES.get(short) or name

    def token_factor(self, model: str) -> float:
        """Return a model's own tokens per cl100k token; 1 for a model without a card."""
        card = self._catalog.by_id.get(model)
        return card.token_factor if card is not None else 1.0


def check_model(name: str, where: str) -> str:
    """Return a model's id if a card could have it. Raises AssetError."""
    if not name.isprintable() or not name or re.search(r"[\s,]", name) or len(name) > 200:
        raise AssetError(f"{where}: model {name[:60]!r}: expected 1 to 200 characters, no space, no comma; rename it")
    return name


def set_name(text: str, mend: str = "rename the folder") -> str:
    """Turn a text into an anchor set's name. Raises UsageError when a bundled set has it, or no character is left.

    mend: advice for the error.
    """
    name = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._").removesuffix("-final")[:64]
    if not is_set_name(name):
        raise UsageError(
            f"{text!r}: no name for an anchor set, which is letters, digits and . _ -, and not {FEEDBACK!r}; {mend}"
        )
    if name in {ASKED, *(one.name for one in usable_anchor_sets() if not one.own)}:
        raise UsageError(f"{text!r}: an anchor set cannot be called {name!r}, which is a bundled one's; {mend}")
    return name


def is_set_name(name: object) -> bool:
    """Return whether an anchor set may have this name: safe in a file's name, and not the user's feedback."""
    return isinstance(name, str) and _SET.fullmatch(name) is not None and name != FEEDBACK
