"""A fingerprint handed on: what arrives is what was sent, without questions unless asked for, and never of other questions."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_cases import Cli
from importing_cases import CLAUDE, LLAMA, folder, known, question

from scope_edge.estimation.anchor_spec import load_core
from scope_edge.estimation.fingerprints import Fingerprint, load_anchor_sets, load_fingerprints
from scope_edge.fingerprinting.importing.share import KIND
from scope_edge.fingerprinting.run import save_fingerprint
from scope_edge.storage.packs import read_pack, write_pack

ROWS = [f"q{i},{LLAMA},{(i % 4) / 4},10,{20 + i}," for i in range(7)] + [f"q{i},{CLAUDE},1,,," for i in range(8)]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    made = Cli(tmp_path, monkeypatch, capsys)
    assert made("import", str(folder(tmp_path / "mine", ROWS))).code == 0
    return made


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Moves to another user, who has nothing."""
    return lambda: monkeypatch.setenv("SCOPE_EDGE_DATA_DIR", str(tmp_path / "elsewhere"))


def export(cli: Cli, path: Path, model: str = LLAMA, name: str = "mine", *options: str) -> str:
    done = cli("export", model, "--anchors", name, "-o", str(path), *options)
    assert (done.code, done.err) == (0, "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest in done.out
    return digest


def test_what_arrives_is_what_was_sent(cli: Cli, tmp_path: Path, elsewhere: Any) -> None:
    sent, pack = known(LLAMA), tmp_path / "it.pack"
    digest = export(cli, pack)
    assert b"Question" not in pack.read_bytes(), "questions stay behind"
    elsewhere()
    done = cli("import", str(pack))
    assert (done.code, done.err) == (0, "")
    assert digest in done.out and "anchor set mine, 8 anchors; 7 outcomes of 1 model, 1 missing" in done.out
    assert known(LLAMA) == sent
    assert load_anchor_sets()[-1].texts == ()
    assert "here already" in cli("import", str(pack)).out


def test_a_second_fingerprint_joins_the_set_that_came_without_text(cli: Cli, tmp_path: Path, elsewhere: Any) -> None:
    export(cli, tmp_path / "a.pack")
    export(cli, tmp_path / "b.pack", CLAUDE, "mine", "--with-text")
    elsewhere()
    assert cli("import", str(tmp_path / "a.pack")).code == 0
    done = cli("import", str(tmp_path / "b.pack"))
    assert done.code == 0 and "joined to mine" in done.out
    assert len(known(CLAUDE)) == len(known(LLAMA)) == 8


def test_questions_go_along_when_asked(cli: Cli, tmp_path: Path, elsewhere: Any) -> None:
    export(cli, tmp_path / "it.pack", LLAMA, "mine", "--with-text")
    elsewhere()
    assert cli("import", str(tmp_path / "it.pack")).code == 0
    assert set(load_anchor_sets()[-1].texts) == {question(i)["text"] for i in range(8)}


def vectors() -> Any:
    return load_anchor_sets()[-1].multilingual


def test_multilingual_vectors_arrive_and_are_made_where_a_pack_has_none(
    cli: Cli, tmp_path: Path, elsewhere: Any
) -> None:
    sent = vectors()
    assert sent.shape == (8, 512)
    for name, options in (("bare", ()), ("texts", ("--with-text",))):
        export(cli, tmp_path / f"{name}.pack", LLAMA, "mine", *options)
    old = read_pack(tmp_path / "texts.pack", KIND)
    assert old["anchors"].pop("multilingual") is not None
    write_pack(tmp_path / "old.pack", KIND, old)
    elsewhere()
    mine = tmp_path / "elsewhere" / "anchors" / "mine.pack"
    for name in ("bare", "texts", "old"):
        mine.unlink(missing_ok=True)
        assert cli("import", str(tmp_path / f"{name}.pack")).code == 0
        assert np.allclose(vectors(), sent, atol=1e-3)


def test_a_set_of_a_release_with_one_encoder_opens_and_gets_its_vectors_when_imported_again(
    cli: Cli, tmp_path: Path
) -> None:
    made, mine = vectors(), tmp_path / "data" / "anchors" / "mine.pack"
    body = read_pack(mine, "anchor-sets")
    del body["sets"][0]["multilingual"]
    write_pack(mine, "anchor-sets", body)
    before = known(LLAMA)
    assert vectors() is None and len(before) == 8
    assert cli("import", str(tmp_path / "mine")).code == 0
    assert np.array_equal(vectors(), made) and known(LLAMA) == before


def test_a_set_that_everybody_has_is_not_packed(cli: Cli, tmp_path: Path, elsewhere: Any) -> None:
    core = load_core().anchors
    correct = np.array([1.0, np.nan, 0.5] * 100)[: len(core)]
    save_fingerprint(Fingerprint("new", core, correct, np.full(len(core), 30.0)), {})
    export(cli, tmp_path / "it.pack", "new", "core-250")
    assert "anchors" not in read_pack(tmp_path / "it.pack", KIND)
    elsewhere()
    done = cli("import", str(tmp_path / "it.pack"))
    assert done.code == 0 and '[models."new"]' in done.complaint
    assert list(load_fingerprints()[1]["new"][0].correct[[0, 2]]) == [1.0, 0.5]


def test_outcomes_of_other_questions_are_refused(cli: Cli, tmp_path: Path, elsewhere: Any) -> None:
    export(cli, tmp_path / "it.pack")
    elsewhere()
    others = [{**question(i), "text": f"Something else, {i}"} for i in range(8)]
    assert cli("import", str(folder(tmp_path / "mine", [f"q0,{CLAUDE},1,,,"], others))).code == 0
    done = cli("import", str(tmp_path / "it.pack"))
    assert done.code == 5 and "measured on other questions" in done.complaint
    assert LLAMA not in {model for model, parts in load_fingerprints()[1].items() if parts[-1].anchors.name == "mine"}


def test_other_outcomes_stay_unless_they_are_to_be_replaced(cli: Cli, tmp_path: Path) -> None:
    sent = known(LLAMA)
    export(cli, tmp_path / "it.pack")
    assert cli("import", str(folder(tmp_path / "mine", [f"q0,{LLAMA},1,,,"]))).code == 0
    refused = cli("import", str(tmp_path / "it.pack"))
    assert refused.code == 2 and "--replace" in refused.complaint
    assert known(LLAMA) != sent
    assert cli("import", str(tmp_path / "it.pack"), "--replace").code == 0
    assert known(LLAMA) == sent


def _set(**fields: Any) -> Any:
    return lambda body: body["anchors"].update(fields)


def _part(**fields: Any) -> Any:
    return lambda body: body["sets"]["mine"].update(fields)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.update(sets={"../../mine": body["sets"]["mine"]}),
        lambda body: body.update(sets={}),
        lambda body: body.update(digests=[]),
        lambda body: body.pop("digests"),
        lambda body: body.pop("anchors"),
        _set(name="other"),
        _set(ids=["mine/q0"] * 8),
        _set(difficulty=np.full(8, np.nan, np.float32)),
        _set(vectors=np.ones((8, 7), np.float16)),
        _set(multilingual=np.ones((8, 7), np.float16)),
        _set(multilingual=np.full((8, 512), np.nan, np.float16)),
        _part(models=["a model"]),
        _part(models=[7]),
        _part(correct=np.full((1, 8), 2, np.float16)),
        _part(correct=np.ones((1, 7), np.float16)),
        _part(tokens=np.zeros((1, 8), np.float32)),
        _part(tokens="many"),
        lambda body: body["sets"].update(mine=[]),
        lambda body: body["sets"].update(mine=np.zeros(3)),
        lambda body: body.update(digests={"a": 1}),
        lambda body: body.update(digests=b""),
        lambda body: body.update(digests=np.zeros(2)),
    ],
)
def test_a_pack_that_was_tampered_with_is_refused_whole(cli: Cli, tmp_path: Path, elsewhere: Any, change: Any) -> None:
    export(cli, tmp_path / "it.pack")
    body = read_pack(tmp_path / "it.pack", KIND)
    change(body)
    write_pack(tmp_path / "bad.pack", KIND, body)
    elsewhere()
    done = cli("import", str(tmp_path / "bad.pack"))
    assert done.code == 5 and "bad.pack" in done.complaint
    assert not (tmp_path / "elsewhere").exists()


def test_damaged_and_foreign_packs_are_refused(cli: Cli, tmp_path: Path) -> None:
    export(cli, tmp_path / "it.pack")
    whole = (tmp_path / "it.pack").read_bytes()
    (tmp_path / "it.pack").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "damaged" in cli("import", str(tmp_path / "it.pack")).complaint
    write_pack(tmp_path / "foreign.pack", "anchor-sets", {})
    assert "'anchor-sets' pack" in cli("import", str(tmp_path / "foreign.pack")).complaint


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("export", "nobody", "-o", "x.pack"), "has no fingerprint"),
        (("export", LLAMA, "-o", "x.pack"), "--anchors"),
        (("export", LLAMA, "--anchors", "core-250", "-o", "x.pack"), "was not measured on"),
        (("import", ".", "--format", "pack", "--limit", "3"), "leave out --name, --limit and --model"),
        (("import", ".", "--format", "routing-data", "--replace"), "--replace is for packs"),
    ],
)
def test_wishes_that_make_no_sense(cli: Cli, arguments: tuple[str, ...], complaint: str) -> None:
    done = cli(*arguments)
    assert done.code == 2 and complaint in done.complaint
