"""Anchors that the map placed get their difficulty from the models measured on them, in step with the abilities."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scope_edge.estimation.ability import Population, fit_correct
from scope_edge.estimation.anchor_spec import load_core
from scope_edge.estimation.anchors import AnchorSet, set_body
from scope_edge.estimation.fingerprints import Fingerprint, fingerprints_body, load_fingerprints
from scope_edge.estimation.irt import load_irt_model
from scope_edge.estimation.newton import sigmoid
from scope_edge.estimation.refit import Placed, anchors_for, is_placed, refitted, update
from scope_edge.factory import load_pipeline
from scope_edge.fingerprinting.run import save_fingerprint
from scope_edge.settings.config import load_settings
from scope_edge.storage.packs import read_pack, write_pack
from scope_edge.types import Query

BASIS = load_irt_model()
POPULATION = BASIS.population
CORE = replace(load_core().anchors, own=True)
BUNDLED = load_fingerprints()[1]
# What they did on bundled sets says how able they are.
KNOWN = sorted(BUNDLED)
Fingerprints = dict[str, tuple[Fingerprint, ...]]


def truth(seed: int = 0) -> np.ndarray:
    """Real difficulties of core-250, about as far from the map as the population says."""
    rng = np.random.default_rng(seed)
    return CORE.map_difficulty + rng.normal(size=len(CORE)) * np.sqrt(CORE.domains @ POPULATION.unexplained)


def answered(model: str, difficulty: np.ndarray, seed: int, mean: np.ndarray | None = None) -> Fingerprint:
    """What a model of its known ability does on core-250, where that is as hard as that."""
    placed = Placed.of(CORE, POPULATION)
    able = fit_correct(BUNDLED[model], POPULATION)[0] if mean is None else mean
    p = sigmoid(placed.rows @ able - placed.slope * difficulty)
    correct = (np.random.default_rng(seed).random(len(p)) < p).astype(float)
    return Fingerprint(model, CORE, correct, np.full(len(p), 100.0))


def measured(models: list[str], difficulty: np.ndarray) -> Fingerprints:
    return {m: (*BUNDLED[m], answered(m, difficulty, seed)) for seed, m in enumerate(models)}


def core_of(parts: tuple[Fingerprint, ...]) -> AnchorSet:
    return next(part.anchors for part in parts if part.anchors.name == CORE.name)


def test_with_nobody_or_one_model_the_map_is_all_there_is() -> None:
    assert refitted(BUNDLED, BASIS, BUNDLED) is BUNDLED
    one = measured(KNOWN[:1], truth())
    assert core_of(refitted(one, BASIS, one)[KNOWN[0]]) is CORE
    assert anchors_for(KNOWN[0], CORE, one, BASIS) is CORE


def test_the_more_models_the_nearer_to_the_truth() -> None:
    difficulty = truth()
    errors = [np.sqrt(np.mean((CORE.difficulty - difficulty) ** 2))]
    for count in (2, 6, 20):
        found = anchors_for("new", CORE, measured(KNOWN[:count], difficulty), BASIS)
        errors.append(float(np.sqrt(np.mean((found.difficulty - difficulty) ** 2))))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.7 * errors[0]


def test_a_model_asked_what_the_map_misjudges_is_placed_better_and_surer() -> None:
    difficulty = truth()
    found = anchors_for("new", CORE, measured(KNOWN[:20], difficulty), BASIS)
    hardest = np.argsort(CORE.map_difficulty - difficulty)[:50]
    errors: dict[str, list[float]] = {"map": [], "refit": []}
    deviations: dict[str, list[float]] = {"map": [], "refit": []}
    for seed, model in enumerate(KNOWN[20:40]):
        able = fit_correct(BUNDLED[model], POPULATION)[0]
        answers = answered(model, difficulty, 100 + seed)
        correct = np.full(len(CORE), np.nan)
        correct[hardest] = answers.correct[hardest]
        for name, anchors in (("map", CORE), ("refit", found)):
            mean, covariance = fit_correct([replace(answers, anchors=anchors, correct=correct)], POPULATION)
            errors[name].append(abs(float(mean[0] - able[0])))
            deviations[name].append(float(np.sqrt(covariance[0, 0])))
    assert np.mean(deviations["refit"]) < np.mean(deviations["map"])
    assert np.mean(errors["refit"]) < 0.7 * np.mean(errors["map"])


def test_a_model_is_not_judged_by_what_it_said_itself() -> None:
    """Were its own answers in its anchors' difficulty, what it gets right would look easy."""
    pair = measured(KNOWN[:2], truth())
    first, second = KNOWN[:2]
    early = np.arange(len(CORE)) < 125
    turned = replace(pair[second][-1], correct=early.astype(float))
    other = {**pair, second: (*BUNDLED[second], turned)}
    gap: dict[str, list[float]] = {first: [], second: []}
    for parts in (pair, other):
        for model, seen in refitted(parts, BASIS, parts).items():
            away = core_of(seen).difficulty - CORE.map_difficulty
            gap[model].append(float(away[~early].mean() - away[early].mean()))
    assert abs(gap[second][1] - gap[second][0]) < 0.1
    assert gap[first][1] > gap[first][0] + 0.2, "it tells the other one, though"


