"""Personal calibration: it mends what is wrong, leaves alone what is not, is never scored with itself, and goes stale."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cli_cases import QUERY, Cli

from scope_edge.errors import UsageError
from scope_edge.estimation.ability import design
from scope_edge.estimation.anchors import AnchorSet, set_body, text_hash
from scope_edge.estimation.calibration import Calibration
from scope_edge.estimation.fingerprints import Fingerprint, load_fingerprints
from scope_edge.estimation.irt import IrtEstimator, IrtModel, load_irt_model
from scope_edge.estimation.newton import sigmoid
from scope_edge.estimation.refit import PlacedQuestion, place
from scope_edge.estimation.user_calibration import Personal, forget_personal, load_personal, save_personal
from scope_edge.fingerprinting.run import save_fingerprint
from scope_edge.storage.packs import write_pack
from scope_edge.tuning.calibrate import CalibrationResult, calibrate_pool
from scope_edge.tuning.cross_validation import is_fair, predict
from scope_edge.types import ModelCard

MODELS = ("mine-a", "mine-b")
CARDS = tuple(ModelCard(id=model, where="cloud", usd_in=1.0, usd_out=1.0) for model in MODELS)


@pytest.fixture(scope="module")
def basis() -> IrtModel:
    return load_irt_model()


@pytest.fixture(scope="module")
def anchors(basis: IrtModel) -> AnchorSet:
    """240 placed anchors without text, of places the bank knows."""
    reference, n = basis.reference, 240
    places = reference.places.take(np.arange(0, 5 * n, 5))
    slope = places.domains @ basis.population.discrimination
    return AnchorSet(
        name="own",
        ids=tuple(f"own/{i}" for i in range(n)),
        categories=("own/all",) * n,
        vectors=np.eye(n, 384, dtype=np.float32),
        prompt_tokens=np.full(n, 50.0),
        difficulty=places.difficulty,
        discrimination=slope,
        log_length=places.log_length,
        map_difficulty=places.difficulty,
        domains=places.domains,
        traits=places.traits,
        linked=False,
        own=True,
    )


def measured(
    anchors: AnchorSet, basis: IrtModel, *, slope: float = 1.0, longer: float = 1.0, seed: int = 0
) -> dict[str, tuple[Fingerprint, ...]]:
    """Two models of middling ability whose outcomes follow the map, but for a slope, and lengths of a width."""
    rng, found = np.random.default_rng(seed), {}
    offsets = -anchors.discrimination * anchors.difficulty
    for model, up in zip(MODELS, (0.3, -0.3), strict=True):
        ability = basis.population.mean.copy()
        ability[0] += up
        logit = slope * (design(anchors) @ ability + offsets)
        correct = (rng.random(len(anchors)) < sigmoid(logit)).astype(float)
        tokens = np.exp(anchors.log_length + longer * rng.normal(size=len(anchors)))
        found[model] = (Fingerprint(model, anchors, correct, tokens),)
    return found


def calibrated(basis: IrtModel, fingerprints: dict[str, tuple[Fingerprint, ...]]) -> CalibrationResult:
    return calibrate_pool(basis, CARDS, fingerprints, 0.9)


def test_estimates_that_are_too_sure_are_pulled_in_and_that_helps(basis: IrtModel, anchors: AnchorSet) -> None:
    found = calibrated(basis, measured(anchors, basis, slope=0.15))
    assert found.full.slope < 0.6 and "probability" in found.helps
    assert found.personal.slope == found.full.slope
    assert found.after["all"].logloss < found.before["all"].logloss
    assert set(found.before) == set(found.after) == {*MODELS, "all"}


def test_outcomes_that_are_noise_are_not_believed_whatever_is_fitted_to_them(
    basis: IrtModel, anchors: AnchorSet
) -> None:
    # Right half of the time, whatever the question: scored with what was fitted to it, any slope would seem to help more.
    rng = np.random.default_rng(1)
    noise = {
        model: (replace(part, correct=rng.integers(0, 2, len(anchors)).astype(float)),)
        for model, (part,) in measured(anchors, basis).items()
    }
    after = calibrated(basis, noise).after["all"].logloss
    assert after > np.log(2) - 0.005, "no prediction of a coin does better than not to know"


def test_too_few_outcomes_are_refused_and_so_are_none(basis: IrtModel, anchors: AnchorSet) -> None:
    few = {
        model: (replace(part, correct=np.where(np.arange(len(anchors)) < 20, part.correct, np.nan)),)
        for model, (part,) in measured(anchors, basis).items()
    }
    with pytest.raises(UsageError, match="you measured 40 outcomes"):
        calibrated(basis, few)
    with pytest.raises(UsageError, match="no model of the pool was measured by you"):
        calibrated(basis, {})


def test_outcomes_on_core_sets_and_bundled_ones_are_no_fair_sample(basis: IrtModel, anchors: AnchorSet) -> None:
    (part,) = measured(anchors, basis)[MODELS[0]]
    assert is_fair(part)
    assert not is_fair(replace(part, own=False))
    assert not is_fair(replace(part, anchors=replace(anchors, own=False)))
    bundled = load_fingerprints()[1]["gemma-2-2b-it"]
    assert not any(is_fair(one) for one in bundled if not one.own)


def test_questions_that_taught_the_bank_do_not_count(basis: IrtModel, anchors: AnchorSet) -> None:
    texts = tuple(f"question {i}" for i in range(len(anchors)))
    known = replace(anchors, texts=texts)
    taught = {text_hash(text) for text in texts[:100]}
    prints = measured(known, basis)
    found = calibrate_pool(basis, CARDS, prints, 0.9, taught=taught)
    assert found.before["all"].outcomes == 2 * (len(anchors) - 100)


def test_an_outcome_is_predicted_without_itself(basis: IrtModel, anchors: AnchorSet) -> None:
    few = replace(measured(anchors, basis)[MODELS[0]][0])
    kept = np.arange(len(anchors)) < 20
    part = replace(few, correct=np.where(kept, few.correct, np.nan))
    turned = part.correct.copy()
    turned[7] = 1 - turned[7]
    folds = {id: i % 5 for i, id in enumerate(anchors.ids)}

    def logits(correct: np.ndarray) -> np.ndarray:
        seen = predict(basis, CARDS[0], [replace(part, correct=correct)], 0.9, (folds, None))
        return seen.logit

    before, after = logits(part.correct), logits(turned)
    assert before[7] == pytest.approx(after[7], abs=1e-12)
    assert abs(np.delete(before - after, 7)).min() > 1e-6, "the others do know it"
    # What scores a fold is fitted to predictions that do not know that fold.
    left = [
        predict(basis, CARDS[0], [replace(part, correct=one)], 0.9, (folds, 7 % 5)).logit
        for one in (part.correct, turned)
    ]
    np.testing.assert_allclose(left[0], left[1], atol=1e-12)


def test_a_bound_that_covers_too_little_is_widened(basis: IrtModel, anchors: AnchorSet) -> None:
    narrow = calibrated(basis, measured(anchors, basis, longer=0.3)).full.widening
    assert 0.3 < narrow < 2.0


def test_it_holds_for_its_models_and_no_others(basis: IrtModel) -> None:
    personal = Personal(0.5, 0.25, 1.5, ("mine-a",))
    plain = Calibration(np.array([0.9, 1.1]), np.array([0.1, -0.1]))
    mine = personal.on(plain, ("other", "mine-a"))
    np.testing.assert_allclose(mine.slope, [[0.9, 1.1], [0.45, 0.55]])
    np.testing.assert_allclose(mine.intercept, [[0.1, -0.1], [0.3, 0.2]])
    np.testing.assert_allclose(mine.widening, [1.0, 1.5])


def test_one_query_and_many_are_corrected_alike(basis: IrtModel, anchors: AnchorSet) -> None:
    personal = Personal(0.5, 0.25, 1.5, ("mine-a",))
    prints = measured(anchors, basis)
    plain, mine = (IrtEstimator(basis, CARDS, prints, coverage=0.9, personal=one) for one in (None, personal))
    places = basis.reference.places.take(np.arange(3))
    # What is unknowable is taken off afterwards.
    places = replace(places, unknowable=np.zeros(3))
    before, after = (one.table(places, np.ones(3)) for one in (plain, mine))
    logit = np.log(before.p_correct / (1 - before.p_correct))
    np.testing.assert_allclose(after.p_correct[:, 0], sigmoid(0.5 * logit[:, 0] + 0.25), rtol=1e-4)
    np.testing.assert_allclose(after.p_correct[:, 1], before.p_correct[:, 1])
    reach = np.log(after.tokens_hi / after.tokens) / np.log(before.tokens_hi / before.tokens)
    np.testing.assert_allclose(reach, [[1.5, 1.0]] * 3)
    one = mine.at(places.take(1), 1.0)
    np.testing.assert_allclose(one.p_correct, after.p_correct[1], rtol=1e-9)
    np.testing.assert_allclose(one.tokens_hi, after.tokens_hi[1], rtol=1e-9)


class TestKept:
    """What is kept in the data folder, and for how long it holds."""

    @pytest.fixture(autouse=True)
    def folders(self, own_folders: Path) -> None:
        self.data = own_folders / "data"

    def test_it_holds_until_an_outcome_changes(self, basis: IrtModel, anchors: AnchorSet) -> None:
        prints, personal = measured(anchors, basis), Personal(0.8, 0.1, 1.0, MODELS)
        assert load_personal(prints).found is load_personal(prints).ignored is None
        save_personal(personal, prints)
        assert load_personal(prints).found == personal
        (part,) = prints["mine-a"]
        changed = part.correct.copy()
        changed[0] = 1 - changed[0]
        loaded = load_personal({**prints, "mine-a": (replace(part, correct=changed),)})
        assert loaded.found is None and "another set of fingerprints" in str(loaded.ignored)
        assert load_personal({**prints, "other": prints["mine-b"]}).found == personal

    @pytest.mark.parametrize("damage", [b"", b"nonsense", None])
    def test_a_damaged_one_is_ignored_and_said_so(
        self, basis: IrtModel, anchors: AnchorSet, damage: bytes | None
    ) -> None:
        prints, path = measured(anchors, basis), self.data / "calibration.pack"
        save_personal(Personal(0.8, 0.1, 1.0, MODELS), prints)
        raw = path.read_bytes()
        path.write_bytes(raw[:-9] + b"x" + raw[-8:] if damage is None else damage)
        loaded = load_personal(prints)
        assert loaded.found is None and str(path) in str(loaded.ignored) and "--forget" in str(loaded.ignored)

    def test_a_slope_that_would_turn_the_order_round_is_not_used(self, basis: IrtModel, anchors: AnchorSet) -> None:
        prints = measured(anchors, basis)
        save_personal(Personal(-1.0, 0.0, 1.0, MODELS), prints)
        assert load_personal(prints).found is None

    def test_forgetting_says_whether_there_was_one(self, basis: IrtModel, anchors: AnchorSet) -> None:
        save_personal(Personal(0.8, 0.1, 1.0, MODELS), measured(anchors, basis))
        assert (forget_personal(), forget_personal()) == (True, False)


@pytest.fixture(scope="module")
def asked() -> AnchorSet:
    """80 questions of the user's, placed by the real encoder and map."""
    kinds = (
        "What is {} plus {}?",
        "Is {} divisible by {}?",
        "Name the ruler of the year {} in the reign of king {}.",
        "Prove that {}^n > {} for some n.",
    )
    return place(
        "ours", [PlacedQuestion(str(i), "all", kinds[i % 4].format(i + 11, i % 7 + 2)) for i in range(80)], own=True
    )


