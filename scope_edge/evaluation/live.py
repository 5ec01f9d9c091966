"""The real pipeline on a sample of the scored queries: how long a decision takes, and how stable it is."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.encoding.nearest import build_index, pack_vectors
from scope_edge.estimation.anchors import Bank
from scope_edge.evaluation.replay import prepare
from scope_edge.evaluation.report import Stability
from scope_edge.pipeline import Pipeline
from scope_edge.policy.policy import PoolPolicy
from scope_edge.types import Preference, Query

if TYPE_CHECKING:
    from scope_edge.encoding.encoder import Encoder
    from scope_edge.evaluation.predict import SplitPredictions
    from scope_edge.training.dataset import Progress
    from scope_edge.types import Decision, ModelCard

SAMPLE = 100
ALPHA = 0.5
_TYPOS = 0.03  # of the letters


def live_flow(cards: Sequence[ModelCard], one: SplitPredictions, encoder: Encoder, coverage: float) -> Pipeline:
    """Return the pipeline of a pool with what this split taught, built as `factory.py` does."""
    material, bank = one.part.material, one.part.bank
    if bank is None:
        index = build_index(pack_vectors(material.vectors), "exact", cache_dir=None, identity="")
        bank = Bank(material.ids.tolist(), material.categories.tolist(), index)
    return Pipeline(
        encoder=encoder,
        bank=bank,
        estimator=one.part.estimator(cards, one.anchors, coverage),
        policy=PoolPolicy(cards, prepare(cards, one)),
    )


def measure_live(
    cards: Sequence[ModelCard],
    one: SplitPredictions,
    encoder: Encoder,
    coverage: float,
    texts: Sequence[str],
    progress: Progress,
) -> tuple[Mapping[str, float], tuple[Stability, ...]]:
    """Route a sample of the texts, as they are and edited.

    Returns milliseconds (the medians "whole" and, without encoding, "decide", and "decide_p95") and stability by edit.
    """
    flow = live_flow(cards, one, encoder, coverage)
    chosen = random.Random(0).sample(list(texts), min(SAMPLE, len(texts)))
    preference = Preference(alpha=ALPHA)
    before: list[Decision] = []
    decide: list[float] = []
    whole: list[float] = []
    for done, text in enumerate(chosen):
        progress("routing", done, 3 * len(chosen))
        start = perf_counter()
        decision = flow.route(Query(text), preference)
        whole.append((perf_counter() - start) * 1e3)
        decide.append(whole[-1] - decision.timings_ms["encode"])
        before.append(decision)
    latency = {
        "whole": float(np.median(whole)),
        "decide": float(np.median(decide)),
        "decide_p95": float(np.quantile(decide, 0.95)),
    }
    stability: list[Stability] = []
    for kind, edit in EDITS.items():
        generator = random.Random(0)
        after: list[Decision] = []
        for text in chosen:
            progress("routing", len(chosen) * (1 + len(stability)) + len(after), 3 * len(chosen))
            after.append(flow.route(Query(edit(text, generator)), preference))
        stability.append(_compared(kind, before, after))
    return latency, tuple(stability)


def _compared(kind: str, before: Sequence[Decision], after: Sequence[Decision]) -> Stability:
    same, moved = [], []
    for a, b in zip(before, after, strict=True):
        same.append(a.choice == b.choice)
        was = {one.model: one.p_correct for one in a.candidates}
        moved += [
            abs(p - q) for one in b.candidates if (p := one.p_correct) is not None and (q := was[one.model]) is not None
        ]
    return Stability(kind, len(same), float(np.mean(same)), float(np.mean(moved)))


def misspelled(text: str, generator: random.Random) -> str:
    """Leave out, double or swap some letters."""
    letters = list(text)
    for i, letter in enumerate(letters):
        if letter.isalpha() and generator.random() < _TYPOS:
            kind = generator.randrange(3)
            following = letters[i + 1] if i + 1 < len(letters) and letters[i + 1].isalpha() else ""
            if kind == 2 and following:
                letters[i], letters[i + 1] = following, letter
            else:
                letters[i] = "" if kind == 0 else letter * 2
    return "".join(letters)


def respaced(text: str, generator: random.Random) -> str:
    """Change the case, and the blanks between words."""
    cased = generator.choice((str.lower, str.upper, str.swapcase))(text)
    return " " + "".join(char * generator.randrange(1, 3) if char == " " else char for char in cased) + " "


EDITS: Mapping[str, Callable[[str, random.Random], str]] = {"typos": misspelled, "case and blanks": respaced}
