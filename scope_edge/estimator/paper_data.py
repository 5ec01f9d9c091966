"""Anchors with text, and what models did on them, out of the datasets that the SCOPE paper published.

A dataset is a table with a row per question and model. Of its splits only `anchor` is read: the others are what routers are
scored on. Questions are placed on our map, so that a model measured on them is known to the prior as well, and their text
lets an estimator be shown them. Outcomes that are not known stay missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scope_edge import assets
from scope_edge.anchors import AnchorSet, set_body
from scope_edge.catalog import load_catalog
from scope_edge.config import load_settings
from scope_edge.errors import AssetError, UsageError
from scope_edge.estimator.tables import ENDINGS, Row, read_rows
from scope_edge.fingerprints import OWN_FINGERPRINTS, OWN_SETS, Fingerprint, fingerprints_body, usable_anchor_sets
from scope_edge.packs import write_pack
from scope_edge.placing import Question, place
from scope_edge.remote import HubRepo, Progress, discard, fetch, is_hub_id, look_up

if TYPE_CHECKING:
    from scope_edge.catalog import Catalog
    from scope_edge.records import Floats

# The paper's: 13 models, and 5 more that its estimator had not seen.
DATASETS = ("Cooolder/SCOPE-60K-final", "Cooolder/SCOPE-60K-OOD-final")
PAPER_MODELS = "Cooolder/SCOPE"
# The dataset's spelling -> the card that is the same weights. Reviewed by hand against the ids the paper's own code calls
# them by at OpenRouter; what is not here and not spelled like a card has no card.
ALIASES: Mapping[str, str] = {
    "llama-3-3-70b": "llama-3.3-70b-instruct",  # meta-llama/llama-3.3-70b-instruct
    "llama-3-1-8b": "llama-3.1-8b-instruct",  # meta-llama/llama-3.1-8b-instruct
    "gemma-3-27b": "gemma-3-27b-it",  # google/gemma-3-27b-it
}
_SPLIT = re.compile(r"(?:^|[/_.-])anchors?(?:[/_.-]|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of one dataset.

    Attributes:
        anchor_set: its name; `joined` says whether it was there already. anchors: in it.
        models: ids of cards that now have outcomes on it. strangers: models without a card, under the dataset's name.
        outcomes, missing: cells of the table models x anchors that are known and that are not.
        files: what was written.
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


def is_paper_model(source: str) -> bool:
    """Whether a source is one of the hub ids of the paper's estimators, SCOPE and its siblings."""
    return is_hub_id(source) and source.partition("@")[0].startswith(PAPER_MODELS)


