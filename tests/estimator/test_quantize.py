"""Quantization runs llama.cpp in a child: what it makes is smaller and close, and whatever befalls the child is one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from ask_llama import ask
from numpy_qwen3 import log_softmax
from tiny_qwen3 import Dimensions, make_checkpoint, sentences, tokenizer
from tokenizers import Tokenizer

from scope_edge.errors import AssetError, MissingExtraError, UsageError
from scope_edge.estimator.convert.gguf import convert_checkpoint
from scope_edge.estimator.convert.quantize import QUANTS, Quant, quantize_gguf
from scope_edge.providers.llama import process

gguf = pytest.importorskip("gguf")
pytestmark = pytest.mark.skipif(not process.installed(), reason="llama-cpp-python is not installed")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF in f16 whose rows are long enough for the kinds in blocks of 256."""
    folder = tmp_path_factory.mktemp("wide")
    convert_checkpoint(
        make_checkpoint(folder / "it", Dimensions(hidden=256, feed_forward=512), tied=False),
        folder / "it.gguf",
        dtype="f16",
    )
    return folder / "it.gguf"


def logs(path: Path) -> list[np.ndarray[tuple[int, int], np.dtype[np.float64]]]:
    words = Tokenizer.from_str(json.dumps(tokenizer()))
    asked = [words.encode(" ".join(sentences(4, seed=i))).ids[:40] for i in range(5)]
    return [log_softmax(found) for found in ask(path, prompts=asked).logits]


def divergence(path: Path, other: Path) -> float:
    """Mean KL divergence of what `other` predicts next from what `path` does, in nats."""
    return float(
        np.mean([(np.exp(p) * (p - q)).sum(axis=1).mean() for p, q in zip(logs(path), logs(other), strict=True)])
    )


def test_each_kind_is_what_it_says_and_fewer_bits_are_further_off(wide: Path, tmp_path: Path) -> None:
    drift, sizes = [], []
    for quant in QUANTS:
        target = tmp_path / f"{quant}.gguf"
        quantize_gguf(wide, target, quant)
        found = gguf.GGUFReader(target)
        expected = "F16" if quant == "F16" else quant[:4]
        kinds = {tensor.name: tensor.tensor_type.name for tensor in found.tensors}
        assert kinds["blk.0.ffn_up.weight"] == kinds["blk.0.attn_q.weight"] == expected.rstrip("_")
        assert found.fields["general.file_type"].contents() == gguf.LlamaFileType[f"MOSTLY_{quant}"]
        drift.append(divergence(wide, target))
        sizes.append(target.stat().st_size)
    assert drift == sorted(drift, reverse=True) and drift[-1] == 0.0, drift
    assert drift[QUANTS.index("Q8_0")] < 0.01 and drift[QUANTS.index("Q4_K_M")] < 0.5, drift
    assert sizes == sorted(sizes)


def test_f16_of_a_bf16_file_computes_as_f16_does(tiny_gguf: Path, tmp_path: Path) -> None:
    quantize_gguf(tiny_gguf, tmp_path / "it.gguf", "F16")
    convert_checkpoint(make_checkpoint(tmp_path / "it"), tmp_path / "direct.gguf", dtype="f16")
    assert divergence(tmp_path / "direct.gguf", tmp_path / "it.gguf") == 0.0


def test_in_place_with_progress(tiny_gguf: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(tiny_gguf, tmp_path / "it é 模.gguf"))
    steps: list[tuple[int, int]] = []
    quantize_gguf(path, path, "Q8_0", threads=1, progress=lambda done, total: steps.append((done, total)))
    count = len(gguf.GGUFReader(path).tensors)
    assert path.stat().st_size < tiny_gguf.stat().st_size
    assert steps == [(i + 1, count) for i in range(count)]
    assert list(tmp_path.iterdir()) == [path]


def refused(source: Path, target: Path, quant: Quant = "Q4_K_M") -> str:
    with pytest.raises(AssetError) as caught:
        quantize_gguf(source, target, quant)
    assert not list(target.parent.glob("*.part")) and not target.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("size", [0, 3, 5_000, 60_000, 300_000])
def test_a_truncated_file(tiny_gguf: Path, tmp_path: Path, size: int) -> None:
    (tmp_path / "cut.gguf").write_bytes(tiny_gguf.read_bytes()[:size])
    assert "cut.gguf: cannot be quantized to Q4_K_M: llama.cpp" in refused(tmp_path / "cut.gguf", tmp_path / "out.gguf")


def test_what_is_quantized_already_is_not_quantized_again(tiny_gguf: Path, tmp_path: Path) -> None:
    quantize_gguf(tiny_gguf, tmp_path / "q8.gguf", "Q8_0")
    assert "requantizing from type q8_0 is disabled" in refused(tmp_path / "q8.gguf", tmp_path / "out.gguf")


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    assert "none.gguf: cannot be read" in refused(tmp_path / "none.gguf", tmp_path / "out.gguf")


def test_too_little_space_is_said_first(tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000_000))
    assert "10 MB free" in refused(tiny_gguf, tmp_path / "out.gguf")


def test_a_crash_of_native_code_is_one_line(tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A library in llama_cpp's place that dies as native code does, found by the child as it would find the real one.
    (tmp_path / "llama_cpp.py").write_text("import ctypes; ctypes.string_at(0)")
    monkeypatch.syspath_prepend(str(tmp_path))
    said = refused(tiny_gguf, tmp_path / "out.gguf")
    assert ("SIGSEGV" in said) if os.name == "posix" else ("exit code" in said)


def test_nonsense_is_a_usage_error(tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="expected one of Q4_K_M, Q5_K_M, Q8_0, F16"):
        quantize_gguf(tiny_gguf, tmp_path / "out.gguf", "Q1")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="expected 1 or more"):
        quantize_gguf(tiny_gguf, tmp_path / "out.gguf", "Q8_0", threads=0)
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(MissingExtraError, match=r"scope-edge\[llama\]"):
        quantize_gguf(tiny_gguf, tmp_path / "out.gguf", "Q8_0")


@pytest.mark.skipif(os.name != "posix", reason="a hostile current folder and an abrupt end, as POSIX has them")
def test_a_hostile_current_folder_is_not_imported_from(tiny_gguf: Path, tmp_path: Path) -> None:
    for name in ("numpy", "llama_cpp", "ctypes"):
        (tmp_path / f"{name}.py").write_text("import os; os._exit(77)")
    command = process.child_command("quantize", str(tiny_gguf), str(tmp_path / "out.gguf"), "7", "1")
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.wait() == 0


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    """Killed outright, the parent leaves no child that goes on for minutes: a fifo as source keeps it busy for good."""
    os.mkfifo(tmp_path / "never.gguf")
    code = f"""
import subprocess, sys, time
child = subprocess.Popen({process.child_command("quantize", str(tmp_path / "never.gguf"), str(tmp_path / "o"), "7", "1")!r},
                         stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
print(child.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        time.sleep(0.5)
        assert child.is_running()
        parent.kill()
    # Whoever reaps orphans here may leave it a zombie: ended all the same.
    for _ in range(200):
        if not child.is_running() or child.status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.05)
    child.kill()
    pytest.fail("the child outlived its parent by ten seconds")
