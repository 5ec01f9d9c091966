"""An evaluation scores what it did not learn from, says what each router is worth, and decides as `route` does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("sklearn")

from labelled_cases import ABILITIES, KINDS, Labelled, labelled

from scope_edge.encoding.encoder import Encoder
from scope_edge.errors import UsageError
from scope_edge.evaluation import replay
from scope_edge.evaluation.fit import refitted
from scope_edge.evaluation.live import EDITS, live_flow
from scope_edge.evaluation.predict import predict
from scope_edge.evaluation.report import ALL, UNSEEN, EvaluationReport
from scope_edge.evaluation.run import EvaluationRequest, cards_of, evaluate
from scope_edge.evaluation.splits import sources_of, split
from scope_edge.factory import open_cards, open_catalog
from scope_edge.settings.config import load_settings
from scope_edge.training.dataset import PooledReading, read_pooled
from scope_edge.types import Preference, Query

pytestmark = pytest.mark.usefixtures("short_live")

POOL = ("gemma-2-2b-it", "llama-3.1-8b-instruct", "llama-3.1-70b-instruct", "llama-3.1-405b-instruct")
NEW = ("other-3", "other-8")


@pytest.fixture(scope="module")
def whole() -> Labelled:
    return labelled(260)


@pytest.fixture
def user(own_folders: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new user, but for vectors, which all tests of this file share."""
    cache = tmp_path_factory.getbasetemp() / "vectors"
    cache.mkdir(exist_ok=True)
    monkeypatch.setenv("SCOPE_EDGE_CACHE_DIR", str(cache))
    return own_folders


def run(request: EvaluationRequest) -> EvaluationReport:
    (report,) = evaluate(request, load_settings()).values()
    return report


def held_back(whole: Labelled, folder: Path, test: Labelled | None = None) -> EvaluationRequest:
    """200 queries without the new models to learn from; the other 60, and the new models on all, in a test folder."""
    ids = [str(row["id"]) for row in whole.queries]
    known = whole.only(queries=ids[:200], models=set(ABILITIES) - set(NEW))
    fresh = test or whole.only(queries=ids[200:])
    material = whole.only(queries=ids[:200], models=NEW).outcomes
    return EvaluationRequest(
        data=(known.write(folder / "data"),),
        test=(Labelled(fresh.queries, fresh.outcomes + material).write(folder / "test"),),
    )


def shuffled(part: Labelled) -> Labelled:
    """The same with right and wrong dealt out anew."""
    order = np.random.default_rng(5).permutation(len(part.outcomes))
    dealt = [{**row, "correct": part.outcomes[i]["correct"]} for row, i in zip(part.outcomes, order, strict=True)]
    return Labelled(part.queries, tuple(dealt))


def test_a_test_folder_holds_what_is_scored_and_who_is_unseen(user: Path, whole: Labelled) -> None:
    report = run(held_back(whole, user))
    assert report.queries == 60
    assert {model for model, kind in report.models.items() if kind == "unseen"} == set(NEW)
    figures = report.prediction["scope-edge"]
    assert figures[UNSEEN].n == 60 * len(NEW)
    assert figures[ALL].n == 60 * len(ABILITIES)
    assert figures[UNSEEN].auc is not None and figures[UNSEEN].auc > 0.8


def test_outcomes_that_are_scored_teach_nothing(user: Path, whole: Labelled) -> None:
    ids = [str(row["id"]) for row in whole.queries]
    honest = run(held_back(whole, user / "a"))
    dealt = run(held_back(whole, user / "b", shuffled(whole.only(queries=ids[200:]))))
    for router in ("scope-edge", "knn5", "knn", "logreg"):
        before, after = (one.prediction[router][UNSEEN] for one in (honest, dealt))
        assert after.auc is not None and before.auc is not None
        assert after.auc < min(0.62, before.auc)
    predicted = [[(one.router, one.n, one.predicted) for one in report.reliability] for report in (honest, dealt)]
    assert predicted[0] == predicted[1], "what is predicted must not depend on what is scored"


