"""The catalog: bundled cards and pools, the user's own laid over them."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from datetime import date
from pathlib import Path

import pytest
from repository import ROOT

from scope_edge.catalog.cards import Catalog, is_retired
from scope_edge.errors import UsageError
from scope_edge.estimation.irt import load_irt_model
from scope_edge.factory import open_catalog
from scope_edge.settings.config import load_settings
from scope_edge.settings.schema import CHECKS
from scope_edge.types import ModelCard

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NEW_CLOUD = '[models."mine"]\nwhere = "cloud"\nusd_in = 1\nusd_out = 2\n'


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a settings file that is not there yet, in a clean environment."""
    for key in CHECKS:
        monkeypatch.delenv("SCOPE_EDGE_" + key.upper(), raising=False)
    path = tmp_path / "home" / "config.toml"
    monkeypatch.setenv("SCOPE_EDGE_CONFIG", str(path))
    return path


def catalog(file: Path | None = None, text: str | None = None) -> Catalog:
    if file is not None and text is not None:
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    return open_catalog(load_settings())


def refused(file: Path, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        catalog(file, text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------- what is bundled


def aliases() -> dict[str, dict[str, object]]:
    table: dict[str, dict[str, object]] = tomllib.loads(
        (ROOT / "scope_edge" / "training" / "aliases.toml").read_text()
    )["models"]
    return table


def test_models_with_a_bundled_fingerprint_have_a_card_and_the_other_way_round(file: Path) -> None:
    known = set(load_irt_model().abilities)
    cards = {card.id for card in catalog().cards}
    assert known == cards
    assert not cards & {id for id, entry in aliases().items() if entry.get("base")}


def test_no_spelling_in_the_routing_data_stands_for_two_models() -> None:
    names = [name for entry in aliases().values() for name in entry["names"]]  # type: ignore[attr-defined]
    assert len(names) == len(set(names))


def test_a_base_model_has_only_spellings_of_base_models() -> None:
    for model, entry in aliases().items():
        if entry.get("base"):
            assert all("base" in name.lower() or name.startswith("mmlu_pro:") for name in entry["names"]), model  # type: ignore[attr-defined]


def test_the_alias_table_names_spellings_that_exist_and_all_of_the_exams() -> None:
    folder = os.environ.get("SCOPE_EDGE_ROUTING_DATA")
    if not folder:
        pytest.skip("SCOPE_EDGE_ROUTING_DATA is not set")
    import csv
    import gzip

    named = {name for entry in aliases().values() for name in entry["names"]}  # type: ignore[attr-defined]
    measured = set()
    for set_name in sorted({name.partition(":")[0] for name in named}):
        outcomes = Path(folder, set_name, "outcomes.csv.gz")
        with gzip.open(outcomes, "rt", newline="") as lines:
            measured |= {f"{set_name}:{row['model']}" for row in csv.DictReader(lines)}
    assert named <= measured
    # A model of another set is known by its own name there, unless it is one that is measured elsewhere.
    exams = ("zeroeval:", "kor_bench:", "mmlu_pro:", "reasoning_gym:")
    assert {name for name in measured if name.startswith(exams)} <= named


def test_the_default_pool_has_device_and_cloud_models_that_can_be_called_and_are_priced(file: Path) -> None:
    pool = catalog().pool("default")
    assert [card.where for card in pool] == ["device"] * 4 + ["cloud"] * 5
    assert all(card.status == "available" and card.retires is None for card in pool)
    costs = [(card.usd_in or 0) + (card.usd_out or 0) for card in pool]
    assert costs == sorted(costs), "cheap to dear"
    assert all(card.usd_in is not None and card.usd_out is not None for card in pool)


def test_a_card_for_the_device_says_what_it_needs_there_and_every_price_says_whose_it_is(file: Path) -> None:
    cards = catalog().cards
    for card in cards:
        if card.where == "device":
            assert card.context_tokens and card.parameters_b and card.size_gb and card.licence, card.id
        assert (card.usd_in is None) or (card.price_source or "").partition(", read in ")[0].count("github.com") == 0, (
            card.id
        )
    assert not [card.id for card in cards if "_" in (card.licence or "")], "licences are spelled as people write them"


def test_models_that_vendors_have_withdrawn_are_retired(file: Path) -> None:
    retired = {card.id for card in catalog().cards if is_retired(card, date(2026, 12, 1))}
    assert {"o4-mini", "gemini-2.5-pro", "gemini-2.5-flash", "mistral-large-2411"} <= retired
    by_id = catalog().by_id
    assert by_id["gpt-5-mini"].retires == by_id["gpt-5-nano"].retires == "2026-12-11"


def test_no_bundled_pool_has_a_retired_model(file: Path) -> None:
    loaded = catalog()
    assert not [card.id for name in loaded.pools for card in loaded.pool(name) if is_retired(card)]


def test_the_device_pool_runs_on_the_device_alone(file: Path) -> None:
    assert {card.where for card in catalog().pool("device")} == {"device"}


def test_bundled_device_models_are_free_by_their_card_and_say_what_they_need(file: Path) -> None:
    for card in catalog().cards:
        if card.where == "device":
            assert (card.usd_in, card.usd_out) == (0.0, 0.0), card.id
            # All that a consumer's GPU or memory holds; a mixture of experts counts whole.
            assert card.parameters_b is not None and card.parameters_b <= 31, card.id
            assert card.size_gb is None or 0.4 < card.size_gb / card.parameters_b < 1.5, card.id


def test_bundled_cloud_prices_carry_their_date_and_source_and_are_never_zero(file: Path) -> None:
    for card in catalog().cards:
        if card.where == "cloud":
            assert (card.usd_in is None) == (card.price_source is None) == (card.price_as_of is None), card.id
            assert card.usd_in is None or (card.usd_in > 0 and card.usd_out is not None and card.usd_out > 0), card.id


def test_a_bundled_card_past_its_last_day_says_retired(file: Path) -> None:
    for card in catalog().cards:
        if card.retires is not None and card.retires <= "2026-12-01":
            assert card.status == "retired", card.id


def test_own_tokens_are_counted_by_the_factors_that_were_measured(file: Path) -> None:
    loaded = catalog()
    assert {card.token_factor for card in loaded.cards if card.id.startswith("claude")} == {1.26}
    assert loaded.card("mistral-large-2407").token_factor == 1.2
    assert loaded.card("gpt-4o-2024-08-06").token_factor == 1.0


# ---------------------------------------------------------------- finding cards and pools


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("gpt-4o-mini-2024", "gpt-4o-mini-2024-07-18"),
        ("LLAMA-3.1-8B-Instruct", "llama-3.1-8b-instruct"),
        ("athen", "athene-70b"),
    ],
)
def test_an_unknown_model_is_refused_with_the_nearest_ones(file: Path, typo: str, meant: str) -> None:
    with pytest.raises(UsageError, match=re.escape(meant)):
        catalog().card(typo)


