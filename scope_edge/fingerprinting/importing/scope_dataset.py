"""Anchors and outcomes in the formats of the SCOPE paper: its published datasets, and `anchor_results.json`.

A dataset is a table with a row per question and model. Only its split `anchor` is read: routers are scored on the others.
Its questions are placed on the map, so that the IRT estimator knows a model measured on them too; an estimator model reads
their text. `anchor_results.json` is what the paper's reference implementation writes: one model's outcomes on anchors that
are installed already.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scope_edge.encoding.unicode import load_json
from scope_edge.errors import AssetError, MissingExtraError, UsageError
from scope_edge.estimation.anchors import AnchorSet
from scope_edge.estimation.fingerprints import OWN_FINGERPRINTS, Fingerprint, fingerprints_body, usable_anchor_sets
from scope_edge.estimation.refit import PlacedQuestion, place
from scope_edge.fingerprinting.importing.naming import Cards, check_model, model_name, set_name
from scope_edge.fingerprinting.importing.outcomes import (
    Imported,
    Tally,
    lacks_multilingual,
    lines_of,
    outcome_of,
    save_anchor_set,
    text_of,
    unreadable,
)
from scope_edge.fingerprinting.importing.share import KNOWN, is_known
from scope_edge.fingerprinting.run import save_fingerprint
from scope_edge.storage import assets
from scope_edge.storage.files import expand_user, read_whole
from scope_edge.storage.hub import HubRepo, Progress, discard, fetch, is_hub_id, look_up
from scope_edge.storage.packs import write_pack

# Table formats, the preferred first.
ENDINGS = (".parquet", ".jsonl", ".csv")
_COLUMNS = ("id", "prompt", "model_name", "is_correct", "category", "usage_completion_tokens")
# The paper's: 13 models, and 5 more that its estimator had not seen.
DATASETS = ("Cooolder/SCOPE-60K-final", "Cooolder/SCOPE-60K-OOD-final")
PAPER_MODELS = "Cooolder/SCOPE"
_SPLIT = re.compile(r"(?:^|[/_.-])anchors?(?:[/_.-]|$)", re.IGNORECASE)
RESULTS = "anchor_results.json"
MAX_RESULTS_BYTES = 2**28
# In one table. The paper's largest dataset has 60,000 rows in all.
MAX_ROWS, MAX_TEXT, MAX_LINE = 2_000_000, 2**29, 2**24
_BATCH = 1024


@dataclass(frozen=True, slots=True)
class Row:
    """One model's outcome on one question. correct in [0, 1], tokens > 0 of the model's own; None = unknown."""

    id: str
    prompt: str
    model: str
    correct: float | None
    category: str
    tokens: float | None


def is_paper_model(source: str) -> bool:
    """Return whether a source is a hub id of the paper's estimators, SCOPE and its siblings."""
    return is_hub_id(source) and source.partition("@")[0].startswith(PAPER_MODELS)


def import_anchors(
    source: str, cards: Cards, progress: Progress | None = None, *, offline: str | None = None
) -> Imported:
    """Import the anchors of a dataset: a folder, or a hub id (OWNER/NAME or OWNER/NAME@REVISION).

    offline: why downloads are forbidden; None = they are allowed. A second import replaces the first.

    Raises UsageError (no such source), AssetError (no anchor split, an unreadable table, a missing column, a disk that
    cannot be written), and the errors of `look_up` and `fetch`.
    """
    folder = expand_user(source)
    if folder.is_dir():
        rows = _read_rows(folder, _anchor_files(_files_in(folder), str(folder)))
        return _imported(rows, set_name(folder.resolve().name), str(folder), None, cards, progress)
    if not is_hub_id(source):
        raise UsageError(f"{source}: no such folder, and not a hub id (OWNER/NAME, or OWNER/NAME@REVISION)")
    repo = look_up(source, "dataset", offline=offline)
    paths = _anchor_files([file.path for file in repo.files], repo.id)
    rows = _read_rows(fetch(repo, paths, progress), paths)
    imported = _imported(rows, set_name(repo.id.partition("/")[2]), repo.id, repo, cards, progress)
    discard(repo)
    return imported


def _files_in(folder: Path) -> list[str]:
    try:
        return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    except OSError as error:
        raise AssetError(f"{folder}: cannot be read ({error.strerror or error}); check its permissions") from error


def _anchor_files(paths: Iterable[str], where: str) -> list[str]:
    """Return the tables of the anchor split, all of the most preferred format. Raises AssetError."""
    named = sorted(path for path in paths if _SPLIT.search(path))
    for ending in ENDINGS:
        chosen = [path for path in named if path.endswith(ending)]
        if chosen:
            return chosen
    raise AssetError(
        f"{where}: has no split `anchor` (a file anchor*{', anchor*'.join(ENDINGS)}); is this the dataset?"
    )


