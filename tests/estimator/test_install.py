"""Installing an estimator from a file, a folder and the hub: what is right is usable at the end, what is wrong leaves nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hub_server import COMMIT, Hub, running
from install_cases import CARD, EXACT
from tiny_qwen3 import Dimensions, make_checkpoint, tiny_gguf

from scope_edge.errors import AssetError, MissingExtraError, RemoteError, ScopeEdgeError, UsageError
from scope_edge.estimator import sources
from scope_edge.estimator.install import InstallOptions, install, measure, measured
from scope_edge.estimator.prompt import BUNDLED
from scope_edge.estimator.store import check_gguf, find_installed, list_installed, remove_installed, store
from scope_edge.storage import files

pytest.importorskip("gguf")
pytest.importorskip("safetensors")
if find_spec("llama_cpp") is None:
    pytest.skip("llama-cpp-python is not installed", allow_module_level=True)

ID = "someone/SCOPE"


@pytest.fixture(autouse=True)
def place(own_folders: Path) -> Path:
    return own_folders


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny-qwen3.gguf, its checkpoint tiny-qwen3/, and shards/, one in parts that k-quants fit."""
    folder = tmp_path_factory.mktemp("made")
    tiny_gguf(folder)
    make_checkpoint(folder / "shards", Dimensions(hidden=256, feed_forward=256), shards=2)
    return folder


@pytest.fixture
def hub(made: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub")
    files = {path.name: path.read_bytes() for path in sorted((made / "shards").iterdir())}
    files |= {"README.md": CARD.encode(), "training_args.bin": b"never fetched" * 1000}
    large = {name for name in files if name.endswith((".safetensors", ".bin"))}
    with running(Hub(repos={("model", ID): files}, large=large, cards={ID: {"license": "apache-2.0"}})) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.address)
        yield served


def left_behind(place: Path) -> list[str]:
    return [path.name for path in (place / "data" / "estimators").glob("*")]


def refused(call: object, kind: type[ScopeEdgeError] = AssetError) -> str:
    with pytest.raises(kind) as error:
        call()  # type: ignore[operator]
    text = str(error.value)
    assert "\n" not in text
    assert ".installing" not in text
    return text


def test_a_gguf_is_linked_described_and_starts(made: Path) -> None:
    entry = install(str(made / "tiny-qwen3.gguf"))
    assert find_installed() == entry
    assert entry.name == "tiny-qwen3"
    assert entry.gguf.samefile(made / "tiny-qwen3.gguf")
    assert entry.sha256 == hashlib.sha256((made / "tiny-qwen3.gguf").read_bytes()).hexdigest()
    assert (entry.shape.architecture, entry.shape.layers, entry.shape.context) == ("qwen3", 2, 4096)
    assert (entry.template, entry.template_from, entry.mode) == (BUNDLED, "bundled", "cot")
    assert measured(entry) is None
    ready = measure(entry)
    assert ready.prefill_tps > 0
    assert ready.decode_tps > 0
    assert measured(entry) == ready