def test_leaving_one_out_is_as_if_it_had_not_been_there() -> None:
    placed, difficulty = Placed.of(CORE, POPULATION), truth()
    models = KNOWN[:6]
    outcomes = {m: answered(m, difficulty, seed).correct for seed, m in enumerate(models)}
    abilities = {m: fit_correct(BUNDLED[m], POPULATION) for m in models}
    whole = update(placed, outcomes, abilities)
    for model in models:
        without = update(placed, {m: one for m, one in outcomes.items() if m != model}, abilities)
        seen = whole.excluding(model, placed)
        assert seen.difficulty == pytest.approx(without.excluding("", placed).difficulty, abs=0.12)
        assert seen.discrimination == pytest.approx(without.excluding("", placed).discrimination, rel=0.05)
    alone = update(placed, {models[0]: outcomes[models[0]]}, abilities)
    # The mode is found to within a ten-thousandth of a logit.
    assert alone.excluding(models[0], placed).difficulty == pytest.approx(CORE.map_difficulty, abs=1e-4)


def test_the_mode_is_a_mode() -> None:
    """The posterior, written down once more, is nowhere higher near what was found."""
    placed, difficulty = Placed.of(CORE, POPULATION), truth()
    mean, covariance = fit_correct(BUNDLED[KNOWN[0]], POPULATION)
    correct = answered(KNOWN[0], difficulty, 1).correct
    correct[::7] = np.nan
    found = update(placed, {"a": correct}, {"a": (mean, covariance)}).difficulty
    blur = 1 / np.sqrt(1 + np.pi / 8 * np.einsum("ij,jk,ik->i", placed.rows, covariance, placed.rows))

    def loss(at: np.ndarray) -> np.ndarray:
        logit = blur * (placed.rows @ mean - placed.slope * at)
        said = np.where(np.isnan(correct), 0.0, np.logaddexp(0, logit) - np.nan_to_num(correct) * logit)
        return said + (at - CORE.map_difficulty) ** 2 / placed.variance / 2

    for away in (-0.05, 0.05):
        assert (loss(found + away) > loss(found)).all()
    assert found[::7] == pytest.approx(CORE.map_difficulty[::7])


def test_the_scale_stays_the_maps() -> None:
    """A set on which everybody did better than the map says is not taken to be easier: queries like these are so, too."""
    known = measured(KNOWN[:12], truth() - 1.0)
    after = refitted(known, BASIS, known)
    assert abs(np.mean(core_of(after[KNOWN[0]]).difficulty - CORE.map_difficulty)) < 0.2
    found = anchors_for("new", CORE, known, BASIS)
    away = found.difficulty - CORE.map_difficulty
    assert np.corrcoef(away, truth() - CORE.map_difficulty)[0, 1] > 0.6, "which of them are harder is learned"


