"""Settings and files all tests share."""

from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes depends on the machine; speed is measured in benchmarks/.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


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


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF of a small random Qwen3 (tests/tiny_qwen3.py). Read-only, whoever uses it. Skips without the extra `convert`."""
    pytest.importorskip("gguf")
    import tiny_qwen3

    return tiny_qwen3.tiny_gguf(tmp_path_factory.mktemp("gguf"))