def test_where_links_cannot_be_made_it_is_copied(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError("links are not for this disk")

    monkeypatch.setattr(os, "link", no_links)
    entry = install(str(made / "tiny-qwen3.gguf"))
    assert not entry.gguf.samefile(made / "tiny-qwen3.gguf")
    check_gguf(entry)


def test_a_checkpoint_is_converted_and_quantized(made: Path) -> None:
    entry = install(str(made / "shards"))
    assert entry.name == "shards-q4_k_m"
    assert entry.shape.quantization.startswith("Q4_K")
    assert sorted(path.name for path in entry.folder.iterdir()) == ["manifest.toml", "model.gguf", "prompt.txt"]
    whole = install(str(made / "shards"), InstallOptions(quant="F16"))
    assert (whole.name, whole.shape.quantization) == ("shards-f16", "F16")
    assert whole.size > 2 * entry.size


def test_a_gguf_in_16_bits_is_quantized_when_that_is_asked_for(made: Path) -> None:
    whole = install(str(made / "shards"), InstallOptions(quant="F16", name="whole"))
    small = install(str(whole.gguf), InstallOptions(quant="Q8_0", name="small"))
    assert small.shape.quantization == "Q8_0"
    assert small.size < whole.size


def test_the_template_of_a_checkouts_card_is_taken_and_its_mode(made: Path, place: Path) -> None:
    folder = shutil.copytree(made / "tiny-qwen3", place / "checkout")
    (folder / "README.md").write_text(CARD)
    entry = install(str(folder), InstallOptions(quant="F16"))
    assert entry.template_from == f"model card of {folder}"
    assert entry.template == EXACT.rstrip("\n")
    assert entry.mode == "direct"


def test_what_the_user_names_wins(made: Path, place: Path) -> None:
    card, template = place / "card.md", place / "mine.txt"
    # As an editor with a byte order mark saves them.
    card.write_text(CARD, "utf-8-sig")
    template.write_text(EXACT.replace("Say how", "Guess how"), "utf-8-sig")
    gguf = str(made / "tiny-qwen3.gguf")
    one = install(gguf, InstallOptions(name="one", card_file=card))
    assert (one.template_from, one.mode) == ("model card card.md", "direct")
    two = install(gguf, InstallOptions(name="two", template_file=template, mode="direct"))
    assert (two.template_from, two.mode) == ("mine.txt", "direct")
    assert two.template == EXACT.replace("Say how", "Guess how")
    three = install(gguf, InstallOptions(name="three", card_file=card, mode="cot"))
    assert three.mode == "cot"


def test_no_cot_in_the_name_means_direct(made: Path, place: Path) -> None:
    shutil.copy(made / "tiny-qwen3.gguf", place / "SCOPE_NoCoT-Q8_0.gguf")
    entry = install(str(place / "SCOPE_NoCoT-Q8_0.gguf"))
    assert (entry.name, entry.mode) == ("scope_nocot-q8_0", "direct")


def test_from_the_hub_it_is_pinned_converted_and_the_download_goes(hub: Hub, place: Path) -> None:
    seen: list[str] = []
    entry = install(f"{ID}@main", progress=lambda what, done, total: seen.append(what))
    assert (entry.name, entry.source, entry.revision, entry.licence) == ("scope-q4_k_m", ID, COMMIT, "apache-2.0")
    assert entry.template_from == f"model card of {ID}@{COMMIT[:12]}"
    assert entry.mode == "direct"
    assert not any("training_args" in one.path for one in hub.asked)
    assert not list((place / "cache" / "hub").rglob("*.safetensors"))
    for step in ("downloading model-00001-of-00002.safetensors", "quantizing to Q4_K_M", "hashing the weights"):
        assert step in seen
    check_gguf(entry)
    measure(entry)


def test_a_ready_gguf_of_the_wanted_kind_is_preferred(hub: Hub, made: Path) -> None:
    files = hub.repos[("model", ID)]
    weights = (made / "tiny-qwen3.gguf").read_bytes()
    files |= {"SCOPE-Q8_0.gguf": weights, "SCOPE-Q5_K_M-00001-of-00002.gguf": b"part", "SCOPE-IQ4_K_M.gguf": b"other"}
    hub.large |= {"SCOPE-Q8_0.gguf"}
    entry = install(ID, InstallOptions(quant="Q8_0"))
    assert entry.sha256 == hashlib.sha256(weights).hexdigest()
    assert not any(".safetensors" in one.path for one in hub.asked)
    del files["config.json"]
    said = refused(lambda: install(ID, InstallOptions(quant="Q5_K_M")), UsageError)
    assert "no Q5_K_M in one piece" in said
    assert "SCOPE-Q8_0.gguf" in said


def test_an_interrupted_installation_leaves_no_half_and_is_continued(hub: Hub, place: Path) -> None:
    shard = "model-00002-of-00002.safetensors"
    hub.stalls[shard] = 1000
    child = subprocess.Popen(
        [sys.executable, "-c", f"from scope_edge.estimator.install import install; install({ID!r})"],
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not any(shard in one.path for one in hub.asked):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
    child.wait()
    assert list_installed() == ()
    hub.stalls.clear()
    hub.asked.clear()
    entry = install(ID)
    assert not any("model-00001" in one.path for one in hub.asked), "the first shard was there already"
    assert left_behind(place) == [entry.name]


def test_a_failing_download_says_so_and_leaves_no_entry(hub: Hub, place: Path) -> None:
    shard = "model-00002-of-00002.safetensors"
    right = hub.repos[("model", ID)][shard]
    hub.altered[shard] = bytes([right[0] ^ 1]) + right[1:]
    assert "came damaged" in refused(lambda: install(ID), RemoteError)
    assert left_behind(place) == []


def _vocabulary_only(blob: bytes) -> bytes:
    return blob[:8] + bytes(8) + blob[16:]


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("text.gguf", lambda blob: b"hello there, this is a text file", "not a GGUF"),
        ("short.gguf", lambda blob: blob[:10], "cut off after 10 bytes"),
        ("half.gguf", lambda blob: blob[: len(blob) // 2], "half.gguf"),
        ("empty.gguf", lambda blob: b"", "not a GGUF"),
        ("vocabulary.gguf", _vocabulary_only, "a vocabulary without weights"),
        ("strange.gguf", lambda blob: blob.replace(b"qwen3", b"quen3"), "strange.gguf"),
    ],
)
def test_a_gguf_that_is_none_leaves_nothing(made: Path, place: Path, name: str, change, said: str) -> None:  # type: ignore[no-untyped-def]
    path = place / name
    path.write_bytes(change((made / "tiny-qwen3.gguf").read_bytes()))
    text = refused(lambda: install(str(path)))
    assert said in text
    assert str(path) in text
    assert left_behind(place) == []


def test_a_model_that_cannot_write_is_refused(place: Path) -> None:
    import gguf

    path = place / "bert.gguf"
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_block_count(0)
    writer.add_context_length(512)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(32)
    writer.add_head_count(1)
    writer.add_layer_norm_eps(1e-6)
    writer.add_causal_attention(False)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"])
    writer.add_token_types([3, 3, 3, 3, 3, 1, 1])
    for name, shape in {"token_embd.weight": (7, 32), "position_embd.weight": (512, 32)}.items():
        writer.add_tensor(name, np.zeros(shape, np.float32))
    for name in ("token_embd_norm.weight", "token_embd_norm.bias"):
        writer.add_tensor(name, np.ones(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert str(path) in refused(lambda: install(str(path)))
    assert left_behind(place) == []


@pytest.mark.parametrize(
    ("source", "wishes", "said"),
    [
        ("nowhere.gguf", InstallOptions(), "no such file or folder"),
        ("some/where/deep", InstallOptions(), "no such file or folder"),
        ("{made}", InstallOptions(quant="Q8_0"), "which one? It holds tiny-qwen3.gguf"),
        ("{made}/tiny-qwen3.gguf", InstallOptions(name="No Good"), "an estimator's name is"),
        ("{made}/tiny-qwen3.gguf", InstallOptions(name="../up"), "an estimator's name is"),
        ("{made}/tiny-qwen3.gguf", InstallOptions(quant="Q3_K_S"), "--quant must be one of Q4_K_M"),  # type: ignore[arg-type]
        ("{made}/tiny-qwen3.gguf", InstallOptions(mode="loud"), "--mode must be one of cot, direct"),  # type: ignore[arg-type]
    ],
)
def test_what_makes_no_sense_is_a_usage_error(
    made: Path, place: Path, source: str, wishes: InstallOptions, said: str
) -> None:
    assert said in refused(lambda: install(source.format(made=made), wishes), UsageError)
    assert left_behind(place) == []


def test_a_template_that_cannot_be_used_is_refused_before_anything_is_fetched(hub: Hub, place: Path) -> None:
    bad, empty = place / "bad.txt", place / "empty.md"
    bad.write_text(EXACT.replace("{{question}}", ""))
    empty.write_text("# A card without a prompt")
    assert "lacks {{question}}" in refused(lambda: install(ID, InstallOptions(template_file=bad)), UsageError)
    assert "no prompt template found" in refused(lambda: install(ID, InstallOptions(card_file=empty)), UsageError)
    assert "both name a template" in refused(
        lambda: install(ID, InstallOptions(card_file=bad, template_file=bad)), UsageError
    )
    assert "cannot be read" in refused(lambda: install(ID, InstallOptions(card_file=place / "none.md")))
    assert hub.asked == []


def test_a_name_is_taken_once_and_free_again_after_removal(made: Path) -> None:
    gguf = str(made / "tiny-qwen3.gguf")
    first = install(gguf)
    said = refused(lambda: install(gguf), UsageError)
    assert "installed already" in said
    assert "estimator remove tiny-qwen3" in said
    remove_installed("tiny-qwen3")
    assert replace(install(gguf), installed=first.installed) == first
    assert (made / "tiny-qwen3.gguf").exists()


def test_no_space_is_said_before_the_weights_are_fetched_and_leaves_nothing(
    hub: Hub, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = sum(len(content) for path, content in hub.repos[("model", ID)].items() if path.endswith(".safetensors"))
    # Enough for the download and what is kept free beside it, too little for the conversion as well.
    monkeypatch.setattr(files, "_SPARE", 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=int(2.5 * weights)))
    assert "the conversion: needs" in refused(lambda: install(ID))
    assert not any(".safetensors" in one.path and "index" not in one.path for one in hub.asked)
    assert left_behind(place) == []


def test_what_a_killed_installation_left_is_swept_away(made: Path, place: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    abandoned = store() / f".installing-{child.pid}-x"
    busy = store() / f".installing-{os.getpid()}-y"
    for folder in (abandoned, busy):
        folder.mkdir(parents=True)
        (folder / "whole.gguf").write_bytes(b"gigabytes")
    install(str(made / "tiny-qwen3.gguf"))
    assert not abandoned.exists()
    assert busy.exists()


@pytest.mark.parametrize(
    ("missing", "extra"), [("gguf", "convert"), ("safetensors", "convert"), ("llama_cpp", "llama")]
)
def test_a_missing_extra_is_named_before_anything_is_fetched(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, missing: str, extra: str
) -> None:
    monkeypatch.setattr(sources, "find_spec", lambda name: None if name == missing else find_spec(name))
    monkeypatch.setattr(sources, "installed", lambda: missing != "llama_cpp")
    assert f'pip install "scope-edge[{extra}]"' in refused(lambda: install(ID), MissingExtraError)
    assert not any("/resolve/" in one.path for one in hub.asked)


def test_the_index_of_a_repository_decides_which_files_are_fetched(hub: Hub) -> None:
    hub.repos[("model", ID)]["model.safetensors.index.json"] = b'{"weight_map": 7}'
    assert "not a checkpoint's index" in refused(lambda: install(ID))
    assert not any(".safetensors" in one.path and "index" not in one.path for one in hub.asked)