def test_the_report_is_the_documented_object(user: Path, whole: Labelled) -> None:
    body = run(replace(held_back(whole, user), baselines=("knn5", "logreg"))).as_dict()
    assert {"data", "split", "seeds", "prediction", "routing", "paired", "curve", "latency_ms"} <= set(body)
    assert set(body["prediction"]) == {"scope-edge", "knn5", "logreg"}
    wanted = {"n", "accuracy", "auc", "brier", "logloss", "ece", "ece_floor", "length_log_mae", "coverage", "width"}
    assert wanted <= set(body["prediction"]["scope-edge"]["unseen"])
    point = {"router", "alpha", "accuracy", "usd_per_1k", "tokens", "device_share", "pgr", "cheapest_correct"}
    assert point <= set(body["routing"][0])
    routers = {row["router"] for row in body["routing"]}
    fixed = {"random", "cheapest", "dearest", "best-single", "always-device", "oracle"}
    assert routers == {"scope-edge", "scope-paper", "knn5", "logreg"} | fixed
    assert set(body["paired"][0]) == {"router", "against", "metric", "difference", "low", "high"}
    assert all(row["low"] <= row["difference"] <= row["high"] for row in body["paired"])


def test_fixed_routers_are_what_their_names_say(user: Path, whole: Labelled) -> None:
    report = run(held_back(whole, user))
    points = {one.router: one for one in report.routing if one.alpha is None}
    alone = {one.router: one for one in report.singles}
    assert set(alone) == set(report.pool) == set(POOL)
    assert points["oracle"].accuracy >= max(one.accuracy for one in report.routing)
    assert points["oracle"].pgr == pytest.approx(1.0) and points["oracle"].cheapest_correct == 1.0
    assert points["always-device"].device_share == 1.0 and points["always-device"].usd_per_1k == 0.0
    assert points["random"].accuracy == pytest.approx(np.mean([one.accuracy for one in alone.values()]))
    assert points["dearest"].usd_per_1k == max(one.usd_per_1k for one in alone.values() if one.usd_per_1k is not None)
    ours = [one for one in report.routing if one.router == "scope-edge"]
    spent = [one.usd_per_1k for one in ours]
    assert spent[0] == 0.0
    assert ours[-1].accuracy > ours[0].accuracy + 0.1, "alpha buys accuracy where better models are dearer"


def test_the_seeds_part_queries_and_models(user: Path, whole: Labelled) -> None:
    data = whole.write(user / "made")
    reading = read(data, Encoder.load())
    masks = [split(reading.data, seed) for seed in (0, 1)]
    for one in masks:
        assert 0.3 < one.scored.mean() < 0.7
        assert one.unseen.any() and not one.unseen.all()
        assert not (one.scored & one.taught).any()
    assert (masks[0].scored != masks[1].scored).any()
    again = split(reading.data, 0)
    assert (again.scored == masks[0].scored).all() and (again.unseen == masks[0].unseen).all()


def read(folder: Path, encoder: Encoder) -> PooledReading:
    return read_pooled(sources_of([folder]), open_catalog(load_settings()), encoder)


def test_families_and_equal_texts_are_never_parted(user: Path, encoder: Encoder) -> None:
    """Sources that are near copies of one question are families; a mere origin is none. Equal texts belong together."""
    rows = []
    for rule in range(12):
        for i in range(5):
            text = f"Apply rule {rule}: swap the letters of the word and then count the vowels in it. The word is number {i}."
            rows.append({"id": f"r{rule}-{i}", "text": text, "category": "rules", "source": f"rule-{rule}"})
    outcomes = [{"query_id": row["id"], "model": "m", "correct": i % 2} for i, row in enumerate(rows)]
    grouped = read(Labelled(tuple(rows), tuple(outcomes)).write(user / "grouped"), encoder).data
    assert len(set(grouped.groups)) == 12
    for seed in range(5):
        scored = split(grouped, seed, ()).scored
        for group in set(grouped.groups):
            assert len(set(scored[grouped.groups == group].tolist())) == 1
    made = labelled(40)
    twice = (*made.queries, {**made.queries[0], "id": "copy"})
    loose = read(Labelled(twice, made.outcomes).write(user / "loose"), encoder).data
    assert len(set(loose.groups)) == 40
    assert loose.groups[-1] == loose.groups[0]


