"""Anchors with text, and what models did on them, out of the datasets that the SCOPE paper published.

A dataset is a table with a row per question and model. Of its splits only `anchor` is read: the others are what routers are
scored on. Questions are placed on our map, so that a model measured on them is known to the prior as well, and their text
lets an estimator be shown them. Outcomes that are not known stay missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from scope_edge import assets
from scope_edge.anchors import AnchorSet, set_body
from scope_edge.errors import AssetError, UsageError
from scope_edge.estimator.tables import ENDINGS, Row, read_rows
from scope_edge.fingerprints import OWN_FINGERPRINTS, OWN_SETS, Fingerprint, fingerprints_body, usable_anchor_sets
from scope_edge.importing.naming import Cards, model_name, set_name
from scope_edge.importing.outcomes import Imported, Tally
from scope_edge.packs import write_pack
from scope_edge.placing import Question, place
from scope_edge.remote import HubRepo, Progress, discard, fetch, is_hub_id, look_up

# The paper's: 13 models, and 5 more that its estimator had not seen.
DATASETS = ("Cooolder/SCOPE-60K-final", "Cooolder/SCOPE-60K-OOD-final")
PAPER_MODELS = "Cooolder/SCOPE"
_SPLIT = re.compile(r"(?:^|[/_.-])anchors?(?:[/_.-]|$)", re.IGNORECASE)


def is_paper_model(source: str) -> bool:
    """Whether a source is one of the hub ids of the paper's estimators, SCOPE and its siblings."""
    return is_hub_id(source) and source.partition("@")[0].startswith(PAPER_MODELS)


def import_anchors(
    source: str, cards: Cards, progress: Progress | None = None, *, offline: str | None = None
) -> Imported:
    """Import the anchors of a dataset: a folder, or a hub id (OWNER/NAME or OWNER/NAME@REVISION).

    offline: what forbids a download; None = nothing does. Imported again, it replaces what it brought before.

    Raises UsageError (no such source), AssetError (no anchor split, a table that cannot be read or lacks a column, a disk
    that cannot be written), and what `look_up` and `fetch` raise.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return _imported(_local_rows(folder), set_name(folder.resolve().name), str(folder), None, cards, progress)
    if not is_hub_id(source):
        raise UsageError(f"{source}: no such folder, and not a hub id (OWNER/NAME, or OWNER/NAME@REVISION)")
    repo = look_up(source, "dataset", offline=offline)
    paths = _anchor_files([file.path for file in repo.files], repo.id)
    rows = read_rows(fetch(repo, paths, progress), paths)
    imported = _imported(rows, set_name(repo.id.partition("/")[2]), repo.id, repo, cards, progress)
    discard(repo)
    return imported


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


def _imported(
    rows: list[Row], name: str, source: str, repo: HubRepo | None, cards: Cards, progress: Progress | None
) -> Imported:
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
    prints = _fingerprints(rows, anchors, cards)
    files.append(assets.user_data_dir() / OWN_FINGERPRINTS / f"{name}.pack")
    write_pack(files[-1], "fingerprints", {**fingerprints_body({anchors.name: prints}), **about})
    known = sum(int(np.isfinite(one.correct).sum()) for one in prints)
    return Imported(
        source=source,
        anchor_set=anchors.name,
        joined=joined,
        anchors=len(anchors),
        models=tuple(one.model for one in prints if one.model in cards),
        strangers=tuple(one.model for one in prints if one.model not in cards),
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


def _fingerprints(rows: Sequence[Row], anchors: AnchorSet, cards: Cards) -> list[Fingerprint]:
    """One a model, in the table's order. Repeated measurements of a pair are averaged."""
    at = {id.partition("/")[2]: i for i, id in enumerate(anchors.ids)}
    tally = Tally(len(anchors))
    for row in rows:
        tally.add(cards.known_as(model_name(row.model)), at[row.id], row.correct, row.tokens)
    found: list[Fingerprint] = []
    for model in tally.models:
        correct, tokens = tally.of(model)
        # Counted in the model's own tokens; fingerprints count cl100k, and a card says how many its own are worth.
        found.append(Fingerprint(model, anchors, correct, tokens / cards.token_factor(model)))
    return found
