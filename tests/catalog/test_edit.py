"""Edits of the user's pools: they do what they say, keep the rest of the file, and refuse what makes no sense."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scope_edge.catalog.cards import Catalog
from scope_edge.catalog.edit import add_to_pool, remove_from_pool, use_pool
from scope_edge.errors import AssetError, ConfigError, UsageError
from scope_edge.factory import open_catalog
from scope_edge.settings.config import load_settings
from scope_edge.settings.schema import CHECKS
from scope_edge.storage.files import exclusive


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a settings file that is not there yet, in a clean environment."""
    for key in CHECKS:
        monkeypatch.delenv("SCOPE_EDGE_" + key.upper(), raising=False)
    path = tmp_path / "home" / "config.toml"
    monkeypatch.setenv("SCOPE_EDGE_CONFIG", str(path))
    return path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)


def catalog() -> Catalog:
    return open_catalog(load_settings())


def test_adding_to_a_bundled_pool_copies_it_into_the_users_file_first(file: Path) -> None:
    bundled = catalog().pools["default"]
    assert add_to_pool("gpt-4o", "default") == (*bundled, "gpt-4o")
    after = catalog()
    assert after.pools["default"] == (*bundled, "gpt-4o")
    assert after.own_pools == {"default"}


def test_a_new_pool_is_made_used_emptied_and_refused(file: Path) -> None:
    assert add_to_pool("gpt-4o", "mine") == ("gpt-4o",)
    assert use_pool("mine") == ("gpt-4o",)
    assert [card.id for card in catalog().pool()] == ["gpt-4o"]
    assert remove_from_pool("gpt-4o", "mine") == ()
    with pytest.raises(UsageError, match="pool 'mine' is empty"):
        catalog().pool()
    with pytest.raises(UsageError, match="pool 'mine' is empty"):
        use_pool("mine")


def test_edits_keep_comments_order_and_everything_else(file: Path) -> None:
    text = (
        "# my settings\nalpha = 0.3  # a bit cheap\n\n[pools]\n# for work\nwork = [\n"
        '  "gpt-4o",  # the good one\n  "gemma-3-4b-it",\n]\n\n'
        + '[models."mine"]\nwhere = "cloud"\n'
        + "note = 'ours'  # keep\n"
    )
    write(file, text)
    add_to_pool("mine", "work")
    remove_from_pool("gemma-3-4b-it", "work")
    use_pool("work")
    after = file.read_text()
    for kept in ("# my settings", "# a bit cheap", "# for work", "# the good one", "note = 'ours'  # keep"):
        assert kept in after
    loaded = catalog()
    assert loaded.pools["work"] == ("gpt-4o", "mine")
    assert loaded.active_pool == "work" and load_settings().alpha == 0.3
    assert loaded.card("mine").note == "ours"


def test_a_linked_settings_file_stays_a_link(file: Path, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.toml"
    real.write_text("alpha = 0.1\n")
    file.parent.mkdir()
    file.symlink_to(real)
    use_pool("device")
    assert file.is_symlink()
    assert 'pool = "device"' in real.read_text() and "alpha = 0.1" in real.read_text()


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda: use_pool("defualt"), "unknown pool 'defualt'; did you mean default?"),
        (lambda: add_to_pool("gpt-5o", "default"), "unknown model 'gpt-5o'; did you mean gpt-4o"),
        (lambda: add_to_pool("gemma-3-4b-it", "default"), "gemma-3-4b-it is in pool default already"),
        (lambda: add_to_pool("gpt-4o", "a,b"), "must have no comma"),
        (lambda: add_to_pool("gpt-4o", " "), "the pool's name must be text on one line, not blank"),
        (lambda: remove_from_pool("gpt-4o", "default"), "'gpt-4o' is not in pool default"),
        (lambda: remove_from_pool("gpt-4o", "nonesuch"), "unknown pool 'nonesuch'"),
    ],
)
def test_an_edit_that_makes_no_sense_changes_nothing(file: Path, edit: Callable[[], object], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        edit()
    assert said in str(caught.value)
    assert not file.exists()


def test_a_stale_model_can_be_taken_out_of_a_pool(file: Path) -> None:
    write(file, '[pools]\nmine = ["gone", "gpt-4o"]\n')
    assert remove_from_pool("gone", "mine") == ("gpt-4o",)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that nobody, not even root, can make")
def test_a_home_that_cannot_be_written_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCOPE_EDGE_CONFIG", "/proc/nowhere/config.toml")
    with pytest.raises(ConfigError) as caught:
        use_pool("device")
    assert str(caught.value).startswith("/proc/nowhere/config.toml: cannot be written (")
    assert str(caught.value).endswith("nothing was changed")


def test_edits_at_once_lose_nothing(file: Path) -> None:
    """Twelve threads of three processes each: every card, pool and profile is there at the end."""
    script = (
        "import sys, threading\n"
        "from scope_edge.catalog.edit import add_card, add_to_pool, save_profile\n"
        "def work(n):\n"
        "    name = f'm{sys.argv[1]}-{n}'\n"
        "    add_card(name, {'where': 'cloud', 'endpoint': 'http://127.0.0.1:1/v1'}, 'all')\n"
        "    add_to_pool(name, f'pool-{name}')\n"
        "    save_profile(f'profile-{name}', {'alpha': 0.5})\n"
        "threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]\n"
        "[one.start() for one in threads]; [one.join() for one in threads]\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    running = [subprocess.Popen([sys.executable, "-c", script, str(n)], env=environment) for n in range(3)]
    assert [one.wait(120) for one in running] == [0, 0, 0]
    names = {f"m{process}-{n}" for process in range(3) for n in range(4)}
    settings = load_settings()
    assert set(settings.models) == set(settings.pools["all"]) == names
    assert set(settings.pools) == {"all", *(f"pool-{name}" for name in names)}
    assert set(settings.profiles) == {f"profile-{name}" for name in names}


def test_an_edit_waits_for_another_and_then_says_so(file: Path) -> None:
    second = exclusive(file.resolve(), patience=0.05)
    with exclusive(file.resolve()), pytest.raises(AssetError, match="another process has been changing it"), second:
        pass
    assert use_pool("default"), "the lock is free again"
