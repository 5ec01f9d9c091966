"""Settings and files all tests share."""

from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes depends on the machine; speed is measured in benchmarks/.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF of a small random Qwen3 (tests/tiny_qwen3.py). Read-only, whoever uses it. Skips without the extra `convert`."""
    pytest.importorskip("gguf")
    import tiny_qwen3

    return tiny_qwen3.tiny_gguf(tmp_path_factory.mktemp("gguf"))
