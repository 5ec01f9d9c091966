"""What a seed holds out. A fixed rule on hashes, not a draw, so that anybody gets the same split from the same data."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.errors import UsageError
from scope_edge.fingerprinting.importing.routing_data import QUERIES, is_labelled
from scope_edge.training.dataset import Source, held_out

# Which folders are evaluated: sets of labelled queries, and folders that hold further ones back for scoring.


def sources_of(data: Sequence[Path], test: Sequence[Path] = ()) -> tuple[Source, ...]:
    """The sets in these folders. A folder is a set, or holds sets as folders; `test` ones add to the set of their name.

    One `test` set beside one `data` set belongs to it whatever it is called. Raises UsageError for a folder without
    labelled queries, a name that stands for two sets, or a test set that belongs to none.
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


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.training.dataset import Pooled, PooledReading

    Bools = NDArray[np.bool_]

QUERY_SHARE, MODEL_SHARE = 0.5, 1 / 3


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """One split of a table.

    Attributes:
        seed: its number. scored: (n,) queries that are scored and teach nothing; all others are training material.
        unseen: (models,) models that teach the bank nothing and are known by their anchors alone.
    """

    seed: int
    scored: Bools
    taught: Bools
    unseen: Bools

    def limited(self, limit: int) -> Split:
        """With at most so many scored queries, drawn by the seed; the others are not used at all."""
        scored = np.flatnonzero(self.scored)
        kept = np.zeros(len(self.scored), bool)
        kept[np.random.default_rng(self.seed).permutation(scored)[:limit]] = True
        return replace(self, scored=kept)


def split(data: Pooled, seed: int, unseen: Collection[str] | None = None) -> Split:
    """Half of the query families and a third of the candidates, or the named ones, by hash.

    Raises UsageError for a name that has no outcome in the data.
    """
    # A group's name begins with its set's: equal texts of two sets are of one group, and fall together.
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
    """What stands in the test folders only is scored; models that stand there only are unseen, and so are the named ones.

    A query of the data folders with the text of one that is scored teaches nothing either. Raises UsageError when
    nothing is left to score.
    """
    data = reading.data
    scored = ~reading.first
    if not scored.any():
        raise UsageError("the test folders hold no query that is not in the data folders: nothing could be scored")
    copies = np.isin(data.texts, data.texts[scored]) & ~scored
    models = ~np.isin(data.models, sorted(reading.first_models)) | np.isin(data.models, sorted(unseen))
    return Split(0, scored, ~scored & ~copies, models & ~data.base)