def _read_rows(folder: Path, paths: Iterable[str]) -> list[Row]:
    """Read the rows of tables, in order. Raises AssetError naming file and row, MissingExtraError (pyarrow)."""
    rows: list[Row] = []
    for path in (folder / name for name in paths):
        try:
            rows += [_row(cells, f"{path}, row {number}") for number, cells in enumerate(_cells(path), 1)]
        except OSError as error:
            raise AssetError(f"{path}: cannot be read ({error.strerror or error}); get a fresh copy") from error
        except (ValueError, RecursionError, csv.Error) as error:
            reason = " ".join(str(error).split())[:200]
            raise AssetError(f"{path}: not a readable table ({reason}); get a fresh copy") from error
    return rows


def _cells(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.suffix == ".parquet":
        yield from _parquet(path)
        return
    lines = lines_of(path, MAX_TEXT, MAX_LINE)
    if path.suffix == ".jsonl":
        yield from (load_json(line) for line in lines if line.strip())
    else:
        yield from csv.DictReader(lines)


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a Parquet file. Raises ValueError: damaged, or more rows or text than `MAX_ROWS` and `MAX_TEXT`."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(f'Parquet needs pyarrow ({error}); pip install "scope-edge[hub]"') from error
    try:
        # A text that repeats is stored once, and stays so in memory: a small file may stand for any amount of text.
        with pyarrow.parquet.ParquetFile(path, read_dictionary=list(_COLUMNS)) as table:
            columns = [name for name in _COLUMNS if name in table.schema_arrow.names]
            _check_parquet(table.metadata)
            left = MAX_TEXT
            for batch in table.iter_batches(_BATCH, columns=columns):
                for number in range(batch.num_rows):
                    row = {name: batch.column(name)[number].as_py() for name in columns}
                    left -= sum(len(cell) for cell in row.values() if isinstance(cell, str))
                    if left < 0:
                        raise ValueError(f"more than {MAX_TEXT} characters; split it")
                    yield row
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from error


def _check_parquet(metadata: Any) -> None:
    """Raise ValueError for a file that says it has too many rows, or too much in one group of them."""
    groups = [metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups)]
    if metadata.num_rows > MAX_ROWS or max(groups, default=0) > MAX_TEXT:
        raise ValueError(f"more than {MAX_ROWS} rows, or {MAX_TEXT} bytes in one group of rows; split it")


def _row(cells: object, where: str) -> Row:
    """Check a row's cells. Raises AssetError naming the first invalid one."""
    if not isinstance(cells, Mapping):
        raise AssetError(f"{where}: not a row with named columns; give the dataset's own files")
    missing = [name for name in _COLUMNS if name not in cells]
    if missing:
        raise AssetError(f"{where}: has no column {missing[0]}; the columns read are {', '.join(_COLUMNS)}")
    correct, tokens = outcome_of(cells, "is_correct", "usage_completion_tokens", where)
    return Row(
        id=text_of(cells["id"], "id", where),
        prompt=text_of(cells["prompt"], "prompt", where),
        model=text_of(cells["model_name"], "model_name", where),
        correct=correct,
        category=str(cells["category"] or "unknown").strip(),
        tokens=tokens,
    )


def _imported(
    rows: list[Row], name: str, source: str, repo: HubRepo | None, cards: Cards, progress: Progress | None
) -> Imported:
    """Place the questions, write the set unless it exists, and write the outcomes."""
    if not rows:
        raise AssetError(f"{source}: its anchor split is empty; is this the dataset?")
    questions: dict[str, Row] = {}
    for row in rows:
        if questions.setdefault(row.id, row).prompt != row.prompt:
            raise AssetError(f"{source}: id {row.id!r} stands for two different prompts; the table is not usable")
    anchors = _same_questions(questions, name)
    joined = anchors is not None
    about = {"source": source, "revision": repo.commit if repo else "", "licence": (repo.licence or "") if repo else ""}
    files: list[Path] = []
    if anchors is not None and anchors.own and lacks_multilingual(anchors):
        files.append(save_anchor_set(anchors, about))
    if anchors is None:
        wanted = [PlacedQuestion(id, row.category, row.prompt) for id, row in questions.items()]
        anchors = place(name, wanted, progress, own=True)
        files.append(save_anchor_set(anchors, about))
    at = _positions(anchors)
    tally = Tally(len(anchors))
    for row in rows:
        tally.add(cards.known_as(model_name(row.model)), at[row.id], row.correct, row.tokens)
    found = [_fingerprint(tally, model, anchors, cards) for model in tally.models]
    files.append(assets.user_data_dir() / OWN_FINGERPRINTS / f"{name}.pack")
    write_pack(files[-1], "fingerprints", {**fingerprints_body({anchors.name: found}), **about})
    return Imported.of(source, found, cards, anchors=anchors, joined=joined, files=files, dropped={})


