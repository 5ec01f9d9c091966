"""What all import formats share: read a cell, gather outcomes by model and question, and save them as fingerprints.

An empty cell is a missing value; a cell that cannot be read is an error.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.encoding.encoder import Encoder
from scope_edge.errors import AssetError, UsageError
from scope_edge.estimation.anchors import set_body
from scope_edge.estimation.fingerprints import OWN_SETS, Fingerprint, usable_anchor_sets
from scope_edge.estimation.refit import place
from scope_edge.fingerprinting.importing.naming import Cards
from scope_edge.fingerprinting.run import save_fingerprint
from scope_edge.storage import assets
from scope_edge.storage.packs import write_pack
from scope_edge.types import Query

if TYPE_CHECKING:
    from scope_edge.estimation.anchors import AnchorSet
    from scope_edge.estimation.refit import PlacedQuestion
    from scope_edge.types import Floats

# The longest line of a text file, in characters.
MAX_LINE = 2**20
# Models x questions; 32 bytes each while they are gathered.
MAX_CELLS = 4_000_000
# Anchors in one set: each takes about 3 kB on the disk, and a few milliseconds to be placed.
MAX_ANCHORS = 20_000
Progress = Callable[[str, int, int], None]
_BOOLEANS = {"true": 1.0, "yes": 1.0, "1": 1.0, "1.0": 1.0, "false": 0.0, "no": 0.0, "0": 0.0, "0.0": 0.0}


def text_of(value: object, column: str, where: str) -> str:
    """Return text, or a whole number as text. Raises AssetError for anything else and for blank text."""
    text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if not text.strip():
        raise AssetError(f"{where}: {column} is {str(value)[:60]!r}, expected text; give the dataset's own files")
    return text


def correct_of(value: object, column: str, where: str) -> float | None:
    """Return a share in [0, 1]; None for an empty cell. Raises AssetError for anything else."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and value.strip().lower() in _BOOLEANS:
        return _BOOLEANS[value.strip().lower()]
    share = number_of(value, column, where)
    if share is not None and not 0 <= share <= 1:
        raise AssetError(f"{where}: {column} is {share:g}, expected true, false or a share from 0 to 1")
    return share


def number_of(value: object, column: str, where: str) -> float | None:
    """Return a number; None for an empty cell or NaN. Raises AssetError for anything else."""
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "null", "none", "nan")):
        return None
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            number = float(value)
            if not math.isinf(number):
                return None if math.isnan(number) else number
    raise AssetError(f"{where}: {column} is {str(value)[:60]!r}, expected a number or nothing")


def outcome_of(cells: Mapping[str, object], correct: str, tokens: str, where: str) -> tuple[float | None, float | None]:
    """Return the outcome and tokens (above 0) in two columns; None = missing. Raises AssetError.

    An answer of no tokens is missing, not wrong; if it is correct, its tokens were not counted.
    """
    share, count = correct_of(cells.get(correct), correct, where), number_of(cells.get(tokens), tokens, where)
    if count is not None and count > 0:
        return share, count
    return ((share or None) if count == 0 else share), None


def lines_of(path: Path, most: int, longest: int = MAX_LINE) -> Iterator[str]:
    """Yield the lines of a file, unpacked if it is gzip; at most `most` characters in all, `longest` in one.

    Raises AssetError (unreadable, too large); ValueError, EOFError or zlib.error where its content is damaged.
    """
    try:
        total = 0
        with (
            gzip.open(path, "rt", encoding="utf-8-sig", newline="")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8-sig", newline="")
        ) as file:
            while line := file.readline(longest + 1):
                total += len(line)
                if len(line) > longest or total > most:
                    raise AssetError(f"{path}: a line over {longest} characters, or over {most} in all; split the file")
                yield line
    except gzip.BadGzipFile as error:
        raise unreadable(path, error) from error
    except OSError as error:
        raise AssetError(f"{path}: cannot be read ({error.strerror or error}); is this the right one?") from error


def unreadable(path: Path, error: Exception) -> AssetError:
    """Return the error for damaged content."""
    return AssetError(f"{path}: cannot be read ({' '.join(str(error).split())[:200]}); get a fresh copy")


class Tally:
    """What models did on a number of questions. Repeated measurements of a pair are averaged over the known values."""

    def __init__(self, questions: int) -> None:
        self._n = questions
        self._rows: dict[str, Floats] = {}
        self.repeated = 0

    @property
    def models(self) -> tuple[str, ...]:
        """The models in the order in which they were added."""
        return tuple(self._rows)

    def add(self, model: str, question: int, correct: float | None, tokens: float | None) -> None:
        """Add one measurement; None = unknown. Raises AssetError for too many pairs of model and question."""
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
        """Return a model's (correct, tokens), each (questions,); NaN = missing."""
        row = self._rows[model]
        with np.errstate(invalid="ignore"):
            correct, tokens = (np.where(row[at + 1] > 0, row[at] / row[at + 1], np.nan) for at in (0, 2))
        return correct, tokens

    def pairs(self) -> Floats:
        """Return, per question, how many pairs of models it tells apart: one right and one wrong."""
        correct = np.array([self.of(model)[0] for model in self._rows]).reshape(-1, self._n)
        right, known = np.nansum(correct, axis=0), np.isfinite(correct).sum(axis=0)
        return np.asarray(right * (known - right), np.float64)


@dataclass(frozen=True, slots=True)
class Material:
    """The content of a source: questions with text, outcomes on them, and what was left out (reason -> how many)."""

    source: str
    questions: tuple[PlacedQuestion, ...]
    tally: Tally
    dropped: Counter[str]