def test_a_replayed_choice_is_the_one_the_router_makes(user: Path, whole: Labelled, encoder: Encoder) -> None:
    settings = load_settings()
    reading = read(whole.write(user / "made"), encoder)
    (part,) = refitted(reading.data, split(reading.data, 0))
    catalog = open_catalog(settings)
    found = predict(part, cards_of(catalog, part.names), 250, 0.9, (), lambda *_: None)
    cards = cards_of(catalog, POOL)
    replayed = replay.replay(cards, [found], (0.2, 0.5, 0.9), "all")
    router = live_flow(cards, found, encoder, 0.9)
    for alpha in (0.2, 0.5, 0.9):
        for policy, name in (("scope-edge", "scope-edge"), ("paper", "scope-paper")):
            chosen = replayed.chosen[name][alpha]
            for q in range(0, len(chosen), 7):
                text = str(reading.data.texts[replayed.query[q]])
                decision = router.route(Query(text), Preference(alpha=alpha, policy=policy))  # type: ignore[arg-type]
                assert decision.choice == POOL[chosen[q]], (alpha, policy, text)


def test_models_without_a_price_are_listed_and_a_file_gives_them_one(user: Path, whole: Labelled) -> None:
    request = replace(held_back(whole, user), pool="other-2,other-9,llama-3.1-405b-instruct", baselines=())
    report = run(request)
    assert report.left_out == {"other-2": "price unknown", "other-9": "price unknown"}
    assert not report.routing, "one model alone is no choice"
    prices = user / "prices.toml"
    prices.write_text(
        '[models."other-2"]\nusd_in = 0\nusd_out = 0\nwhere = "device"\n[models."other-9"]\nusd_in = 1\nusd_out = 2\n'
    )
    priced = run(replace(request, prices=prices))
    assert set(priced.pool) == {"other-2", "other-9", "llama-3.1-405b-instruct"}
    assert {one.router: one.device_share for one in priced.singles}["other-2"] == 1.0


def test_only_queries_that_all_compared_models_ran_are_compared(user: Path, whole: Labelled) -> None:
    gone = {str(row["id"]) for row in whole.queries[200::4]}
    holes = tuple(
        row for row in whole.outcomes if not (row["model"] == "llama-3.1-70b-instruct" and row["query_id"] in gone)
    )
    report = run(replace(held_back(Labelled(whole.queries, holes), user), baselines=()))
    assert report.common == 60 - len(gone)
    assert report.prediction["scope-edge"]["llama-3.1-70b-instruct"].n == 60 - len(gone)


def test_without_token_counts_nothing_is_said_of_length_or_cost(user: Path, whole: Labelled) -> None:
    bare = Labelled(whole.queries, tuple({**row, "completion_tokens": ""} for row in whole.outcomes))
    report = run(replace(held_back(bare, user), baselines=()))
    ours = report.prediction["scope-edge"][ALL]
    assert (ours.length_log_mae, ours.coverage, ours.width) == (None, None, None)
    for model in ("llama-3.1-70b-instruct", "llama-3.1-405b-instruct"):
        assert report.left_out[model] == "tokens unknown, so the cost is unknown"


def test_the_bundled_bank_is_not_scored_on_its_own_questions(user: Path, whole: Labelled) -> None:
    from scope_edge.estimation.anchors import taught_by

    known = sorted(taught_by()[0])[0]
    renamed = {row["id"]: f"mine-{row['id']}" if i else known for i, row in enumerate(whole.queries)}
    leaking = Labelled(
        tuple({**row, "id": renamed[row["id"]]} for row in whole.queries),
        tuple({**row, "query_id": renamed[row["query_id"]]} for row in whole.outcomes),
    )
    folder = leaking.write(user / "leaking")
    request = EvaluationRequest(data=(folder,), bank="bundled", baselines=(), seeds=tuple(range(8)))
    (leak,) = evaluate(request, load_settings()).values()
    assert any("1 questions that are in the bundled bank" in warning for warning in leak.warnings)
    clean = run(EvaluationRequest(data=(whole.write(user / "clean"),), bank="bundled", baselines=(), seeds=(0,)))
    assert set(clean.models) == set(POOL), "models without a fingerprint are not guessed"
    assert set(clean.models.values()) == {"seen"}


