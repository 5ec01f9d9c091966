"""`scope-edge doctor` finds what is wrong, says what to do, and does not stop at the first thing."""

from __future__ import annotations

import re
import shutil
import stat
import sys
from pathlib import Path

import pytest
from cli_cases import QUERY, Cli
from repository import DOCS

from scope_edge.cli.diagnosis import judge_gpu, mend
from scope_edge.providers.llama.memory import Gpu, _by_amd_driver, _by_nvidia_driver, _by_nvidia_smi, read_nvidia_smi
from scope_edge.providers.llama.probe import LlamaBuild
from scope_edge.storage import assets

H200 = Gpu("nvidia", "NVIDIA H200", 140.4, "nvidia-smi")
CPU_ONLY = LlamaBuild("ok", "0.3.36", "CPU : AVX2 = 1 |", ("CPU",), False)
CUDA = LlamaBuild("ok", "0.3.36", "CUDA : ARCHS = 900 | CPU : AVX2 = 1 |", ("CUDA", "CPU"), True)


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the bundled files, to be damaged."""
    root = tmp_path / "bundled"
    for name in ("models", "anchors"):
        shutil.copytree(assets.bundled_root() / name, root / name)
    monkeypatch.setenv("SCOPE_EDGE_ASSETS", str(root))
    return root


def test_a_sound_installation_routes_and_ends_with_0(cli: Cli) -> None:
    report = cli("doctor", "--json")
    assert report.code == 0 and report.json["exit_code"] == 0
    assert all(check["problem"] is None for check in (*report.json["assets"], report.json["routing"]))
    assert {"models/encoder/encoder.onnx", "anchors/fingerprints.pack"} <= {
        one["name"] for one in report.json["assets"]
    }
    assert len(report.json["pool"]) == 9
    assert re.search(r"^  ok  a test query  works: ", cli("doctor").out, re.MULTILINE)


def test_the_json_is_documented(cli: Cli) -> None:
    section = (DOCS / "json.md").read_text("utf-8").split("## scope-edge doctor")[1]
    assert list(cli("doctor", "--json").json) == re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


@pytest.mark.parametrize("name", ["models/encoder/tokenizer.json", "anchors/fingerprints.pack"])
def test_a_flipped_bit_is_found_and_ends_with_5(cli: Cli, copied: Path, name: str) -> None:
    raw = bytearray((copied / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (copied / name).write_bytes(raw)
    report = cli("doctor", "--json")
    assert report.code == 5
    problems = {one["name"]: one["problem"] for one in report.json["assets"] if one["problem"]}
    assert list(problems) == [name] and "sha256" in problems[name] and "reinstall" in problems[name]
    assert report.json["routing"]["problem"] is not None
    assert "!!" in cli("doctor").out
    assert cli("route", QUERY).code == 5


def test_a_flipped_bit_in_a_table_that_is_not_hashed_at_every_start_is_found(cli: Cli, copied: Path) -> None:
    name = "models/multilingual/low.npy"
    raw = bytearray((copied / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (copied / name).write_bytes(raw)
    report = cli("doctor", "--json")
    problems = [one["problem"] for one in report.json["assets"] if one["name"] == name]
    assert report.code == 5 and len(problems) == 1 and "sha256" in problems[0]


def test_a_missing_manifest_is_found_and_the_rest_is_still_told(cli: Cli, copied: Path) -> None:
    (copied / "anchors" / "manifest.toml").unlink()
    report = cli("doctor", "--json")
    assert report.code == 5
    assert "manifest" in report.json["assets"][0]["problem"]
    assert report.json["versions"]["numpy"] and report.json["pool"]


def test_settings_that_cannot_be_used_end_with_2_and_the_files_are_still_checked(cli: Cli) -> None:
    report = cli("doctor", "--json", settings="aplha = 1\n")
    assert report.code == 2
    assert "alpha" in report.json["routing"]["problem"]
    assert all(one["problem"] is None for one in report.json["assets"])


def test_settings_are_told_with_where_they_come_from(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCOPE_EDGE_MAX_USD", "0.5")
    report = cli("doctor", "--json", settings="alpha = 0.25\n").json["settings"]
    assert report["alpha"] == {"value": "0.25", "from": str(cli.folder / "config.toml")}
    assert report["max_usd"] == {"value": "0.5", "from": "SCOPE_EDGE_MAX_USD"}
    assert report["index"] == {"value": "auto", "from": "default"}
    assert re.search(r"^  alpha +0\.25 \(from ", cli("doctor").out, re.MULTILINE)


def test_a_missing_optional_library_is_a_word_not_a_failure(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from scope_edge.cli import diagnosis

    monkeypatch.setattr(
        diagnosis, "probe_llama", lambda: LlamaBuild("missing", problem="llama-cpp-python is not installed")
    )
    monkeypatch.setitem(sys.modules, "hnswlib", None)
    report = cli("doctor", "--json")
    assert report.code == 0
    assert any("hnswlib" in text and "exact" in text for text in report.json["degraded"])
    assert any("llama" in text and "prior" in text for text in report.json["degraded"])


def test_a_gpu_that_llama_cpp_was_not_built_for_comes_with_the_command_that_mends_it() -> None:
    check = judge_gpu([H200], CPU_ONLY)
    assert "NVIDIA H200 found, llama.cpp built without it" in check.found
    assert check.problem is not None and 'CMAKE_ARGS="-DGGML_CUDA=on" pip install' in check.problem
    assert judge_gpu([H200], CUDA).problem is None
    assert judge_gpu([], CPU_ONLY).problem is None
    missing = judge_gpu([H200], LlamaBuild("missing", problem="not installed"))
    assert missing.problem is not None and "GGML_CUDA" in missing.problem


def test_a_build_for_another_makers_gpu_does_not_count() -> None:
    amd = Gpu("amd", "AMD 0x744c", 24.0, "/dev/kfd")
    metal = LlamaBuild("ok", "1", "Metal : EMBED_LIBRARY = 1 | CPU : NEON = 1 |", ("Metal", "CPU"), True)
    assert judge_gpu([amd], metal).problem is not None
    assert "GGML_HIP" in mend("amd") and "GGML_METAL" in mend("apple")


def test_the_command_is_one_the_systems_shell_runs() -> None:
    assert mend("nvidia", "linux").startswith('CMAKE_ARGS="-DGGML_CUDA=on" pip install ')
    assert mend("nvidia", "win32").startswith('$env:CMAKE_ARGS="-DGGML_CUDA=on"; pip install ')


def test_nvidia_smi_is_read_a_line_a_gpu() -> None:
    gpus = list(read_nvidia_smi("NVIDIA H200, 143771, 1024\nQuadro, K [N/A], [N/A], [N/A]\n\nNo devices were found\n"))
    assert [(gpu.name, gpu.memory_gb, gpu.free_gb) for gpu in gpus] == [
        ("NVIDIA H200", 143771 / 1024, 1.0),
        ("Quadro, K [N/A]", None, None),
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="runs a shell script in its place")
@pytest.mark.parametrize(
    ("script", "found"), [("echo 'Tesla T4, 15360, 15000'", ["Tesla T4"]), ("exit 9", []), ("printf '\\377'", [])]
)
def test_nvidia_smi_is_asked_and_may_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, found: list[str]
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert [gpu.name for gpu in _by_nvidia_smi()] == found


def test_drivers_tell_of_gpus_too(tmp_path: Path) -> None:
    card = tmp_path / "0000:01:00.0"
    card.mkdir()
    (card / "information").write_text("Model: \t\t NVIDIA GeForce RTX 4070\nIRQ:   \t\t 184\n")
    (gpu,) = _by_nvidia_driver(tmp_path)
    assert (gpu.name, gpu.memory_gb, gpu.found_by) == ("NVIDIA GeForce RTX 4070", None, str(tmp_path))
    device = tmp_path / "drm" / "card1" / "device"
    device.mkdir(parents=True)
    memory = {"mem_info_vram_total": str(24 * 2**30), "mem_info_vram_used": str(2**30)}
    for name, text in {"vendor": "0x1002\n", "device": "0x744c\n", **memory}.items():
        (device / name).write_text(text)
    (amd,) = _by_amd_driver(tmp_path / "drm", tmp_path)
    assert (amd.name, amd.memory_gb, amd.free_gb) == ("AMD 0x744c", 24.0, 23.0)
    assert list(_by_amd_driver(tmp_path / "drm", tmp_path / "no-kfd")) == []
