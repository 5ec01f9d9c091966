"""Bundled files are handed out only as what the manifest promises; user folders can be put anywhere."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scope_edge.errors import AssetError
from scope_edge.storage import assets

CONTENT = b"weights"
# Who takes a file and who only looks at it are told the same.
READERS = pytest.mark.parametrize("reader", [assets.read, assets.check])


def entry(name: str, content: bytes = CONTENT, **changes: object) -> str:
    row = {
        "name": name,
        "source": "somewhere",
        "licence": "MIT",
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        **changes,
    }
    return "[[file]]\n" + "".join(f"{key} = {value!r}\n" for key, value in row.items())


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("models", "anchors"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one.bin").write_bytes(CONTENT)
        (tmp_path / folder / "manifest.toml").write_text(entry("one.bin", note="kept"))
    monkeypatch.setenv("SCOPE_EDGE_ASSETS", str(tmp_path))
    return tmp_path


def test_every_bundled_file_is_what_its_manifest_says() -> None:
    assert {"models/encoder/encoder.onnx", "models/encoder/tokenizer.json"} <= set(assets.manifest())
    for name, asset in assets.manifest().items():
        assert len(assets.read(name)) == asset.size
        assert asset.source and asset.licence


def test_a_file_comes_with_what_is_known_of_it(root: Path) -> None:
    assert assets.read("models/one.bin") == assets.read("anchors/one.bin") == CONTENT
    assets.check("models/one.bin")
    asset = assets.manifest()["models/one.bin"]
    assert (asset.source, asset.licence, dict(asset.facts)) == ("somewhere", "MIT", {"note": "kept"})


@READERS
def test_a_changed_file_is_refused(root: Path, reader: Callable[[str], object]) -> None:
    (root / "models" / "one.bin").write_bytes(b"weighty"[: len(CONTENT)])
    with pytest.raises(AssetError, match=r"one\.bin: expected sha256 \w+…, found \w+…; reinstall"):
        reader("models/one.bin")


@READERS
@pytest.mark.parametrize(
    ("content", "found"), [(b"", "found 0"), (CONTENT[:-1], "found 6"), (CONTENT * 2, "found more")]
)
def test_a_file_of_another_size_is_refused(
    root: Path, content: bytes, found: str, reader: Callable[[str], object]
) -> None:
    (root / "models" / "one.bin").write_bytes(content)
    with pytest.raises(AssetError, match=f"expected 7 bytes, {found}"):
        reader("models/one.bin")


@READERS
def test_a_file_grown_beyond_memory_is_refused_without_reading_it(root: Path, reader: Callable[[str], object]) -> None:
    with (root / "models" / "one.bin").open("wb") as file:
        file.truncate(8 << 30)
    with pytest.raises(AssetError, match="found more"):
        reader("models/one.bin")


@READERS
def test_a_missing_file_is_refused(root: Path, reader: Callable[[str], object]) -> None:
    (root / "models" / "one.bin").unlink()
    with pytest.raises(AssetError, match=r"one\.bin: cannot be read"):
        reader("models/one.bin")


@READERS
@pytest.mark.parametrize("name", ["models/other.bin", "models/../models/one.bin", "one.bin", "", "elsewhere/one.bin"])
def test_what_no_manifest_lists_is_not_read(root: Path, name: str, reader: Callable[[str], object]) -> None:
    with pytest.raises(AssetError, match="not a bundled file"):
        reader(name)


@pytest.mark.parametrize(
    "text",
    [
        "not toml [",
        "",
        "file = 3",
        "file = [3]",
        "[[file]]\nname = 'one.bin'\n",
        entry("one.bin", size="many"),
        "\0",
    ],
)
def test_a_malformed_manifest_is_one_line_that_names_it(root: Path, text: str) -> None:
    (root / "models" / "manifest.toml").write_text(text)
    with pytest.raises(AssetError, match=r"models.manifest\.toml: manifest cannot be used") as caught:
        assets.read("models/one.bin")
    assert "\n" not in str(caught.value)


def test_one_folder_serves_while_the_other_has_no_manifest(root: Path) -> None:
    (root / "anchors" / "manifest.toml").unlink()
    assert assets.read("models/one.bin") == CONTENT
    with pytest.raises(AssetError, match=r"anchors.manifest\.toml"):
        assets.read("anchors/one.bin")


def test_a_folder_without_bundled_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCOPE_EDGE_ASSETS", str(tmp_path))
    with pytest.raises(AssetError, match="bundled files not found"):
        assets.read("models/one.bin")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has another way to a home directory")
def test_without_a_home_directory_the_variables_are_named(tmp_path: Path) -> None:
    script = """
import os, pwd
def unknown(*_): raise KeyError
pwd.getpwuid = pwd.getpwnam = unknown
from scope_edge.cli import main
main()
"""
    given = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "SCOPE_EDGE_"))}
    given.pop("HOME", None)
    for variable, named in (
        ("", "set HOME to it, or SCOPE_EDGE_CONFIG"),
        ("SCOPE_EDGE_CONFIG", "set HOME to it, or SCOPE_EDGE_DATA_DIR"),
    ):
        env = given | ({variable: str(tmp_path / "config.toml")} if variable else {})
        command = [sys.executable, "-c", script, "route", "hi"]
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)
        assert (done.returncode, done.stdout) == (2, "") and named in done.stderr and done.stderr.count("\n") == 1
    command = [sys.executable, "-c", script, "models", "add", "~unknown/model.gguf"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)
    assert done.returncode == 2 and "no such file" in done.stderr


def test_user_folders_can_be_put_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, folder in (
        ("SCOPE_EDGE_CONFIG", assets.user_config_file),
        ("SCOPE_EDGE_DATA_DIR", assets.user_data_dir),
        ("SCOPE_EDGE_CACHE_DIR", assets.user_cache_dir),
    ):
        monkeypatch.delenv(name, raising=False)
        assert "scope-edge" in str(folder())
        monkeypatch.setenv(name, str(tmp_path / name))
        assert folder() == tmp_path / name