def test_fewer_anchors_tell_less(user: Path) -> None:
    report = run(EvaluationRequest(data=(labelled(400).write(user / "made"),), baselines=(), seeds=(0, 1, 2)))
    by_size = {one.anchors: one for one in report.adaptation}
    assert by_size[250].logloss < by_size[10].logloss


@pytest.mark.parametrize("edit", list(EDITS))
def test_edits_are_the_same_every_time_and_leave_most_of_a_text(edit: str) -> None:
    import random

    text = "The quick brown fox jumps over the lazy dog, and then it sleeps until the evening comes. " * 3
    once, again = (EDITS[edit](text, random.Random(3)) for _ in range(2))
    assert once == again != text
    assert abs(len(once.replace(" ", "")) - len(text.replace(" ", ""))) < 0.1 * len(text)


def test_too_little_data_is_refused_in_one_line(user: Path) -> None:
    few = labelled(40).write(user / "few")
    with pytest.raises(UsageError, match="left to learn from, fewer than 40 and 3"):
        evaluate(EvaluationRequest(data=(few,)), load_settings())


def test_sets_side_by_side_teach_one_bank_and_are_scored_each_by_itself(user: Path) -> None:
    first, second = labelled(120, seed=1), labelled(120, seed=2)
    root = user / "both"
    first.write(root / "one")
    second.write(root / "two")
    reports: Mapping[str, EvaluationReport] = evaluate(
        EvaluationRequest(data=(root,), baselines=(), seeds=(0,)), load_settings()
    )
    assert list(reports) == ["one", "two"]
    assert all({kind.category.partition("/")[2] for kind in one.fields} <= set(KINDS) for one in reports.values())


def test_a_limit_scores_fewer_queries_and_teaches_no_more(user: Path, whole: Labelled) -> None:
    reading = read(whole.write(user / "made"), Encoder.load())
    one = split(reading.data, 0)
    few = one.limited(20)
    assert few.scored.sum() == 20
    assert (few.scored <= one.scored).all() and (few.taught == one.taught).all()
    assert run(EvaluationRequest(data=(user / "made",), baselines=(), seeds=(0,), limit=20)).queries == 20