@dataclass(frozen=True, slots=True)
class Imported:
    """The result of an import.

    Attributes:
        anchor_set: its name; `joined` says whether it existed before. anchors: in it.
        models: ids of cards that now have outcomes on it. strangers: models without a card, under the source's name.
        outcomes, missing: known and unknown cells of the table models x anchors.
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

    @classmethod
    def of(
        cls,
        source: str,
        fingerprints: Sequence[Fingerprint],
        cards: Cards,
        *,
        anchors: AnchorSet,
        joined: bool,
        files: Sequence[Path],
        dropped: Mapping[str, int],
    ) -> Imported:
        """Count the outcomes of `fingerprints`, all of them on `anchors`."""
        known = sum(int(np.isfinite(one.correct).sum()) for one in fingerprints)
        return cls(
            source=source,
            anchor_set=anchors.name,
            joined=joined,
            anchors=len(anchors),
            models=tuple(one.model for one in fingerprints if one.model in cards),
            strangers=tuple(one.model for one in fingerprints if one.model not in cards),
            outcomes=known,
            missing=len(fingerprints) * len(anchors) - known,
            files=tuple(files),
            dropped={reason: n for reason, n in dropped.items() if n},
        )


def save_anchor_set(anchors: AnchorSet, about: Mapping[str, str]) -> Path:
    """Write a set as one of the user's, with multilingual vectors if it has texts; return its file. Raises AssetError."""
    if lacks_multilingual(anchors):
        encoded = Encoder.load().encode_many(map(Query, anchors.texts))
        anchors = replace(anchors, multilingual=np.array([one.multilingual for one in encoded]))
    path = assets.user_data_dir() / OWN_SETS / f"{anchors.name}.pack"
    write_pack(path, "anchor-sets", {"sets": [set_body(anchors)], **about})
    return path


def lacks_multilingual(anchors: AnchorSet) -> bool:
    """Return whether a set has no multilingual vectors, but the texts to make them of."""
    return anchors.multilingual is None and bool(anchors.texts)


def keep(
    material: Material, cards: Cards, name: str, limit: int | None = None, progress: Progress | None = None
) -> Imported:
    """Write the questions as anchor set `name`, the most informative first, and a fingerprint for every model.

    limit: the maximum number of anchors. A second import replaces the outcomes; the questions must be the same.
    Raises UsageError (too many questions, another set of that name), AssetError (nothing usable, a full disk).
    """
    anchors = next((one for one in usable_anchor_sets() if one.name == name), None)
    joined = anchors is not None
    if anchors is not None:
        chosen = _same_questions(anchors, material, limit)
    else:
        categories = [one.category for one in material.questions]
        drawn = _fair_draw([one.id for one in material.questions], categories, limit)
        pairs = material.tally.pairs()
        order = most_informative([categories[i] for i in drawn], pairs[drawn])
        chosen = [drawn[i] for i in order]
    if len(chosen) > MAX_ANCHORS:
        raise UsageError(f"{material.source}: {len(chosen)} questions; `--limit {MAX_ANCHORS}` takes as many as can be")
    files: list[Path] = []
    about = {"source": material.source}
    if anchors is not None and anchors.own and lacks_multilingual(anchors):
        files.append(save_anchor_set(anchors, about))
    if anchors is None:
        anchors = place(name, [material.questions[i] for i in chosen], progress, own=True)
        files.append(save_anchor_set(anchors, about))
    dropped = material.dropped.copy()
    dropped["questions beyond --limit"] = len(material.questions) - len(chosen)
    kept: list[Fingerprint] = []
    for model in material.tally.models:
        correct, tokens = (column[chosen] for column in material.tally.of(model))
        if not np.isfinite(correct).any():
            dropped["models without an outcome on the anchors"] += 1
            continue
        kept.append(Fingerprint(model, anchors, correct, tokens))
        files.append(save_fingerprint(kept[-1], about, "scope-edge import"))
    return Imported.of(material.source, kept, cards, anchors=anchors, joined=joined, files=files, dropped=dropped)


def _fair_draw(ids: Sequence[str], categories: Sequence[str], limit: int | None) -> list[int]:
    """Return `limit` questions, drawn by hash of their ids; categories take turns.

    Questions on which models disagree are no fair sample of what is asked: a model judged by them alone seems worse than it is.
    """
    by_hash = sorted(range(len(ids)), key=lambda i: hashlib.sha256(ids[i].encode("utf-8", "surrogatepass")).digest())
    return sorted(_in_turns(by_hash, categories)[:limit])


def most_informative(categories: Sequence[str], pairs: Floats) -> list[int]:
    """Order all questions: categories take turns, each giving the question that tells most pairs of models apart.

    Where no question tells models apart (one model, or all alike), questions come evenly by category, in their order.
    """
    return _in_turns(sorted(range(len(categories)), key=lambda i: (-pairs[i], i)), categories)


def _in_turns(order: Sequence[int], categories: Sequence[str]) -> list[int]:
    """Return the questions with their categories taking turns, each in the given order."""
    turns: Counter[str] = Counter()
    turn = {}
    for i in order:
        turn[i] = turns[categories[i]]
        turns[categories[i]] += 1
    return sorted(order, key=lambda i: turn[i])


def _same_questions(anchors: AnchorSet, material: Material, limit: int | None) -> list[int]:
    """Return the rows of the set's questions, in its order. Raises UsageError when the questions differ."""
    at = {(f"{anchors.name}/{one.id}", one.text): row for row, one in enumerate(material.questions)}
    rows = [at.get(pair) for pair in zip(anchors.ids, anchors.texts, strict=False)]
    found = [row for row in rows if row is not None]
    wanted = len(material.questions) if limit is None else min(limit, len(material.questions))
    if not len(found) == len(anchors) == wanted:
        raise UsageError(
            f"{material.source}: another anchor set {anchors.name!r}, of other questions, exists; give another --name"
        )
    return found