def _same_questions(questions: Mapping[str, Row], name: str) -> AnchorSet | None:
    """Find another set of the user's with the same questions: models measured on one set can be compared."""
    for one in usable_anchor_sets():
        if one.own and one.name != name and len(one.texts) == len(one):
            at = _positions(one)
            if all(id in at and one.texts[at[id]] == row.prompt for id, row in questions.items()):
                return one
    return None


def _positions(anchors: AnchorSet) -> dict[str, int]:
    """Return the row of each anchor by its id in the dataset."""
    return {id.partition("/")[2]: i for i, id in enumerate(anchors.ids)}


def _fingerprint(tally: Tally, model: str, anchors: AnchorSet, cards: Cards) -> Fingerprint:
    """Return a model's outcomes, with its own tokens converted to the cl100k tokens of a fingerprint."""
    correct, tokens = tally.of(model)
    return Fingerprint(model, anchors, correct, tokens / cards.token_factor(model))


def import_anchor_results(
    path: Path, cards: Cards, model: str | None = None, name: str | None = None, *, replace_own: bool = False
) -> Imported:
    """Import one model's `anchor_results.json`: the file, or the folder that holds it.

    The file is a list of objects with id, is_correct and usage.completion_tokens.
    model: by default the folder's name. name: the user's anchor set they were measured on, by default the only one with
    one of their ids. Raises UsageError (no such set, several; other outcomes exist), AssetError naming the row.
    """
    file = path / RESULTS if path.is_dir() else path
    rows = _result_rows(file)
    known_as = _result_model(model, file, cards)
    anchors = _measured_on({str(row["id"]) for row in rows}, name, file)
    dropped: Counter[str] = Counter()
    tally = Tally(len(anchors))
    at = _positions(anchors)
    for number, row in enumerate(rows, 1):
        where = f"{file}, row {number}"
        usage = row.get("usage")
        counted = usage.get("completion_tokens") if isinstance(usage, Mapping) else None
        cells = {"is_correct": row.get("is_correct"), "completion_tokens": counted}
        correct, tokens = outcome_of(cells, "is_correct", "completion_tokens", where)
        question = at.get(text_of(row["id"], "id", where))
        prompt = row.get("prompt")
        if question is None:
            dropped["outcomes of unknown anchors"] += 1
        elif isinstance(prompt, str) and anchors.texts and prompt != anchors.texts[question]:
            dropped["outcomes of anchors with another text"] += 1
        else:
            dropped["outcomes that say nothing (missing)"] += correct is None
            tally.add(known_as, question, correct, tokens)
    if known_as not in tally.models or np.isnan(tally.of(known_as)[0]).all():
        raise AssetError(f"{file}: has no outcome on the anchors of {anchors.name}; is this the file?")
    dropped["repeated outcomes, averaged"] = tally.repeated
    one = _fingerprint(tally, known_as, anchors, cards)
    files: list[Path] = []
    if is_known(one, str(file), replace_own=replace_own):
        dropped[KNOWN] = 1
    else:
        files.append(save_fingerprint(one, {"source": str(file)}, "scope-edge import"))
    return Imported.of(str(file), [one], cards, anchors=anchors, joined=True, files=files, dropped=dropped)


def has_anchor_results(path: Path) -> bool:
    """Return whether a path is such a file, or a folder with one; the reference implementation fixes the name."""
    return (path.is_file() and path.name == RESULTS) or (path / RESULTS).is_file()


def _result_model(model: str | None, file: Path, cards: Cards) -> str:
    """Return the model's id: the given name, or the folder's, in which a / is written _."""
    folder = cards.known_as(file.resolve().parent.name)
    named = cards.known_as(model or (folder if folder in cards else folder.replace("_", "/", 1)))
    return check_model(named, f"{file}, --model or the folder's name")


def _result_rows(file: Path) -> Sequence[Mapping[str, Any]]:
    try:
        rows = load_json(read_whole(file, MAX_RESULTS_BYTES))
    except OSError as error:
        raise AssetError(f"{file}: cannot be read ({error.strerror or error}); is this the file?") from error
    except (ValueError, RecursionError) as error:
        raise unreadable(file, error) from error
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) and "id" in row for row in rows):
        raise AssetError(f"{file}: expected a list of objects with id; is this the file?")
    return rows


def _measured_on(ids: set[str], name: str | None, file: Path) -> AnchorSet:
    """Find the user's set with these anchors. Raises UsageError: none, or several and no name given."""
    own = [one for one in usable_anchor_sets() if one.own and name in (None, one.name)]
    found = [one for one in own if ids & _positions(one).keys()]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{file}: {', '.join(one.name for one in found)} have such anchors; choose one with --name")
    raise UsageError(
        f"{file}: its anchors are not here{'' if name is None else f' in {name!r}'};"
        " `scope-edge estimator anchors Cooolder/SCOPE-60K-final` gets the paper's"
    )