def test_an_installed_estimator_is_scored_in_the_priors_place(
    user: Path, whole: Labelled, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real GGUF of random weights: its word is noise, and the report must show that it was asked."""
    if find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed")
    from dataclasses import replace as changed

    from scope_edge.estimator.install import InstallOptions, install
    from scope_edge.estimator.store import write_manifest

    installed = install(str(tiny_gguf), InstallOptions(name="tiny", mode="direct"))
    write_manifest(changed(installed, samples=1))
    names = ("llama-3.1-70b-instruct", "llama-3.1-405b-instruct", "gemma-2-2b-it", *NEW)
    request = EvaluationRequest(
        data=(whole.only(models=names).write(user / "made"),), baselines=(), seeds=(0,), limit=12
    )
    with_prior, with_gguf = (run(changed(request, estimator=kind)) for kind in ("prior", "gguf"))  # type: ignore[arg-type]
    before, after = (one.prediction["scope-edge"][ALL] for one in (with_prior, with_gguf))
    assert before.n == after.n
    assert before.logloss != after.logloss


def test_without_an_estimator_none_is_scored(user: Path, whole: Labelled) -> None:
    from scope_edge.errors import AssetError

    request = EvaluationRequest(data=(whole.write(user / "made"),), baselines=(), seeds=(0,), estimator="gguf")
    with pytest.raises(AssetError, match="no estimator is installed"):
        evaluate(request, load_settings())


def test_models_with_no_query_in_common_are_not_compared(user: Path, whole: Labelled) -> None:
    """Nor does a query count that no model's context holds, nor one on which nobody was ever wrong."""
    half = {str(row["id"]) for row in whole.queries[::2]}
    apart = tuple(
        row
        for row in whole.outcomes
        if row["model"] not in POOL or (row["query_id"] in half) == (row["model"] in POOL[:2])
    )
    report = run(replace(held_back(Labelled(whole.queries, apart), user), pool=f"{POOL[0]},{POOL[3]}", baselines=()))
    assert report.routing == () and report.common == 0
    assert set(report.left_out.values()) == {"has too few queries in common with the others"}


def test_a_model_that_is_always_right_has_no_intervals_and_breaks_nothing(user: Path, whole: Labelled) -> None:
    perfect = tuple({**row, "correct": 1} if row["model"] in NEW else row for row in whole.outcomes)
    report = run(replace(held_back(Labelled(whole.queries, perfect), user), baselines=("knn",)))
    assert [row.metric for row in report.paired if row.against == "knn"] == ["accuracy_at_equal_cost"]
    assert report.prediction["scope-edge"][UNSEEN].auc is None


def test_queries_beyond_every_context_are_left_out(user: Path, whole: Labelled) -> None:
    prices = user / "prices.toml"
    prices.write_text("".join(f'[models."{model}"]\ncontext_tokens = 30\n' for model in POOL))
    report = run(replace(held_back(whole, user), baselines=(), prices=prices))
    assert report.common == 0 and report.routing == ()
    # Where one context holds a query, the others are not chosen for it.
    prices.write_text("".join(f'[models."{model}"]\ncontext_tokens = 30\n' for model in POOL[:-1]))
    report = run(replace(held_back(whole, user), baselines=(), prices=prices))
    assert report.common == 60
    assert {model for point in report.routing if point.alpha == 0.5 for model in point.portfolio} == {POOL[-1]}


def test_equal_texts_of_two_sets_fall_together(user: Path, encoder: Encoder) -> None:
    made = labelled(60)
    made.write(user / "two" / "s1")
    made.write(user / "two" / "s2")
    data = read_pooled(sources_of([user / "two"]), open_catalog(load_settings()), encoder).data
    for seed in range(4):
        one = split(data, seed)
        assert not set(data.texts[one.scored]) & set(data.texts[one.taught])


def test_what_the_user_measured_on_a_scored_query_is_not_used(user: Path, whole: Labelled) -> None:
    """An imported set is known by its own outcomes; scored by the bundled bank, these are left out."""
    from scope_edge.fingerprinting.importing.routing_data import import_routing_data

    folder = whole.only(models=(*POOL, *NEW)).write(user / "mine")
    request = EvaluationRequest(data=(folder,), bank="bundled", baselines=(), seeds=(0,))
    before = run(request)
    import_routing_data(folder, open_cards())
    after = run(request)
    known = {model: figures for model, figures in after.prediction["scope-edge"].items() if model in POOL}
    assert set(known) == set(POOL)
    for model, figures in known.items():
        mine = before.prediction["scope-edge"][model]
        assert figures.n == mine.n
        assert figures.logloss > 0.25 * mine.logloss, "scored on outcomes that it knew"


def test_a_split_without_a_common_query_does_not_spoil_the_others(
    user: Path, whole: Labelled, encoder: Encoder
) -> None:
    data = read(whole.write(user / "made"), encoder).data
    first, second = (split(data, seed).scored for seed in (0, 1))
    shared = set(data.ids[first & ~second].tolist())
    alternate = {str(row["id"]): i % 2 for i, row in enumerate(whole.queries)}
    kept = tuple(
        row
        for row in whole.outcomes
        if row["model"] not in (POOL[0], POOL[3])
        or row["query_id"] in shared
        or alternate[str(row["query_id"])] == (row["model"] == POOL[0])
    )
    # Of the same name: what is held out goes by it.
    folder = Labelled(whole.queries, kept).write(user / "holes" / "made")
    report = run(EvaluationRequest(data=(folder,), pool=f"{POOL[0]},{POOL[3]}", baselines=(), seeds=(0, 1)))
    assert report.common == len(shared)
    assert all(np.isfinite([row.accuracy, row.expected_accuracy]).all() for row in report.tuned)


def test_knn5_finds_imported_anchors_whose_ids_carry_their_sets_name(user: Path, whole: Labelled) -> None:
    from scope_edge.cli.run import run as command

    folder = whole.write(user / "mine")
    assert command(["import", str(folder), "--limit", "100"]) == 0
    report = run(EvaluationRequest(data=(folder,), bank="bundled", baselines=("knn5",), seeds=(0,)))
    spread = {round(value.mean_auc or 0.5, 6) for value in report.prediction["knn5"].values()}
    assert spread != {0.5}