def test_a_pool_is_chosen_by_name_or_by_models_joined_by_commas_or_as_a_list(file: Path) -> None:
    loaded = catalog(file, '[pools]\nmine = ["gpt-4o", "gemma-2-2b-it"]\n')
    expected = ("gpt-4o", "gemma-2-2b-it")
    for selection in ("mine", "gpt-4o, gemma-2-2b-it,", ["gpt-4o", "gemma-2-2b-it"]):
        assert tuple(card.id for card in loaded.pool(selection)) == expected
    assert [card.id for card in loaded.pool("gpt-4o")] == ["gpt-4o"]


def test_nothing_named_means_the_active_pool(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert catalog().pool() == catalog().pool("default")
    monkeypatch.setenv("SCOPE_EDGE_POOL", "gpt-4o")
    assert [card.id for card in catalog().pool()] == ["gpt-4o"]


@pytest.mark.parametrize(
    ("selection", "said"),
    [
        ("defualt", "neither a pool nor a model; did you mean default?"),
        ("gpt-4o,nonesuch", "unknown model 'nonesuch'"),
        ("gpt-4o,gpt-4o", "gpt-4o is named twice"),
        ("", "the pool names no model; give a pool's name, or model ids joined by commas"),
        (" , ", "the pool names no model"),
        ([], "the pool names no model"),
        ("none", "pool 'none' is empty; `scope-edge pool add MODEL --pool none`"),
        ("stale", "pool stale lists 'gone', which has no card; write it a card, or `scope-edge pool remove gone"),
    ],
)
def test_a_selection_that_makes_no_pool_is_refused(file: Path, selection: str | list[str], said: str) -> None:
    loaded = catalog(file, '[pools]\nnone = []\nstale = ["gone"]\n')
    with pytest.raises(UsageError) as caught:
        loaded.pool(selection)
    assert said in str(caught.value)


def test_retired_models_may_be_in_a_pool_and_can_be_told(file: Path) -> None:
    (card,) = catalog().pool("claude-3-haiku-20240307")
    assert is_retired(card)


def test_a_model_retires_on_its_announced_day() -> None:
    card = ModelCard("m", "cloud", status="available", retires="2027-01-14")
    assert not is_retired(card, date(2027, 1, 13))
    assert is_retired(card, date(2027, 1, 14))


# ---------------------------------------------------------------- the user's own cards


def test_a_new_card_joins_after_the_bundled_ones(file: Path) -> None:
    loaded = catalog(file, NEW_CLOUD + 'retires = 2027-01-01\nnote = "ours"\n')
    card = loaded.cards[-1]
    assert (card.id, card.usd_in, card.usd_out, card.token_factor) == ("mine", 1.0, 2.0, 1.0)
    assert (card.retires, card.status, card.context_tokens) == ("2027-01-01", "unknown", None)
    assert loaded.own_cards == {"mine"}


def test_a_field_of_a_bundled_card_can_be_overridden_alone(file: Path) -> None:
    before = catalog().card("llama-3.1-70b-instruct")
    after = catalog(file, '[models."llama-3.1-70b-instruct"]\ncontext_tokens = 1000\n').card("llama-3.1-70b-instruct")
    assert after.context_tokens == 1000
    assert (after.usd_in, after.price_source, after.licence) == (before.usd_in, before.price_source, before.licence)


def test_an_overridden_price_is_not_dated_by_the_bundled_source(file: Path) -> None:
    card = catalog(file, '[models."gpt-4o"]\nusd_in = 1\n').card("gpt-4o")
    assert (card.usd_in, card.usd_out) == (1.0, 10.0)
    assert card.price_as_of is None and card.price_source is None


def test_moving_a_device_model_to_the_cloud_does_not_make_the_cloud_free(file: Path) -> None:
    card = catalog(file, '[models."gemma-2-2b-it"]\nwhere = "cloud"\n').card("gemma-2-2b-it")
    assert card.usd_in is None and card.usd_out is None


def test_a_card_without_prices_is_unpriced_not_free(file: Path) -> None:
    card = catalog(file, '[models."mine"]\nwhere = "cloud"\n').card("mine")
    assert card.usd_in is None and card.usd_out is None


@pytest.mark.parametrize("id", ["gpt-oss:120b-cloud", "Kimi-K2-Cloud", "glm-4.6:cloud"])
def test_a_name_ending_in_cloud_is_never_device(file: Path, id: str) -> None:
    assert "runs at a vendor" in refused(file, f'[models."{id}"]\nwhere = "device"\nusd_in = 0\nusd_out = 0\n')
    assert catalog(file, f'[models."{id}"]\nwhere = "cloud"\n').card(id).where == "cloud"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("usd_in = 1\nusd_out = 1", 'does not say where it runs; add where = "device" or where = "cloud"'),
        ('where = "clod"', "where must be one of device, cloud, not 'clod'; did you mean cloud?"),
        ('where = "cloud"\nusd_inn = 1', "usd_inn is not a field of a card; did you mean usd_in?"),
        ('where = "cloud"\nusd_in = 1', "half a price; add usd_out"),
        ('where = "cloud"\nusd_in = -1\nusd_out = 1', "usd_in must be a finite number of at least 0, not -1"),
        ('where = "cloud"\nusd_in = nan\nusd_out = 1', "not nan; leave out what is not known"),
        ('where = "cloud"\nusd_in = inf\nusd_out = 1', "not inf"),
        ('where = "cloud"\nusd_in = "free"\nusd_out = 1', "not 'free'"),
        ('where = "cloud"\ntoken_factor = 0', "token_factor must be above 0"),
        ('where = "cloud"\ncontext_tokens = 1e6', "context_tokens must be a whole number above 0"),
        ('where = "cloud"\ncontext_tokens = 0', "context_tokens must be a whole number above 0"),
        ('where = "cloud"\nstatus = "gone"', "status must be one of available, retired, unknown"),
        ('where = "cloud"\nretires = "soon"', "retires must be a date such as 2026-11-05, not 'soon'"),
        ('where = "cloud"\nretires = "2026-13-01"', "retires must be a date"),
        ('where = "cloud"\nnote = "two\\nlines"', "note must be text on one line"),
    ],
)
def test_a_card_that_cannot_be_used_is_refused_by_file_model_and_field(file: Path, lines: str, said: str) -> None:
    message = refused(file, f'[models."mine"]\n{lines}\n')
    assert message.startswith(f'{file}, [models."mine"]: ')
    assert said in message


