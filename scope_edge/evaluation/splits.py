"""The sets to evaluate, and the queries and models that a seed holds out: by hash, so that the same data gives the same split."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.errors import UsageError
from scope_edge.fingerprinting.importing.routing_data import QUERIES, is_labelled
from scope_edge.training.dataset import Source, held_out

if TYPE_CHECKING:
    from scope_edge.policy.costs import Bools
    from scope_edge.training.dataset import Pooled, PooledReading

QUERY_SHARE, MODEL_SHARE = 0.5, 1 / 3


def sources_of(data: Sequence[Path], test: Sequence[Path] = ()) -> tuple[Source, ...]:
    """Return the sets in these folders. A folder is a set or contains sets; `test` ones add to the set of their name.

    One `test` set beside one `data` set belongs to it whatever its name. Raises UsageError for a folder without labelled
    queries, a name that stands for two sets, or a test set without a set of its name.
    """
    known, tests = _sets(data), _sets(test)
    if len(known) == len(tests) == 1:
        tests = dict(zip(known, tests.values(), strict=True))
    stranger = next((name for name in tests if name not in known), None)
    if stranger is not None:
        raise UsageError(f"{tests[stranger]}: belongs to none of the sets {', '.join(known)}; rename the folder")
    return tuple(Source(name, (path, *([tests[name]] if name in tests else []))) for name, path in known.items())


def _sets(folders: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in folders:
        inside = [folder] if is_labelled(folder) else sorted(path.parent for path in folder.glob(f"*/{QUERIES}"))
        if not inside:
            raise UsageError(f"{folder}: no labelled queries there (no {QUERIES}); docs/evaluation.md shows the format")
        for one in inside:
            name = one.resolve().name
            if name in found:
                raise UsageError(f"{one}: there is another set {name!r} ({found[name]}); rename one of the folders")
            found[name] = one
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """One split of a table.

    Attributes:
        scored: (n,) queries that are scored and teach nothing. taught: (n,) training queries.
        unseen: (models,) models that teach the bank nothing and are known by their anchors alone.
    """

    seed: int
    scored: Bools
    taught: Bools
    unseen: Bools

    def limited(self, limit: int) -> Split:
        """Keep at most `limit` scored queries, drawn by the seed; the others are unused."""
        scored = np.flatnonzero(self.scored)
        kept = np.zeros(len(self.scored), bool)
        kept[np.random.default_rng(self.seed).permutation(scored)[:limit]] = True
        return replace(self, scored=kept)


def split(data: Pooled, seed: int, unseen: Collection[str] | None = None) -> Split:
    """Hold out half of the query families, and a third of the candidates or the named ones, by hash.

    Raises UsageError for a name without an outcome in the data.
    """
    # A group's name begins with its set's; equal texts of two sets are one group and stay together.
    scored = held_out(data.groups.tolist(), seed, QUERY_SHARE)
    if unseen is None:
        models = held_out([f"models:{model}" for model in data.models], seed, MODEL_SHARE) & ~data.base
    else:
        stranger = next((model for model in unseen if model not in set(data.models.tolist())), None)
        if stranger is not None:
            raise UsageError(f"{stranger} has no outcome in the data; its models are {', '.join(data.models)}")
        models = np.isin(data.models, sorted(unseen))
    return Split(seed, scored, ~scored, models)


def split_by_folder(reading: PooledReading, unseen: Collection[str] = ()) -> Split:
    """Hold out the queries and models that are in the test folders only, and the named models.

    A training query with the text of a scored one teaches nothing. Raises UsageError if nothing is left to score.
    """
    data = reading.data
    scored = ~reading.first
    if not scored.any():
        raise UsageError("the test folders hold no query that is not in the data folders: nothing could be scored")
    copies = np.isin(data.texts, data.texts[scored]) & ~scored
    models = ~np.isin(data.models, sorted(reading.first_models)) | np.isin(data.models, sorted(unseen))
    return Split(0, scored, ~scored & ~copies, models & ~data.base)
