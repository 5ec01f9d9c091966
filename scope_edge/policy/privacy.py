"""The privacy check: e-mail addresses and probable keys must not leave the machine unasked.

The setting `privacy = "patterns"` keeps a query that contains one on the device, whatever its preference, and says so. The
check goes by form alone: a secret without a telling form (a name, a diagnosis) is not found; `--local-only` is for those.
Keys are recognized by their makers' prefixes, and by their look: a long unbroken run of letters and digits, mixed unlike
words.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

from scope_edge.types import Preference, Query

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}(?![\w-])")
# Prefixes that makers give to keys, and the header of private key blocks.
_NAMED_KEY = re.compile(
    r"\b(?:sk|pk|rk)[-_](?:[A-Za-z0-9]+[-_])*[A-Za-z0-9]{16,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}"
    r"|\bglpat-[\w-]{16,}|\bhf_[A-Za-z0-9]{20,}|\bxox[abeoprs]-[\w-]{10,}|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[\w-]{30,}"
    r"|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_RUN = re.compile(r"[A-Za-z0-9_+/=-]{24,512}")
# A run of hex digits has at most 4 bits a character, one of words in camel case hardly 4 and no digits in the middle.
_LEAST_BITS = 3.2
_LEAST_DIGITS = 3
_MADE_OF_WORDS = re.compile(r"[A-Za-z]{11,}|/[A-Za-z]{2,}/")


class PrivacyGuard:
    """Keeps queries that hold something private on the device: a `pipeline.PrivacyCheck`."""

    def check(self, query: Query, preference: Preference) -> tuple[Preference, tuple[str, ...]]:
        """Return the preference, with local_only if any text to be sent holds something private; and warnings."""
        texts = (query.text, query.system or "", *(text for _, text in query.history))
        found = private_parts(texts)
        if not found or preference.local_only:
            return preference, ()
        return replace(preference, local_only=True), (f"kept on the device: {' and '.join(found)} was found in it",)


def private_parts(texts: Iterable[str]) -> tuple[str, ...]:
    """Name the kinds of private parts in any of the texts; never the parts themselves."""
    texts = tuple(texts)
    kinds = {"an e-mail address": lambda text: _EMAIL.search(text) is not None, "what looks like a key": _holds_key}
    return tuple(kind for kind, holds in kinds.items() if any(map(holds, texts)))


def _holds_key(text: str) -> bool:
    return _NAMED_KEY.search(text) is not None or any(_random(run.group()) for run in _RUN.finditer(text))


def _random(run: str) -> bool:
    """Say whether a run of characters looks random: letters and several digits mixed, no long stretch of letters."""
    digits = sum(one.isdigit() for one in run)
    letters = sum(one.isalpha() for one in run)
    if digits < _LEAST_DIGITS or letters < _LEAST_DIGITS or _MADE_OF_WORDS.search(run):
        return False
    changes = sum(a.isdigit() != b.isdigit() for a, b in pairwise(run))
    # Entropy per character.
    bits = -sum(n / len(run) * math.log2(n / len(run)) for n in Counter(run).values())
    return changes >= 4 and bits >= _LEAST_BITS
