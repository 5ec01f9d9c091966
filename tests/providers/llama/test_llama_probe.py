"""llama.cpp is asked in a child process: whatever it does there, the asker gets an answer in words."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from scope_edge.providers.llama.probe import backends, has_gpu_library, probe_llama


def library(folder: Path, code: str) -> str:
    """A folder that holds a llama_cpp made of `code`."""
    (folder / "llama_cpp.py").write_text(code)
    return str(folder)


@pytest.mark.skipif(find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
def test_the_installed_one_tells_how_it_was_built() -> None:
    build = probe_llama()
    assert (build.state, build.problem) == ("ok", None)
    assert build.version and build.system_info
    assert "CPU" in build.backends
    assert "llama_cpp" not in sys.modules


def test_one_that_crashes_is_broken_and_says_by_which_signal(tmp_path: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("Windows has no signals")
    build = probe_llama(library=library(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)"))
    assert build.state == "broken"
    assert build.problem is not None and "crashed while loading (SIGSEGV)" in build.problem


def test_one_that_hangs_is_ended(tmp_path: Path) -> None:
    build = probe_llama(library=library(tmp_path, "import time\ntime.sleep(600)"), timeout=2)
    assert build.state == "broken" and build.problem == "did not load within 2 seconds"


def test_one_that_does_not_import_says_why(tmp_path: Path) -> None:
    build = probe_llama(library=library(tmp_path, "raise OSError('libcudart.so.12: cannot open\\nshared object file')"))
    assert build.state == "broken"
    assert build.problem == "cannot be imported (OSError: libcudart.so.12: cannot open shared object file)"


def test_one_that_ends_the_process_says_with_what(tmp_path: Path) -> None:
    build = probe_llama(library=library(tmp_path, "raise SystemExit('go away')"))
    assert build.state == "broken"
    assert build.problem is not None and "exit code 1" in build.problem and "go away" in build.problem


def test_what_native_code_prints_does_not_spoil_the_answer(tmp_path: Path) -> None:
    code = """
import os
os.write(1, b"ggml_cuda_init: found 1 CUDA devices\\n{}\\n")
__version__ = "9.9"
def llama_print_system_info(): return b"CUDA : ARCHS = 900 | USE_GRAPHS = 1 | CPU : AVX2 = 1 | OPENMP = 1 | "
def llama_supports_gpu_offload(): return True
"""
    build = probe_llama(library=library(tmp_path, code))
    assert (build.state, build.version, build.gpu_offload) == ("ok", "9.9", True)
    assert build.backends == ("CUDA", "CPU")


def test_one_in_the_current_folder_is_not_the_installed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "ran"
    library(tmp_path, f"open({str(marker)!r}, 'w').close()")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    probe_llama()
    assert not marker.exists()


def test_words_of_llama_cpp_without_a_backend_name_none() -> None:
    assert backends("") == () and backends("AVX = 1 | AVX2 = 1") == ()


def test_a_library_for_gpus_is_seen_without_loading_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "llama_cpp" / "lib"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise SystemExit('loaded')")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "llama_cpp", raising=False)
    importlib.invalidate_caches()
    (folder / "libggml-cpu.so").touch()
    assert not has_gpu_library()
    (folder / "libggml-cuda.so").touch()
    assert has_gpu_library()