@pytest.mark.parametrize("id", ["a b", "a,b", "a\\nb", "", "x" * 201])
def test_a_model_id_that_could_not_be_typed_is_refused(file: Path, id: str) -> None:
    assert "a model id is 1 to 200 characters" in refused(file, f'[models."{id}"]\nwhere = "cloud"\n')


def test_two_cards_that_differ_in_capitals_only_are_refused(file: Path) -> None:
    assert "differs from gpt-4o in capitals only" in refused(file, '[models."GPT-4o"]\nwhere = "cloud"\n')


# ---------------------------------------------------------------- docs/models.md


def documented() -> str:
    return (ROOT / "docs" / "models.md").read_text("utf-8")


def test_the_documented_default_pool_is_the_bundled_one(file: Path) -> None:
    rows = re.findall(r"^\| (\S+) \| (device|cloud) \| (\S+) \| (\S+) \| (\S*) ?\|$", documented(), re.MULTILINE)
    bundled = [
        (card.id, card.where, f"{card.usd_in:g}", f"{card.usd_out:g}", card.price_as_of or "")
        for card in catalog().pool("default")
    ]
    assert rows == bundled


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ('endpoint = "api.vendor.example/v1"', "must be an address such as"),
        ('endpoint = "ftp://vendor.example/v1"', "must be an address such as"),
        ('endpoint = "https://vendor.example/v1?key=SECRET-KEY"', "must be an address such as"),
        ('endpoint = "https://me:SECRET-KEY@vendor.example/v1"', "no user name or key in it"),
        ('endpoint = "https://vendor.example/v1"\nkey_env = "sk-SECRET-KEY"', "never the key itself"),
        ('endpoint = "https://vendor.example/v1"\nkey_env = "gsk_SECRETKEYs"', "never the key itself"),
        ('endpoint = "http://vendor.example/v1"\nkey_env = "KEY"', "in the clear; write https://"),
        ('endpoint = "http://8.8.8.8/v1"\nkey_env = "KEY"', "in the clear; write https://"),
        ('endpoint = "https://vendor.example/v1"\nwhere = "device"', "is another machine"),
        ('endpoint = "http://127.0.0.1:1/v1"\nwhere = "device"\nserved_as = "gpt-oss:120b-cloud"', "runs at a vendor"),
        ('endpoint = "http://127.0.0.1:1/v1"\nwhere = "device"\ngguf = "a.gguf"', "remove the one"),
        ('gguf = "a.gguf"', 'write where = "device"'),
        ('served_as = "x"', "add endpoint"),
        ('endpoint = "https://vendor.example/v1?key=SECRET"', "nothing after ? but api-version"),
        ('key_env = "KEY"', "add endpoint"),
    ],
)
def test_a_call_that_cannot_be_is_refused_without_repeating_a_key(file: Path, fields: str, complaint: str) -> None:
    where = "" if "where" in fields else 'where = "cloud"\n'
    with pytest.raises(UsageError) as refused:
        catalog(file, f'[models."mine"]\n{where}{fields}\n')
    assert complaint in str(refused.value) and '[models."mine"]' in str(refused.value)
    assert "SECRET" not in str(refused.value)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("https://vendor.example/v1/", "https://vendor.example/v1"),
        ("https://vendor.example/v1/chat/completions", "https://vendor.example/v1"),
        ("http://127.0.0.1:11434/v1", "http://127.0.0.1:11434/v1"),
        ("http://192.168.1.4:8000/v1", "http://192.168.1.4:8000/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        (
            "https://me.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21",
            "https://me.openai.azure.com/openai/deployments/d?api-version=2024-10-21",
        ),
    ],
)
def test_an_address_as_people_copy_it(file: Path, address: str, url: str) -> None:
    fields = f'where = "cloud"\nendpoint = "{address}"\nkey_env = "VENDOR_KEY"\nserved_as = "their/name"\n'
    card = catalog(file, f'[models."mine"]\n{fields}').card("mine")
    assert (card.endpoint, card.key_env, card.served_as) == (url, "VENDOR_KEY", "their/name")


def test_the_documented_examples_load(file: Path) -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```", documented(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 4
    for block in blocks:
        loaded = catalog(file, block)
        assert all(loaded.pool(name) for name in loaded.own_pools)


def test_the_documented_python_example_runs(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", documented(), re.DOTALL | re.MULTILINE)
    exec(compile(block, "docs/models.md", "exec"), {})
    assert "gemma-3-4b-it device 0.0 0.0" in capsys.readouterr().out


def test_every_setting_and_every_field_of_a_card_is_documented() -> None:
    rows = "\n".join(line for line in documented().splitlines() if line.startswith("| `"))
    fields = [field.name for field in dataclasses.fields(ModelCard) if field.name != "id"]
    for name in (*CHECKS, *fields):
        assert f"`{name}`" in rows, name
