"""Importing a dataset of the paper's form: what is known is kept, what is missing stays missing, the test split stays out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hub_server import COMMIT, Hub, running
from paper_cases import Cells, as_csv, jsonl, parquet, question, table

from scope_edge.errors import AssetError, MissingExtraError, PackError, UsageError
from scope_edge.estimation.ability import fit_ability
from scope_edge.estimation.fingerprints import load_anchor_sets, load_fingerprints
from scope_edge.estimation.irt import load_irt_model
from scope_edge.factory import load_pipeline, open_cards
from scope_edge.fingerprinting.importing.naming import model_name
from scope_edge.fingerprinting.importing.scope_dataset import DATASETS, import_anchors, is_paper_model
from scope_edge.settings.config import load_settings
from scope_edge.storage.packs import read_pack
from scope_edge.types import Query

CLAUDE = "claude-3-haiku-20240307"


@pytest.fixture(autouse=True)
def data(own_folders: Path) -> Path:
    return own_folders


def outcomes(model: str, name: str) -> tuple[list[float | None], list[float | None]]:
    """What is now known of a model on a set: correct and tokens, None where missing."""
    one = next(part for part in load_fingerprints()[1][model] if part.anchors.name == name)
    plain = [
        [None if np.isnan(value) else round(float(value), 3) for value in row] for row in (one.correct, one.tokens)
    ]
    return plain[0], plain[1]


@pytest.mark.parametrize(("ending", "write"), [(".parquet", parquet), (".jsonl", jsonl), (".csv", as_csv)])
def test_every_format_gives_the_same(data: Path, ending: str, write: Callable[[Path, list[Cells]], None]) -> None:
    rows = table("meta-llama/Llama-3-1-8B:free", "somebody/new-model")
    rows[1]["is_correct"] = False
    write(data / "it" / f"anchor-00000-of-00001{ending}", rows)
    done = import_anchors(str(data / "it"), open_cards())
    assert (done.anchor_set, done.joined, done.anchors) == ("it", False, 12)
    assert (done.models, done.strangers) == (("llama-3.1-8b-instruct",), ("new-model",))
    assert (done.outcomes, done.missing) == (24, 0)
    correct, tokens = outcomes("llama-3.1-8b-instruct", "it")
    assert correct == [1.0, 0.0, *[1.0] * 10]
    assert tokens == [100.0] * 12


def test_the_texts_are_kept_and_the_questions_placed_on_the_map(data: Path) -> None:
    jsonl(data / "it" / "anchor.jsonl", table("x/y"))
    import_anchors(str(data / "it"), open_cards())
    anchors = load_anchor_sets()[-1]
    assert anchors.texts == tuple(question(i) for i in range(12))
    assert anchors.ids[3] == "it/3"
    assert set(anchors.categories) == {"it/sums"}
    assert np.linalg.norm(anchors.vectors, axis=1) == pytest.approx(1, abs=1e-3)
    population = load_irt_model().population
    typical = anchors.domains @ population.discrimination
    assert (anchors.discrimination < typical).all(), "what the map misses must make these anchors tell less"
    assert (anchors.discrimination > 0.3 * typical).all()
    one = load_fingerprints()[1]["y"]
    assert fit_ability(one, population).mean[0] > population.mean[0], "all right: abler than the average"


def test_only_the_anchor_split_is_read(data: Path) -> None:
    jsonl(data / "it" / "data" / "anchor-00000-of-00001.jsonl", table("x/seen", questions=3))
    jsonl(data / "it" / "data" / "test-00000-of-00001.jsonl", table("x/unseen"))
    done = import_anchors(str(data / "it"), open_cards())
    assert (done.anchors, done.strangers) == (3, ("seen",))
    (data / "it" / "data" / "anchor-00000-of-00001.jsonl").unlink()
    with pytest.raises(AssetError, match="has no split `anchor`"):
        import_anchors(str(data / "it"), open_cards())


def test_what_is_not_known_stays_missing(data: Path) -> None:
    rows = table("x/y", questions=8)
    changes: list[Cells] = [
        {"usage_completion_tokens": 0, "is_correct": False},
        {"usage_completion_tokens": 0},
        {"usage_completion_tokens": None},
        {"is_correct": None},
        {"is_correct": "", "usage_completion_tokens": ""},
        {"is_correct": "no", "usage_completion_tokens": "70"},
        {"is_correct": 0.25},
        {"usage_completion_tokens": float("nan"), "is_correct": 0},
    ]
    for row, change in zip(rows, changes, strict=True):
        row |= change
    jsonl(data / "it" / "anchor.jsonl", rows)
    done = import_anchors(str(data / "it"), open_cards())
    correct, tokens = outcomes("y", "it")
    assert correct == [None, 1.0, 1.0, None, None, 0.0, 0.25, 0.0]
    assert tokens == [None, None, None, 100.0, None, 70.0, 100.0, None]
    assert (done.outcomes, done.missing) == (5, 3)


def test_a_model_that_was_not_asked_everything_and_one_that_was_asked_twice(data: Path) -> None:
    rows = (
        table("x/all", questions=4) + table("x/some", questions=2) + table("x/some:free", questions=1, is_correct=False)
    )
    jsonl(data / "it" / "anchor.jsonl", rows)
    import_anchors(str(data / "it"), open_cards())
    assert outcomes("some", "it")[0] == [0.5, 1.0, None, None]


def test_lengths_are_turned_into_cl100k_where_the_card_says_how(data: Path) -> None:
    jsonl(data / "it" / "anchor.jsonl", table(f"anthropic/{CLAUDE}", "x/y", questions=2, usage_completion_tokens=126))
    import_anchors(str(data / "it"), open_cards())
    assert outcomes(CLAUDE, "it")[1] == [100.0, 100.0]
    assert outcomes("y", "it")[1] == [126.0, 126.0]


def test_a_second_table_on_the_same_questions_joins_the_first_set(data: Path) -> None:
    jsonl(data / "SCOPE-60K-final" / "anchor.jsonl", table("x/one"))
    jsonl(data / "SCOPE-60K-OOD-final" / "anchor.jsonl", table("x/two", "x/three"))
    assert import_anchors(str(data / "SCOPE-60K-final"), open_cards()).anchor_set == "scope-60k"
    done = import_anchors(str(data / "SCOPE-60K-OOD-final"), open_cards())
    assert (done.anchor_set, done.joined) == ("scope-60k", True)
    assert [one.name for one in load_anchor_sets() if one.own] == ["scope-60k"]
    assert {"one", "two", "three"} <= set(load_fingerprints()[1])


def test_a_second_table_on_other_questions_is_a_set_of_its_own(data: Path) -> None:
    jsonl(data / "SCOPE-60K-final" / "anchor.jsonl", table("x/one"))
    jsonl(
        data / "SCOPE-60K-OOD-final" / "anchor.jsonl",
        [{**row, "prompt": row["prompt"] + "!"} for row in table("x/two")],
    )
    import_anchors(str(data / "SCOPE-60K-final"), open_cards())
    assert import_anchors(str(data / "SCOPE-60K-OOD-final"), open_cards()).anchor_set == "scope-60k-ood"
    assert load_fingerprints()[1]["two"][0].anchors.name == "scope-60k-ood"


def test_imported_again_it_replaces_what_it_brought(data: Path) -> None:
    jsonl(data / "it" / "anchor.jsonl", table("x/old", "x/both"))
    import_anchors(str(data / "it"), open_cards())
    jsonl(data / "it" / "anchor.jsonl", table("x/both", questions=5, is_correct=False))
    assert import_anchors(str(data / "it"), open_cards()).anchors == 5
    assert "old" not in load_fingerprints()[1]
    assert outcomes("both", "it")[0] == [0.0] * 5


@pytest.mark.parametrize("folder", ["anchors", "fingerprints"])
def test_importing_again_mends_a_damaged_pack(data: Path, folder: str) -> None:
    jsonl(data / "it" / "anchor.jsonl", table("x/y"))
    import_anchors(str(data / "it"), open_cards())
    (data / "data" / folder / "it.pack").write_bytes(b"damaged")
    with pytest.raises(PackError, match=r"it\.pack: not a scope-edge pack"):
        load_fingerprints()
    import_anchors(str(data / "it"), open_cards())
    assert outcomes("y", "it")[0] == [1.0] * 12


def test_routing_uses_what_was_imported(data: Path) -> None:
    query, settings = Query("How many primes are there below one hundred?"), load_settings({"pool": "open-2024"})
    before = load_pipeline(settings).route(query, settings.preference())
    jsonl(data / "it" / "anchor.jsonl", table("meta-llama/llama-3.1-8b-instruct", is_correct=False))
    import_anchors(str(data / "it"), open_cards())
    after = load_pipeline(settings).route(query, settings.preference())
    p = [next(c.p_correct for c in one.candidates if c.model == "llama-3.1-8b-instruct") for one in (before, after)]
    assert p[0] is not None
    assert p[1] is not None
    assert p[1] < p[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"is_correct": "perhaps"}, "row 3: is_correct is 'perhaps'"),
        ({"is_correct": 7}, "row 3: is_correct is 7"),
        ({"prompt": None}, "row 3: prompt is 'None'"),
        ({"prompt": ["a", "list"]}, "row 3: prompt is"),
        ({"id": ""}, "row 3: id is ''"),
        ({"usage_completion_tokens": "many"}, "row 3: usage_completion_tokens is 'many'"),
        ({"id": 0}, "id '0' stands for two different prompts"),
    ],
)
def test_a_cell_that_cannot_be_is_named(data: Path, change: Cells, said: str) -> None:
    rows = table("x/y")
    rows[2] |= change
    jsonl(data / "it" / "anchor.jsonl", rows)
    with pytest.raises(AssetError) as error:
        import_anchors(str(data / "it"), open_cards())
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert not (data / "data").exists()


@pytest.mark.parametrize(
    ("name", "blob", "said"),
    [
        ("anchor.parquet", b"PAR1 but nothing else PAR1", "not a readable table"),
        ("anchor.jsonl", b'{"id": 1', "not a readable table"),
        ("anchor.jsonl", b"[1, 2]\n", "not a row with named columns"),
        ("anchor.jsonl", b'\xff\xfe{"id"', "not a readable table"),
        ("anchor.csv", b"id,prompt\n1,hello\n", "has no column model_name"),
        ("anchor.jsonl", b"", "is empty"),
    ],
)
def test_a_table_that_is_none_is_one_line(data: Path, name: str, blob: bytes, said: str) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    (data / "it").mkdir()
    (data / "it" / name).write_bytes(blob)
    with pytest.raises(AssetError) as error:
        import_anchors(str(data / "it"), open_cards())
    assert said in str(error.value)
    assert str(data / "it") in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_a_table_of_one_endless_line_is_refused(data: Path, ending: str) -> None:
    (data / "it").mkdir()
    with (data / "it" / f"anchor{ending}").open("wb") as file:
        file.truncate(8 << 30)  # takes no room on most disks
    with pytest.raises(AssetError, match="a line over 16777216 characters"):
        import_anchors(str(data / "it"), open_cards())


def test_a_small_parquet_file_may_not_stand_for_any_amount_of_text(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    rows = [{**row, "prompt": "x" * 4_000_000} for row in table("x/y")] * 200
    columns = {name: pyarrow.array([row[name] for row in rows]) for name in rows[0] if name != "prompt"}
    columns["prompt"] = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * len(rows)), [rows[0]["prompt"]])
    path = data / "it" / "anchor.parquet"
    path.parent.mkdir()
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    assert path.stat().st_size < 1_000_000
    before = pyarrow.default_memory_pool().max_memory()
    with pytest.raises(AssetError, match="more than 536870912 characters"):
        import_anchors(str(data / "it"), open_cards())
    assert pyarrow.default_memory_pool().max_memory() - before < 200_000_000
    monkeypatch.setattr("scope_edge.fingerprinting.importing.scope_dataset.MAX_ROWS", 100)
    with pytest.raises(AssetError, match="more than 100 rows"):
        import_anchors(str(data / "it"), open_cards())


def test_sources_and_names_that_cannot_be(data: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        import_anchors("nowhere", open_cards())
    jsonl(data / "zeroeval" / "anchor.jsonl", table("x/y"))
    with pytest.raises(UsageError, match="which is a bundled one's; rename the folder"):
        import_anchors(str(data / "zeroeval"), open_cards())


@pytest.fixture
def hub(data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub")
    repos: dict[tuple[str, str], dict[str, bytes]] = {}
    for name, models in zip(DATASETS, (("llama-3-1-8b", "qwen3-14b"), ("qwen3-8b",)), strict=True):
        path = data / "made" / "it.parquet"
        parquet(path, table(*models))
        test = json.dumps(table("x/unseen")).encode()
        repos[("dataset", name)] = {
            "data/anchor-00000-of-00001.parquet": path.read_bytes(),
            "data/test-00000-of-00001.parquet": test,
        }
    large = {path for files in repos.values() for path in files}
    with running(Hub(repos=repos, large=large, cards={key: {"license": "mit"} for key in DATASETS})) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.address)
        yield served


def test_from_the_hub_only_the_anchors_are_fetched_and_their_commit_is_kept(hub: Hub, data: Path) -> None:
    first, second = (import_anchors(name, open_cards()) for name in DATASETS)
    assert (first.anchor_set, first.models, first.strangers) == (
        "scope-60k",
        ("llama-3.1-8b-instruct",),
        ("qwen3-14b",),
    )
    assert (second.anchor_set, second.joined, second.strangers) == ("scope-60k", True, ())
    assert not any("test-00000" in one.path for one in hub.asked)
    assert not list((data / "cache" / "hub").rglob("*.parquet"))
    body = read_pack(first.files[0], "anchor-sets")
    assert (body["source"], body["revision"], body["licence"]) == (DATASETS[0], COMMIT, "mit")


def test_a_dataset_without_anchors_is_refused(hub: Hub) -> None:
    del hub.repos[("dataset", DATASETS[0])]["data/anchor-00000-of-00001.parquet"]
    with pytest.raises(AssetError, match="has no split `anchor`"):
        import_anchors(DATASETS[0], open_cards())


def test_without_pyarrow_the_extra_is_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet(data / "it" / "anchor.parquet", table("x/y"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r'pip install "scope-edge\[hub\]"'):
        import_anchors(str(data / "it"), open_cards())


@pytest.mark.parametrize(
    ("spelled", "name"),
    [("Qwen/Qwen3-14B", "qwen3-14b"), ("tngtech/deepseek-r1t2-chimera:free", "deepseek-r1t2-chimera"), (" X ", "x")],
)
def test_how_models_are_spelled(spelled: str, name: str) -> None:
    assert model_name(spelled) == name


def test_which_hub_ids_are_the_papers_estimators() -> None:
    assert is_paper_model("Cooolder/SCOPE")
    assert is_paper_model("Cooolder/SCOPE_NoCoT@main")
    assert not is_paper_model("someone/SCOPE")
    assert not is_paper_model("./Cooolder/SCOPE.gguf")