class TestCommand:
    """`scope-edge calibrate` as a user meets it."""

    @pytest.fixture
    def cli(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
        return Cli(tmp_path, monkeypatch, capsys)

    def measure(self, cli: Cli, asked: AnchorSet) -> None:
        """Two cards whose outcomes are coins: the prior is too sure of them."""
        rng = np.random.default_rng(0)
        write_pack(cli.folder / "data/anchors/ours.pack", "anchor-sets", {"sets": [set_body(asked)]})
        for model in MODELS:
            correct = rng.integers(0, 2, len(asked)).astype(float)
            save_fingerprint(Fingerprint(model, asked, correct, np.full(len(asked), 100.0)), {}, "a test")
        cards = "".join(f'[models.{model}]\nwhere = "cloud"\nusd_in = 1\nusd_out = 1\n' for model in MODELS)
        (cli.folder / "config.toml").write_text('pool = "ours"\n[pools]\nours = ["mine-a", "mine-b"]\n' + cards)

    def test_it_is_shown_stored_used_told_of_when_stale_and_forgotten(self, cli: Cli, asked: AnchorSet) -> None:
        self.measure(cli, asked)
        before = cli("route", "--json", QUERY).json
        dry = cli("calibrate", "--dry-run", "--anyway", "--json").json
        assert not dry["stored"] and not (cli.folder / "data/calibration.pack").exists()
        ended = cli("calibrate", "--anyway")
        assert ended.code == 0 and "before" in ended.out and "after" in ended.out and "stored in" in ended.out
        after = cli("route", "--json", QUERY).json
        assert [one["p_correct"] for one in after["candidates"]] != [one["p_correct"] for one in before["candidates"]]
        assert not any("calibration" in line for line in cli("doctor", "--json").json["degraded"])
        changed = np.ones(len(asked))
        save_fingerprint(Fingerprint("mine-a", asked, changed, np.full(len(asked), 100.0)), {}, "a test")
        (told,) = [line for line in cli("doctor", "--json").json["degraded"] if "calibration" in line]
        assert "another set of fingerprints" in told
        assert cli("calibrate", "--forget", "--json").json["forgotten"] is True
        assert "no calibration" in cli("calibrate", "--forget").out

    def test_without_a_gain_nothing_is_stored(self, cli: Cli, asked: AnchorSet) -> None:
        self.measure(cli, asked)
        body = cli("calibrate", "--json").json
        assert body["stored"] == bool(body["helps"]) == (cli.folder / "data/calibration.pack").exists()
        assert json.dumps(body["after"]["all"]) != json.dumps(body["before"]["all"])

    def test_with_nothing_of_the_users_own_it_says_what_to_do(self, cli: Cli) -> None:
        ended = cli("calibrate")
        assert ended.code == 2 and "scope-edge import" in ended.complaint

    @pytest.mark.parametrize(
        ("args", "words"),
        [
            (["--limit", "3"], "--limit is for --estimator gguf"),
            (["--estimator", "gguf", "--dry-run"], "--dry-run is for --estimator prior"),
            (["--forget", "--anyway"], "--forget only removes"),
        ],
    )
    def test_options_that_do_not_go_together_are_refused(self, cli: Cli, args: list[str], words: str) -> None:
        ended = cli("calibrate", *args)
        assert ended.code == 2 and words in ended.complaint
