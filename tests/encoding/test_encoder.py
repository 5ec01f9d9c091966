"""The bundled encoder: meaning, windows, one vector however it is asked for, and no text or file that breaks it."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scope_edge.encoding.encoder import MAX_CHARACTERS, MAX_WINDOWS, ONNX, TOKENIZER, WINDOW, Encoder, bundled_identity
from scope_edge.encoding.session import PROVIDERS
from scope_edge.errors import AssetError, MissingExtraError, UsageError
from scope_edge.settings.config import Provider
from scope_edge.storage import assets
from scope_edge.types import EncodedQuery, Query

if TYPE_CHECKING:
    from scope_edge.types import Vector

ROOM = WINDOW - 2
MATHS = (
    "What is the derivative of x squared times sine of x?",
    "Find the integral of 3x^2 from 0 to 2.",
    "Solve the equation 2x + 5 = 17 for x.",
)
COOKING = (
    "How long should I roast a chicken at 200 degrees?",
    "What can I use instead of eggs when baking a cake?",
    "Which herbs go well with tomato soup?",
)
CODE = (
    "Write a Python function that reverses a linked list.",
    "Why does my C++ program crash with a segmentation fault?",
    "How do I sort a dictionary by value in Python?",
)


def vector(encoder: Encoder, text: str) -> Vector:
    return encoder.encode(Query(text)).vector


def mixed_texts(count: int) -> list[str]:
    """Texts of 1 to 600 words in no order, some of them twice."""
    rng = random.Random(0)
    words = " ".join((*MATHS, *COOKING, *CODE)).split()
    return [" ".join(rng.choices(words, k=rng.choice((1, 5, 40, 200, 600)))) for _ in range(count - 2)] + [MATHS[0]] * 2


def check(encoded: EncodedQuery) -> None:
    assert encoded.vector.shape == (384,)
    assert encoded.vector.dtype == np.float32
    assert np.linalg.norm(encoded.vector) == pytest.approx(1.0, abs=1e-5)


def test_a_question_is_nearest_to_questions_of_its_kind(encoder: Encoder) -> None:
    kinds = (MATHS, COOKING, CODE)
    vectors = np.stack([vector(encoder, text) for kind in kinds for text in kind])
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -1)
    assert (similarity.argmax(axis=1) // 3 == np.arange(9) // 3).all()


def test_a_paraphrase_is_closer_than_a_question_with_the_same_words(encoder: Encoder) -> None:
    asked = vector(encoder, "How can a man eat less sugar?")
    assert asked @ vector(encoder, "What are ways to cut down on sweets?") > asked @ vector(
        encoder, "How can a man earn less money?"
    )


def test_one_vector_of_norm_one_and_the_stated_dimension(encoder: Encoder) -> None:
    encoded = encoder.encode(Query("hello", system="You are terse.", id="7"))
    check(encoded)
    assert encoder.dimension == 384
    assert (encoded.query.id, encoded.windows, encoded.truncated) == ("7", 1, False)


def test_the_system_prompt_does_not_change_what_is_asked(encoder: Encoder) -> None:
    with_system = encoder.encode(Query("hello", system="You are a pirate.")).vector
    assert with_system.tobytes() == vector(encoder, "hello").tobytes()


def test_the_identity_is_that_of_the_bundled_files(encoder: Encoder) -> None:
    assert encoder.identity == bundled_identity() == Encoder(assets.read(ONNX), assets.read(TOKENIZER)).identity


def test_the_bytes_it_is_made_of_are_not_kept() -> None:
    model = assets.read(ONNX)
    before = sys.getrefcount(model)
    loaded = Encoder(model, assets.read(TOKENIZER))
    assert loaded.dimension == 384
    assert sys.getrefcount(model) == before, "they are as much again as the weights"


@pytest.mark.parametrize(
    ("tokens", "windows", "truncated"),
    [
        (1, 1, False),
        (ROOM, 1, False),
        (ROOM + 1, 2, False),
        (2 * ROOM, 2, False),
        (2 * ROOM + 1, 3, False),
        (MAX_WINDOWS * ROOM, MAX_WINDOWS, False),
        (MAX_WINDOWS * ROOM + 1, MAX_WINDOWS, True),
    ],
)
def test_windows_and_truncation_are_reported(encoder: Encoder, tokens: int, windows: int, truncated: bool) -> None:
    encoded = encoder.encode(Query("the " * tokens))
    check(encoded)
    assert (encoded.windows, encoded.truncated) == (windows, truncated)


def test_a_long_text_is_the_mean_of_its_windows(encoder: Encoder) -> None:
    first, second = "sugar " * 200, "engine " * 200
    total = vector(encoder, first) + vector(encoder, second)
    np.testing.assert_allclose(vector(encoder, first + second), total / np.linalg.norm(total), atol=1e-6)


def test_the_end_of_a_long_text_counts_until_the_limit_and_not_after(encoder: Encoder) -> None:
    long = "the " * (ROOM * (MAX_WINDOWS - 1))
    assert not np.array_equal(vector(encoder, long), vector(encoder, long + CODE[0]))
    full = "the " * (ROOM * MAX_WINDOWS)
    assert np.array_equal(vector(encoder, full), vector(encoder, full + CODE[0]))


def test_pieces_of_a_long_text_are_joined_without_a_seam(encoder: Encoder) -> None:
    """Tokenized in several pieces, words of unlike length fall on every boundary."""
    rng = random.Random(1)
    text = ""
    while len(text) < 20_000:
        text += "the" + " " * rng.randint(30, 60)
    assert np.array_equal(vector(encoder, text), vector(encoder, " ".join(text.split())))


def test_white_space_left_unread_is_no_loss_and_a_word_behind_it_is(encoder: Encoder) -> None:
    blank = " " * MAX_CHARACTERS
    assert not encoder.encode(Query("hello" + blank)).truncated
    assert encoder.encode(Query("hello" + blank + "world")).truncated
    assert np.array_equal(vector(encoder, "hello" + blank), vector(encoder, "hello"))


@pytest.mark.long
@pytest.mark.parametrize("filler", ["the quick brown fox ", "中", "a", "\0", "👩‍👩‍👧", "\u0301", "\ud800", "!?"])
def test_fifty_megabytes_read_as_their_beginning(encoder: Encoder, filler: str) -> None:
    text = filler * (50_000_000 // len(filler))
    encoded = encoder.encode(Query(text))
    check(encoded)
    assert encoded.truncated
    assert encoded.windows <= MAX_WINDOWS
    assert np.array_equal(encoded.vector, vector(encoder, text[:MAX_CHARACTERS]))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \t\n",
        "\0",
        "\0\0hello\0",
        "\u202eشلوم‮ مرحبا",
        "👨‍👩‍👧‍👦🏳️‍🌈",
        "Z̸̢͌a̵͝l̷̊g̴͠o̶͑" * 50,
        "\ufeff\u200b\u2028",
        "[CLS] [SEP] [PAD] [MASK] [UNK]",
        "\ud800",
        "a\udfffb",
        "\U0010ffff",
        "x" * 10_000,
    ],
)
def test_any_text_has_a_vector(encoder: Encoder, text: str) -> None:
    check(encoder.encode(Query(text)))


@given(st.text(st.characters(codec=None), max_size=400))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_unicode_at_all_has_a_vector(encoder: Encoder, text: str) -> None:
    encoded = encoder.encode(Query(text))
    check(encoded)
    assert not encoded.truncated


def test_surrogate_pairs_are_their_character_and_lone_ones_vanish(encoder: Encoder) -> None:
    assert np.array_equal(vector(encoder, "caf\ud835\udc1e"), vector(encoder, "caf𝐞"))
    assert np.array_equal(vector(encoder, "good \ud800morning"), vector(encoder, "good morning"))


def test_special_tokens_in_a_text_are_only_text(encoder: Encoder) -> None:
    """Read as special, "[MASK]" would be one token and these 200 would fit one window."""
    assert encoder.encode(Query("[MASK] " * 200)).windows == 3


def test_many_are_encoded_in_order_and_bit_for_bit_as_one_is(encoder: Encoder) -> None:
    queries = [Query(text, id=str(i)) for i, text in enumerate(mixed_texts(60))]
    many = list(encoder.encode_many(queries))
    assert [encoded.query for encoded in many] == queries
    for encoded, one in zip(many, map(encoder.encode, queries), strict=True):
        assert encoded.vector.tobytes() == one.vector.tobytes()
        assert (encoded.windows, encoded.truncated) == (one.windows, one.truncated)


def test_the_number_of_threads_does_not_change_a_bit(encoder: Encoder) -> None:
    queries = [Query(text) for text in mixed_texts(20)]
    expected = [encoder.encode(query).vector.tobytes() for query in queries]
    for threads in (1, 3):
        other = Encoder.load(threads=threads)
        assert [encoded.vector.tobytes() for encoded in other.encode_many(queries)] == expected


def test_many_reads_only_a_little_ahead(encoder: Encoder) -> None:
    read = 0

    def endless() -> Iterator[Query]:
        nonlocal read
        while True:
            read += 1
            yield Query(f"question {read}")

    few = Encoder.load(threads=2).encode_many(endless())
    assert [encoded.query.text for encoded in islice(few, 10)] == [f"question {i}" for i in range(1, 11)]
    assert read <= 10 + 2 * 2
    few.close()  # type: ignore[attr-defined]


def test_an_error_in_the_source_of_queries_reaches_the_reader(encoder: Encoder) -> None:
    def broken() -> Iterator[Query]:
        yield Query("fine")
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        list(encoder.encode_many(broken()))


def test_loading_in_the_background_gives_the_same_encoder_and_the_same_errors(encoder: Encoder) -> None:
    assert vector(Encoder.loading()(), "hello").tobytes() == vector(encoder, "hello").tobytes()
    failing = Encoder.loading(provider="gpu")
    with pytest.raises(UsageError, match="'gpu'"):
        failing()


def test_nothing_in_nothing_out(encoder: Encoder) -> None:
    assert list(encoder.encode_many([])) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda blob: b"",
        lambda blob: b"not a model",
        lambda blob: blob[:1000],
        lambda blob: blob[:-1000],
        lambda blob: blob[: len(blob) // 2] + b"\xff" * 5000 + blob[len(blob) // 2 + 5000 :][:10],
    ],
    ids=["empty", "text", "head", "cut", "overwritten"],
)
def test_a_damaged_model_is_one_line(damage: object) -> None:
    assert callable(damage)
    with pytest.raises(AssetError, match=r"encoder\.onnx") as caught:
        Encoder(damage(assets.read(ONNX)), assets.read(TOKENIZER))
    assert "\n" not in str(caught.value)


def test_a_sound_model_that_is_no_encoder_is_one_line() -> None:
    """A whole ONNX file of one Identity node."""
    foreign = (
        b'\x08\x08:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
        b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x11"
    )
    with pytest.raises(AssetError, match=r"encoder\.onnx: not an encoder"):
        Encoder(foreign, assets.read(TOKENIZER))


def test_a_sound_tokenizer_of_another_model_is_one_line() -> None:
    other = b'{"version":"1.0","added_tokens":[],"model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}'
    with pytest.raises(AssetError, match=r"tokenizer\.json: has no \[CLS\]"):
        Encoder(assets.read(ONNX), other)


@pytest.mark.parametrize("blob", [b"", b"{}", b"\xff", b'{"version":"1.0"}'])
def test_a_damaged_tokenizer_is_one_line(blob: bytes) -> None:
    with pytest.raises(AssetError, match=r"tokenizer\.json") as caught:
        Encoder(assets.read(ONNX), blob)
    assert "\n" not in str(caught.value)


def test_one_flipped_bit_in_the_weights_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (ONNX, TOKENIZER, "models/manifest.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((assets.bundled_root() / name).read_bytes())
    blob = bytearray((tmp_path / ONNX).read_bytes())
    blob[10_000_000] ^= 1
    (tmp_path / ONNX).write_bytes(blob)
    monkeypatch.setenv("SCOPE_EDGE_ASSETS", str(tmp_path))
    with pytest.raises(AssetError, match=r"encoder\.onnx: expected sha256"):
        Encoder.load()


def test_an_unknown_provider_is_named_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'gpu'.*cpu, cuda"):
        Encoder.load(provider="gpu")


def test_a_provider_that_is_not_installed_is_named_with_those_that_are() -> None:
    missing = next(name for name, there in PROVIDERS.items() if there not in onnxruntime.get_available_providers())
    with pytest.raises(MissingExtraError, match=rf"'{missing}'.*has: .*cpu"):
        Encoder.load(provider=missing)


@pytest.mark.parametrize("threads", [0, -1])
def test_a_senseless_number_of_threads_is_refused(threads: int) -> None:
    with pytest.raises(UsageError, match="threads"):
        Encoder.load(threads=threads)


def test_settings_and_encoder_know_the_same_providers() -> None:
    assert set(get_args(Provider)) == set(PROVIDERS)
