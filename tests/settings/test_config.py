"""Settings: which layer wins, and that everything unusable is refused in one line that says where and what to do."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from scope_edge.errors import ConfigError, UsageError
from scope_edge.settings.config import MAX_FILE_BYTES, Settings, load_settings
from scope_edge.settings.schema import CHECKS
from scope_edge.settings.validation import check_alpha, check_amount


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a settings file that is not there yet, in a clean environment."""
    for key in CHECKS:
        monkeypatch.delenv("SCOPE_EDGE_" + key.upper(), raising=False)
    path = tmp_path / "settings" / "config.toml"
    path.parent.mkdir()
    monkeypatch.setenv("SCOPE_EDGE_CONFIG", str(path))
    return path


def refusal(overrides: dict[str, object] | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        load_settings(overrides)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_without_a_file_the_documented_defaults_hold(file: Path) -> None:
    settings = load_settings()
    assert settings == Settings(file=file)
    assert (settings.alpha, settings.pool, settings.policy, settings.top_k) == (0.5, "default", "scope-edge", 10)
    assert (settings.max_tokens, settings.max_usd, settings.max_seconds) == (None, None, None)
    assert not file.exists(), "reading settings must not make a file"


def test_arguments_win_over_variables_over_the_file_over_defaults(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('alpha = 0.1\nmax_usd = 1\ntop_k = 3\npool = "device"\n')
    monkeypatch.setenv("SCOPE_EDGE_MAX_USD", "2")
    monkeypatch.setenv("SCOPE_EDGE_TOP_K", "4")
    settings = load_settings({"top_k": 5, "alpha": None})
    assert (settings.alpha, settings.max_usd, settings.top_k) == (0.1, 2.0, 5)
    assert settings.origin == {
        "alpha": str(file),
        "pool": str(file),
        "max_usd": "SCOPE_EDGE_MAX_USD",
        "top_k": "argument",
    }


def test_every_setting_can_be_given_by_variable(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "alpha": "0.25", "pool": "a,b", "policy": "paper", "index": "exact", "top_k": "7", "fallback": "cheapest",
        "local_only": "yes", "max_tokens": "100", "max_usd": "0", "max_seconds": "1.5", "max_answer_tokens": "50", "value_of_time": "0.01",
        "coverage": "0.8", "provider": "cuda", "threads": "2", "offline": "1", "estimator": "gguf",
        "estimator_name": "mine", "estimate_seconds": "30", "estimate_tokens": "9000", "profile": "work",
        "privacy": "patterns", "silence_seconds": "30", "verify": "2", "keep_alive": "-1",
        "journal": "all", "journal_text": "on", "journal_embedding": "on", "journal_days": "7", "journal_mb": "10",
        "max_usd_day": "0.5", "max_usd_month": "5", "stick": "0.2", "use_server": "no",
        "first_token_seconds": "900", "least_pace": "0",
    }  # fmt: skip
    file.write_text("[profiles.work]\n")
    assert set(given) == set(CHECKS), "a new setting needs a row here"
    for key, text in given.items():
        monkeypatch.setenv("SCOPE_EDGE_" + key.upper(), text)
    settings = load_settings()
    assert (settings.alpha, settings.pool, settings.policy, settings.index) == (0.25, "a,b", "paper", "exact")
    assert (settings.top_k, settings.fallback, settings.local_only) == (7, "cheapest", True)
    assert (settings.max_tokens, settings.max_usd, settings.max_seconds) == (100, 0.0, 1.5)
    assert (settings.value_of_time, settings.coverage, settings.provider, settings.threads) == (0.01, 0.8, "cuda", 2)
    assert settings.offline
    assert (settings.profile, settings.estimator, settings.estimator_name) == ("work", "gguf", "mine")
    assert (settings.estimate_seconds, settings.estimate_tokens, settings.keep_alive) == (30.0, 9000, -1.0)
    assert (settings.privacy, settings.silence_seconds, settings.verify) == ("patterns", 30.0, 2)
    assert (settings.journal, settings.journal_text, settings.journal_embedding) == ("all", True, True)
    assert (settings.journal_days, settings.journal_mb) == (7, 10)
    assert (settings.max_usd_day, settings.max_usd_month) == (0.5, 5.0)
    assert (settings.first_token_seconds, settings.least_pace) == (900.0, 0.0)


@pytest.mark.parametrize(("text", "value"), [("recent", "recent"), ("off", False), ("1", True)])
def test_embeddings_are_kept_recent_always_or_never(
    file: Path, monkeypatch: pytest.MonkeyPatch, text: str, value: object
) -> None:
    assert load_settings().journal_embedding == "recent"
    monkeypatch.setenv("SCOPE_EDGE_JOURNAL_EMBEDDING", text)
    assert load_settings().journal_embedding == value
    monkeypatch.setenv("SCOPE_EDGE_JOURNAL_EMBEDDING", "sometimes")
    with pytest.raises(ConfigError, match="journal_embedding must be true, false or recent"):
        load_settings()


def test_an_empty_variable_is_as_good_as_none(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCOPE_EDGE_ALPHA", "")
    assert load_settings().alpha == 0.5


def test_a_byte_order_mark_is_no_part_of_a_settings_file(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbfalpha = 0.3\n")
    assert load_settings().alpha == 0.3
    file.write_bytes(b"\xef\xbb\xbfalpha = 7\n")
    with pytest.raises(ConfigError, match=r"config\.toml, line 1: alpha"):
        load_settings()


def test_settings_turn_into_the_preference_of_one_decision(file: Path) -> None:
    file.write_text('alpha = 1\nmax_tokens = 0\nlocal_only = true\nfallback = "cheapest"\n')
    preference = load_settings().preference(exclude=("x",))
    assert (preference.alpha, preference.local_only, preference.fallback) == (1.0, True, "cheapest")
    assert (preference.budget.tokens, preference.budget.usd, preference.exclude) == (0, None, ("x",))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("alpha = 2", "alpha must be a number from 0 (cheapest) to 1 (most accurate), not 2"),
        ("alpha = -1", "not -1"),
        ("alpha = nan", "not nan"),
        ('alpha = "0.5"', "not '0.5'"),
        ("alpha = true", "not True"),
        ("max_usd = -0.01", "max_usd must be a finite number of at least 0, not -0.01"),
        ("max_usd = inf", "not inf"),
        ("max_seconds = nan", "max_seconds must be"),
        ("max_tokens = 1.5", "max_tokens must be a finite whole number of at least 0, not 1.5"),
        ("max_tokens = 1" + "0" * 400, "max_tokens must be a finite whole number"),
        (
            "keep_alive = -2",
            "keep_alive must be a number of seconds, 0 to drop at once, or -1 to keep for ever, not -2",
        ),
        ("keep_alive = inf", "not inf"),
        ("top_k = 0", "top_k must be a finite whole number of at least 1, not 0"),
        ("coverage = 1", "coverage must be a number between 0 and 1"),
        ('policy = "papr"', "policy must be one of scope-edge, paper, not 'papr'; did you mean paper?"),
        ('index = "HNSW"', "did you mean hnsw?"),
        ("local_only = 1", "local_only must be true or false, not 1"),
        ('pool = " "', "pool must be text on one line, not blank"),
        ("alpha = 2026-11-21", "alpha must be a number"),
        ("models = 3", "models must be tables"),
        ("[pools]\nmine = 'a'", "pool mine must be a list of model ids, not 'a'"),
        ("[pools]\nmine = ['a', 1]", "pool mine must be a list of model ids"),
        ("[pools]\nmine = ['a', 'b', 'a']", "pool mine lists a twice"),
    ],
)
def test_a_bad_value_in_the_file_is_refused_with_file_key_value_and_what_is_allowed(
    file: Path, line: str, said: str
) -> None:
    file.write_text(line + "\n")
    message = refusal()
    assert message.startswith(str(file))
    assert said in message


@pytest.mark.parametrize(("name", "value"), [("max_usd", 0), ("max_usd", 1e308), ("max_tokens", 1e308), ("alpha", 1)])
def test_extreme_but_valid_values_are_accepted(file: Path, name: str, value: float) -> None:
    assert getattr(load_settings({name: value}), name) == value


def test_a_typo_in_the_file_names_the_line_and_the_nearest_setting(file: Path) -> None:
    file.write_text("# mine\nalhpa = 0.3\n")
    message = refusal()
    assert message.startswith(f"{file}, line 2: alhpa is not a setting; did you mean alpha?")
    assert "max_usd" in message, "the settings there are should be listed"


def test_a_typo_in_a_variable_names_the_nearest_one(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCOPE_EDGE_ALHPA", "0.3")
    assert refusal() == "SCOPE_EDGE_ALHPA: not a setting; did you mean SCOPE_EDGE_ALPHA?"


def test_a_bad_variable_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCOPE_EDGE_MAX_USD", "ten")
    assert refusal() == "SCOPE_EDGE_MAX_USD: max_usd must be a finite number of at least 0, not 'ten'"


def test_variables_that_others_read_do_not_disturb(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCOPE_EDGE_ROUTING_DATA", "/nowhere")
    monkeypatch.setenv("SCOPE_EDGE_SOMETHING_ELSE", "1")
    assert load_settings().alpha == 0.5


def test_an_unknown_argument_is_a_usage_error(file: Path) -> None:
    assert refusal({"alhpa": 1}) == "alhpa is not a setting; did you mean alpha?"


def test_a_file_that_is_not_toml_is_refused_with_the_line(file: Path) -> None:
    file.write_text("alpha = 0.5\n\nwhat is this\n")
    assert "line 3" in refusal()


def test_a_card_written_twice_is_refused_with_its_name(file: Path) -> None:
    file.write_text('[models."a"]\nwhere = "cloud"\n[models."a"]\nwhere = "device"\n')
    assert "not valid TOML" in refusal()
    assert "'a'" in refusal()


def test_a_file_that_is_not_text_is_refused_with_the_line(file: Path) -> None:
    file.write_bytes(b"alpha = 0.5\n# caf\xe9\n")
    assert refusal().startswith(f"{file}, line 2: not UTF-8 text (byte 0xe9)")


def test_a_folder_where_the_file_should_be_is_refused(file: Path) -> None:
    file.mkdir()
    assert refusal().startswith(f"{file}: settings cannot be read (")


def test_a_path_through_a_file_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("alpha = 0.5\n")
    monkeypatch.setenv("SCOPE_EDGE_CONFIG", str(file / "config.toml"))
    assert "settings cannot be read (" in refusal()


def test_an_enormous_file_is_refused_unparsed(file: Path) -> None:
    file.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    assert "is this the right file?" in refusal()


def test_a_key_with_a_line_break_stays_on_one_line(file: Path) -> None:
    file.write_text('"al\\npha" = 1\n')
    assert "is not a setting" in refusal()


@given(raw=st.binary(max_size=200))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_in_the_file_do_more_than_be_refused(file: Path, raw: bytes) -> None:
    file.write_bytes(raw)
    try:
        load_settings()
    except ConfigError as error:
        assert "\n" not in str(error)


@given(value=st.floats())
def test_alpha_is_accepted_exactly_between_0_and_1(value: float) -> None:
    if 0 <= value <= 1:
        assert check_alpha(value) == value
    else:
        with pytest.raises(UsageError):
            check_alpha(value)


@given(value=st.one_of(st.floats(), st.integers(-(10**300), 10**300)))
def test_limits_are_accepted_exactly_when_finite_and_not_negative(value: float) -> None:
    if value >= 0 and math.isfinite(value):
        # Dollars are a float: a whole number beyond 2**53 is rounded to the nearest one.
        assert check_amount("max_usd", value) == float(value)
    else:
        with pytest.raises(UsageError):
            check_amount("max_usd", value)


def test_loading_settings_and_cards_imports_nothing_heavy(file: Path) -> None:
    heavy = ("numpy", "msgpack", "onnxruntime", "tokenizers", "hnswlib", "llama_cpp", "tomlkit")
    code = (
        "import sys, scope_edge.catalog.cards, scope_edge.settings.config as config, scope_edge.catalog.edit; config.load_settings();"
        f" sys.exit(','.join(m for m in {heavy!r} if m in sys.modules) or None)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


PROFILES = 'alpha = 0.1\nmax_usd = 1\n\n[profiles.work]\nalpha = 0.2\nmax_usd = 2\npool = "device"\n\n[profiles.home]\nalpha = 0.3\n'


def test_a_profile_wins_over_the_file_and_loses_to_variables_and_arguments(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(PROFILES)
    assert load_settings().alpha == 0.1
    monkeypatch.setenv("SCOPE_EDGE_MAX_USD", "3")
    settings = load_settings({"profile": "work", "pool": "default"})
    assert (settings.alpha, settings.max_usd, settings.pool) == (0.2, 3.0, "default")
    assert settings.origin["alpha"] == "profile work"


def test_a_profile_is_named_by_argument_before_variable_before_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text('profile = "work"\n' + PROFILES)
    assert load_settings().alpha == 0.2
    monkeypatch.setenv("SCOPE_EDGE_PROFILE", "home")
    assert load_settings().alpha == 0.3
    assert load_settings({"profile": "work"}).alpha == 0.2


def test_an_unknown_profile_is_named_with_where_it_was_asked_for(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(PROFILES)
    with pytest.raises(UsageError, match=r"unknown profile 'wrok'; did you mean work[?]; the profiles are work, home"):
        load_settings({"profile": "wrok"})
    monkeypatch.setenv("SCOPE_EDGE_PROFILE", "x")
    with pytest.raises(ConfigError, match=r"^SCOPE_EDGE_PROFILE: unknown profile 'x'"):
        load_settings()
    monkeypatch.delenv("SCOPE_EDGE_PROFILE")
    file.write_text('\nprofile = "x"\n')
    with pytest.raises(ConfigError, match=r"line 2: unknown profile 'x'.*has none"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("alpha = 1\n[profiles.work]\nalpha = 2\n", "line 3: alpha must be a number from 0"),
        ("[profiles.work]\nalhpa = 1\n", "line 2: alhpa cannot be set in profile work; did you mean alpha?"),
        ('[profiles.work]\nprofile = "home"\n', "line 2: profile cannot be set in profile work"),
        ("profiles = 3\n", "line 1: profiles must be tables of settings"),
        ("[profiles]\nwork = 3\n", "line 2: profile work must be a table of settings"),
    ],
)
def test_a_profile_that_cannot_be_is_refused_with_its_line(file: Path, text: str, words: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert words in str(caught.value) and str(file) in str(caught.value)