def test_order_does_not_matter() -> None:
    known = measured(KNOWN[:5], truth())
    turned = {model: known[model][::-1] for model in reversed(known)}
    first, second = (refitted(one, BASIS, known)[KNOWN[2]] for one in (known, turned))
    assert np.array_equal(core_of(first).difficulty, core_of(second).difficulty)


def test_what_bundled_sets_say_stays() -> None:
    known = measured(KNOWN[:3], truth())
    after = refitted(known, BASIS, known)
    for before, now in zip(known[KNOWN[0]][:-1], after[KNOWN[0]], strict=False):
        assert not is_placed(before.anchors) and now is before


@pytest.fixture
def data(own_folders: Path) -> Path:
    """core-250 asked of five models the user has, and a sixth that is in no pool of theirs."""
    for model, parts in measured([*KNOWN[:5], KNOWN[5]], truth()).items():
        assert save_fingerprint(parts[-1], {}).exists(), model
    return own_folders


def routed(pool: str) -> dict[str, float | None]:
    settings = load_settings({"pool": pool, "estimator": "prior"})
    decision = load_pipeline(settings).route(Query("How many primes are there below 90?"), settings.preference())
    return {row.model: row.p_correct for row in decision.candidates}


def test_routing_uses_it_and_remembers_it(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ",".join(KNOWN[:3])
    first = routed(pool)
    cache = data / "cache" / "refit.pack"
    kept = read_pack(cache, "refit-cache")
    monkeypatch.setattr("scope_edge.estimation.refit.joint_refit", None)
    assert routed(pool) == first, "read from the cache"
    monkeypatch.undo()
    monkeypatch.setenv("SCOPE_EDGE_CACHE_DIR", str(data / "cache"))
    monkeypatch.setattr("scope_edge.estimation.refit.refitted", lambda parts, *_, **__: parts)
    assert routed(pool) != first, "the map alone says otherwise"
    assert kept["told"]["core-250"]["models"] == sorted(KNOWN[:6]), "models outside the pool tell too"


@pytest.mark.parametrize("how", ["damaged", "stale", "foreign", "unwritable"])
def test_a_cache_that_does_not_fit_is_made_again(data: Path, how: str) -> None:
    pool, cache = ",".join(KNOWN[:3]), data / "cache" / "refit.pack"
    first = routed(pool)
    if how == "damaged":
        cache.write_bytes(cache.read_bytes()[:-1])
    elif how == "stale":
        (data / "data" / "fingerprints" / f"{KNOWN[5]}.core-250.pack").unlink()
    elif how == "foreign":
        write_pack(cache, "refit-cache", {**read_pack(cache, "refit-cache"), "told": {}})
    else:
        cache.unlink()
        cache.mkdir()
    assert (routed(pool) == first) == (how != "stale")


def test_own_sets_whose_difficulty_was_measured_stay(data: Path) -> None:
    one = BUNDLED[KNOWN[0]][0].anchors
    mine = replace(one, name="mine", ids=tuple(f"mine/{i}" for i in range(len(one))), own=True)
    write_pack(data / "data" / "anchors" / "mine.pack", "anchor-sets", {"sets": [set_body(mine)]})
    rows = [replace(BUNDLED[m][0], anchors=mine) for m in KNOWN[:2] if len(BUNDLED[m][0].anchors) == len(mine)]
    write_pack(data / "data" / "fingerprints" / "mine.pack", "fingerprints", fingerprints_body({"mine": rows}))
    found = load_fingerprints()[1]
    after = refitted(found, BASIS, KNOWN[:2])[rows[0].model]
    assert np.array_equal(next(p.anchors for p in after if p.anchors.name == "mine").difficulty, mine.difficulty)


def test_population_of_the_map_is_the_one_the_anchors_were_placed_by() -> None:
    assert isinstance(POPULATION, Population)
    placed = Placed.of(CORE, POPULATION)
    again = placed.seen(CORE.difficulty, placed.variance)
    assert again.discrimination == pytest.approx(CORE.discrimination, rel=1e-4)
    assert again.traits == pytest.approx(CORE.traits, abs=1e-4)
