"""Outcomes gathered by model and question, whatever the format; and what an import came to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.errors import AssetError, UsageError
from scope_edge.estimation.anchors import set_body
from scope_edge.estimation.fingerprints import OWN_SETS, Fingerprint, usable_anchor_sets
from scope_edge.estimation.refit import place
from scope_edge.fingerprinting.importing.naming import Cards
from scope_edge.fingerprinting.run import save_fingerprint
from scope_edge.storage import assets
from scope_edge.storage.packs import write_pack

if TYPE_CHECKING:
    from scope_edge.estimation.anchors import AnchorSet
    from scope_edge.estimation.refit import PlacedQuestion
    from scope_edge.types import Floats

# Models x questions; 32 bytes each while they are gathered.
MAX_CELLS = 4_000_000


class Tally:
    """What models did on a number of questions. Repeated measurements of a pair are averaged over what each knew."""

    def __init__(self, questions: int) -> None:
        self._n = questions
        self._rows: dict[str, Floats] = {}
        self.repeated = 0

    @property
    def models(self) -> tuple[str, ...]:
        """In the order in which they came."""
        return tuple(self._rows)

    def add(self, model: str, question: int, correct: float | None, tokens: float | None) -> None:
        """One measurement; None = not known. Raises AssetError when there are too many models for so many questions."""
        row = self._rows.get(model)
        if row is None:
            if (len(self._rows) + 1) * self._n > MAX_CELLS:
                raise AssetError(f"more than {MAX_CELLS} pairs of model and question; import fewer models or questions")
            row = self._rows[model] = np.zeros((4, self._n))
        self.repeated += bool(correct is not None and row[1, question])
        for at, value in ((0, correct), (2, tokens)):
            if value is not None:
                row[at, question] += value
                row[at + 1, question] += 1

    def of(self, model: str) -> tuple[Floats, Floats]:
        """A model's (correct, tokens), each (questions,); NaN = missing."""
        row = self._rows[model]
        with np.errstate(invalid="ignore"):
            correct, tokens = (np.where(row[at + 1] > 0, row[at] / row[at + 1], np.nan) for at in (0, 2))
        return correct, tokens

    def pairs(self) -> Floats:
        """(questions,) how many pairs of models each tells apart, one right and one wrong."""
        right, known = np.zeros(self._n), np.zeros(self._n)
        for model in self._rows:
            correct, _ = self.of(model)
            right += np.nan_to_num(correct)
            known += ~np.isnan(correct)
        return right * (known - right)


@dataclass(frozen=True, slots=True)
class Material:
    """What a format gave: questions with text, outcomes on them, and what was left out (reason -> how many)."""

    source: str
    questions: tuple[PlacedQuestion, ...]
    tally: Tally
    dropped: Counter[str]


def most_telling(categories: Sequence[str], pairs: Floats) -> list[int]:
    """Every question's row: categories take turns, each giving the question that tells most pairs of models apart.

    Where outcomes tell nothing (one model, or all alike) that is the questions evenly by category, in their order.
    """
    by_worth = sorted(range(len(categories)), key=lambda i: (-pairs[i], i))
    turns: Counter[str] = Counter()
    turn = {}
    for i in by_worth:
        turn[i] = turns[categories[i]]
        turns[categories[i]] += 1
    return sorted(by_worth, key=lambda i: turn[i])


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of an import.

    Attributes:
        anchor_set: its name; `joined` says whether it was there already. anchors: in it.
        models: ids of cards that now have outcomes on it. strangers: models without a card, under the source's name.
        outcomes, missing: cells of the table models x anchors that are known and that are not.
        files: what was written. dropped: what was left out, reason -> how many.
    """

    source: str
    anchor_set: str
    joined: bool
    anchors: int
    models: tuple[str, ...]
    strangers: tuple[str, ...]
    outcomes: int
    missing: int
    files: tuple[Path, ...]
    dropped: Mapping[str, int] = field(default_factory=dict)


# Imported questions become an anchor set of the user's, imported outcomes fingerprints on it.

# Anchors in one set: each takes about 2 kB on the disk, and a few milliseconds to be placed.
MAX_ANCHORS = 20_000
Progress = Callable[[str, int, int], None]


def keep(
    material: Material, cards: Cards, name: str, limit: int | None = None, progress: Progress | None = None
) -> Imported:
    """Write the questions as anchor set `name`, the most telling first, and a fingerprint for every model.

    limit: anchors at most. Imported again it replaces the outcomes; the questions must be the same ones.
    Raises UsageError (too many questions, another set of that name), AssetError (nothing usable, a full disk).
    """
    there = next((one for one in usable_anchor_sets() if one.name == name), None)
    if there is not None:
        chosen = _same_questions(there, material, limit)
    else:
        chosen = most_telling([one.category for one in material.questions], material.tally.pairs())[:limit]
    if len(chosen) > MAX_ANCHORS:
        raise UsageError(f"{material.source}: {len(chosen)} questions; `--limit {MAX_ANCHORS}` takes as many as can be")
    questions = [material.questions[i] for i in chosen]
    anchors, files = there, []
    if anchors is None:
        anchors = place(name, questions, progress, own=True)
        files.append(assets.user_data_dir() / OWN_SETS / f"{name}.pack")
        write_pack(files[-1], "anchor-sets", {"sets": [set_body(anchors)], "source": material.source})
    known: dict[str, int] = {}
    dropped = material.dropped.copy()
    dropped["questions beyond --limit"] = len(material.questions) - len(chosen)
    for model in material.tally.models:
        correct, tokens = (column[chosen] for column in material.tally.of(model))
        count = int(np.isfinite(correct).sum())
        if not count:
            dropped["models without an outcome on the anchors"] += 1
            continue
        known[model] = count
        one = Fingerprint(model, anchors, correct, tokens)
        files.append(save_fingerprint(one, {"source": material.source}, "scope-edge import"))
    return Imported(
        source=material.source,
        anchor_set=name,
        joined=there is not None,
        anchors=len(anchors),
        models=tuple(model for model in known if model in cards),
        strangers=tuple(model for model in known if model not in cards),
        outcomes=sum(known.values()),
        missing=len(known) * len(anchors) - sum(known.values()),
        files=tuple(files),
        dropped={reason: n for reason, n in dropped.items() if n},
    )


def _same_questions(there: AnchorSet, material: Material, limit: int | None) -> list[int]:
    """The rows of the set's questions, in its order: new outcomes do not choose anew. Raises UsageError when they differ."""
    at = {(f"{there.name}/{one.id}", one.text): row for row, one in enumerate(material.questions)}
    rows = [at.get(pair) for pair in zip(there.ids, there.texts, strict=False)]
    found = [row for row in rows if row is not None]
    wanted = len(material.questions) if limit is None else min(limit, len(material.questions))
    if not len(found) == len(there) == wanted:
        raise UsageError(
            f"{material.source}: there is another anchor set {there.name!r}, of other questions; give another --name"
        )
    return found