def import_anchors(source: str, progress: Progress | None = None) -> Imported:
    """Import the anchors of a dataset: a folder, or a hub id (OWNER/NAME or OWNER/NAME@REVISION).

    Imported again, it replaces what it brought before.

    Raises UsageError (no such source), AssetError (no anchor split, a table that cannot be read or lacks a column, a disk
    that cannot be written), and what `look_up` and `fetch` raise.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return _imported(_local_rows(folder), _set_name(folder.resolve().name), str(folder), None, progress)
    if not is_hub_id(source):
        raise UsageError(f"{source}: no such folder, and not a hub id (OWNER/NAME, or OWNER/NAME@REVISION)")
    repo = look_up(source, "dataset")
    paths = _anchor_files([file.path for file in repo.files], repo.id)
    rows = read_rows(fetch(repo, paths, progress), paths)
    imported = _imported(rows, _set_name(repo.id.partition("/")[2]), repo.id, repo, progress)
    discard(repo)
    return imported


def model_name(name: str) -> str:
    """A model as the dataset spells it, without provider and price class, in small letters."""
    return name.strip().lower().rpartition("/")[2].removesuffix(":free")


def _local_rows(folder: Path) -> list[Row]:
    try:
        found = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    except OSError as error:
        raise AssetError(f"{folder}: cannot be read ({error.strerror or error}); check its permissions") from error
    return read_rows(folder, _anchor_files(found, str(folder)))


def _anchor_files(paths: Iterable[str], where: str) -> list[str]:
    """The tables of the anchor split, all of the first kind there is. Raises AssetError."""
    named = sorted(path for path in paths if _SPLIT.search(path))
    for ending in ENDINGS:
        chosen = [path for path in named if path.endswith(ending)]
        if chosen:
            return chosen
    raise AssetError(
        f"{where}: has no split `anchor` (a file anchor*{', anchor*'.join(ENDINGS)}); is this the dataset?"
    )


def _set_name(text: str) -> str:
    name = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._").removesuffix("-final")[:64]
    if name in {one.name for one in usable_anchor_sets() if not one.own} or not name:
        raise UsageError(
            f"{text!r}: an anchor set cannot be called {name!r}, which is a bundled one's; rename the folder"
        )
    return name


def _imported(rows: list[Row], name: str, source: str, repo: HubRepo | None, progress: Progress | None) -> Imported:
    """Place the questions, write the set unless it is there, and the outcomes."""
    if not rows:
        raise AssetError(f"{source}: its anchor split is empty; is this the dataset?")
    questions = _questions(rows, source)
    anchors = _same_questions(questions, name)
    joined = anchors is not None
    about = {"source": source, "revision": repo.commit if repo else "", "licence": (repo.licence or "") if repo else ""}
    files: list[Path] = []
    if anchors is None:
        wanted = [Question(id, row.category, row.prompt) for id, row in questions.items()]
        anchors = place(name, wanted, progress, own=True)
        files.append(assets.user_data_dir() / OWN_SETS / f"{name}.pack")
        write_pack(files[-1], "anchor-sets", {"sets": [set_body(anchors)], **about})
    catalog = load_catalog(load_settings())
    prints = _fingerprints(rows, anchors, catalog)
    files.append(assets.user_data_dir() / OWN_FINGERPRINTS / f"{name}.pack")
    write_pack(files[-1], "fingerprints", {**fingerprints_body({anchors.name: prints}), **about})
    known = sum(int(np.isfinite(one.correct).sum()) for one in prints)
    return Imported(
        source=source,
        anchor_set=anchors.name,
        joined=joined,
        anchors=len(anchors),
        models=tuple(one.model for one in prints if one.model in catalog.by_id),
        strangers=tuple(one.model for one in prints if one.model not in catalog.by_id),
        outcomes=known,
        missing=len(prints) * len(anchors) - known,
        files=tuple(files),
    )


def _questions(rows: Sequence[Row], source: str) -> dict[str, Row]:
    """A row of each question, by id. Raises AssetError when one id stands for two texts."""
    found: dict[str, Row] = {}
    for row in rows:
        if found.setdefault(row.id, row).prompt != row.prompt:
            raise AssetError(f"{source}: id {row.id!r} stands for two different prompts; the table is not usable")
    return found


def _same_questions(questions: Mapping[str, Row], name: str) -> AnchorSet | None:
    """The user's other set that holds these very questions: models measured on one set can be compared."""
    for one in usable_anchor_sets():
        if one.own and one.name != name and len(one.texts) == len(one):
            texts = dict(zip((id.partition("/")[2] for id in one.ids), one.texts, strict=True))
            if all(texts.get(id) == row.prompt for id, row in questions.items()):
                return one
    return None


def _fingerprints(rows: Sequence[Row], anchors: AnchorSet, catalog: Catalog) -> list[Fingerprint]:
    """One a model, in the table's order. Repeated measurements of a pair are averaged."""
    at = {id.partition("/")[2]: i for i, id in enumerate(anchors.ids)}
    folded = {id.lower(): id for id in catalog.by_id}
    seen: dict[str, list[Row]] = {}
    for row in rows:
        name = model_name(row.model)
        seen.setdefault(folded.get(name) or ALIASES.get(name) or name, []).append(row)
    found: list[Fingerprint] = []
    for model, own in seen.items():
        # Counted in the model's own tokens; fingerprints count cl100k, and a card says how many its own are worth.
        card = catalog.by_id.get(model)
        factor = card.token_factor if card is not None else 1.0
        cells = [at[row.id] for row in own]
        correct = _averaged(cells, [row.correct for row in own], len(anchors))
        tokens = _averaged(cells, [row.tokens for row in own], len(anchors)) / factor
        found.append(Fingerprint(model, anchors, correct, tokens))
    return found


def _averaged(cells: Sequence[int], values: Sequence[float | None], n: int) -> Floats:
    """(n,) means of the known values of each cell; NaN where there is none."""
    known = [(cell, value) for cell, value in zip(cells, values, strict=True) if value is not None]
    where = np.array([cell for cell, _ in known], np.intp)
    totals = np.bincount(where, [value for _, value in known], minlength=n)
    counts = np.bincount(where, minlength=n)
    means: Floats = np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)
    return means
