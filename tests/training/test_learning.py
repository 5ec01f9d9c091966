"""Learning from labelled queries finds what the outcomes were made of, and encodes each text once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")

from labelled_cases import ABILITIES, KINDS, labelled

from scope_edge.encoding.encoder import Encoder
from scope_edge.errors import AssetError
from scope_edge.evaluation.splits import sources_of
from scope_edge.factory import open_catalog
from scope_edge.settings.config import load_settings
from scope_edge.training.dataset import Pooled, embed, is_base, naming, read_pooled
from scope_edge.training.joint_fit import fit_joint, fit_lengths
from scope_edge.training.learn import Learned, learn
from scope_edge.types import EncodedQuery, Query


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> Pooled:
    folder = labelled(300).write(tmp_path_factory.mktemp("learning") / "made")
    return read_pooled(sources_of([folder]), open_catalog(load_settings()), encoder).data


@pytest.fixture(scope="module")
def learned(data: Pooled) -> Learned:
    return learn(data)


class Counting:
    """The encoder, and which texts it was asked for."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder, self.asked = encoder, []  # type: tuple[Encoder, list[str]]
        self.identity, self.dimension = encoder.identity, encoder.dimension

    def encode_many(self, queries: Iterable[Query]) -> Iterator[EncodedQuery]:
        for encoded in self._encoder.encode_many(queries):
            self.asked.append(encoded.query.text)
            yield encoded


def test_a_text_is_encoded_once_and_kept(encoder: Encoder, tmp_path: Path) -> None:
    texts = ["one question?", "another one", "one question?"]
    counting = Counting(encoder)
    vectors, states, multilingual = embed(texts, counting, tmp_path)  # type: ignore[arg-type]
    assert counting.asked == texts[:2]
    assert (vectors[0] == vectors[2]).all()
    another = encoder.encode(Query("another one"))
    assert (vectors[1] == another.vector).all()
    assert (states[1] == another.state).all()
    assert (multilingual[1] == another.multilingual).all()
    again = embed([*texts, "a third"], counting, tmp_path)  # type: ignore[arg-type]
    assert counting.asked == [*texts[:2], "a third"]
    assert (again[0][:3] == vectors).all()
    assert (again[1][:3] == states).all()
    assert (again[2][:3] == multilingual).all()


def test_a_damaged_or_unwritable_cache_costs_time_and_nothing_else(encoder: Encoder, tmp_path: Path) -> None:
    expected = embed(["a text"], encoder, tmp_path)[0]
    (cache,) = tmp_path.iterdir()
    cache.write_bytes(cache.read_bytes()[:-3] + b"xyz")
    assert (embed(["a text"], encoder, tmp_path)[0] == expected).all()
    (tmp_path / "file").write_text("in the way")
    assert (embed(["a text"], encoder, tmp_path / "file" / "sub")[0] == expected).all()


def test_an_interrupted_run_keeps_what_it_had(encoder: Encoder, tmp_path: Path) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    texts = [f"text {i}" for i in range(8)]
    with pytest.raises(KeyboardInterrupt):
        embed(texts, encoder, tmp_path, stop)
    counting = Counting(encoder)
    embed(texts, counting, tmp_path)  # type: ignore[arg-type]
    assert counting.asked == texts[3:]


def test_the_joint_fit_finds_who_is_able_and_what_is_hard(data: Pooled) -> None:
    fit = fit_joint(data.correct, data.sets, data.domains)
    told = fit.theta + fit.delta[:, 0]
    true = np.array([ABILITIES[model] for model in data.models])
    assert np.corrcoef(told, true)[0, 1] > 0.97
    by_kind = [fit.b[data.categories == f"made/{kind}"].mean() for kind in KINDS]
    assert by_kind == sorted(by_kind)
    lengths = fit_lengths(data.tokens, data.sets, data.domains).log_length
    by_kind = [lengths[data.categories == f"made/{kind}"].mean() for kind in KINDS]
    assert by_kind == sorted(by_kind)


def test_without_lengths_there_is_nothing_to_fit(data: Pooled) -> None:
    fit = fit_lengths(np.full(data.tokens.shape, np.nan), data.sets, data.domains)
    assert (fit.log_length == 0).all()
    assert (fit.count == 0).all()


def test_an_experts_guess_stands_until_outcomes_overrule_it(data: Pooled) -> None:
    correct = data.correct.copy()
    correct[:, :2] = np.nan
    expected = np.full(len(data), np.nan)
    expected[[0, 1, 2]] = (-3.0, 4.0, 4.0)
    fit = fit_joint(correct, data.sets, data.domains, expected)
    assert fit.b[:2] == pytest.approx([-3.0, 4.0], abs=1e-3)
    assert np.isfinite(fit.error[:2]).all()
    assert fit.b[2] < 3.5


def test_a_query_without_grades_has_no_difficulty(data: Pooled) -> None:
    correct = data.correct.copy()
    correct[:, 5] = np.nan
    fit = fit_joint(correct, data.sets, data.domains)
    assert np.isinf(fit.error[5])
    assert np.isfinite(np.delete(fit.error, 5)).all()


def test_answers_that_were_cut_off_count_as_longer() -> None:
    rng = np.random.default_rng(0)
    long = rng.normal(5.0, 0.8, 400)
    tokens = np.exp(long + rng.normal(0, 0.3, (3, 400)))
    tokens[0] = np.minimum(tokens[0], 180.0)
    sets = np.zeros(400, np.int64)
    fit = fit_lengths(tokens, sets, sets)
    far = long > 6.0
    plain = np.log(tokens[:, far]).mean(axis=0)
    assert np.abs(fit.log_length[far] - long[far]).mean() < np.abs(plain - long[far]).mean()


def test_the_map_places_new_questions_by_how_hard_they_are(learned: Learned, encoder: Encoder) -> None:
    def difficulty(text: str) -> float:
        return learned.irt.map.place(encoder.encode(Query(text))).difficulty

    easy, hard = (
        difficulty("What is 481 plus 17? (7)"),
        difficulty("Prove that no prime above 977 divides the sum of cubes."),
    )
    assert hard > easy + 2


def test_places_of_many_are_those_of_each(learned: Learned, data: Pooled) -> None:
    some = slice(0, 40)
    many = learned.irt.map.places_of(*data.encoded(some))
    for i in (0, 17, 39):
        one = learned.irt.map.place_of(data.vectors[i], data.states[i], data.multilingual[i], data.features[i])
        assert many.difficulty[i] == pytest.approx(one.difficulty, abs=1e-4)
        assert many.log_length[i] == pytest.approx(one.log_length, abs=1e-4)
        assert many.domains[i] == pytest.approx(one.domains, abs=1e-4)
        assert many.traits[i] == pytest.approx(one.traits, abs=1e-4)
        assert many.foreign[i] == pytest.approx(one.foreign, abs=1e-4)


def test_core_anchors_are_of_every_kind_that_tells_models_apart(learned: Learned) -> None:
    first = learned.anchors["made"].categories[:25]
    assert len(set(first)) >= 4


def test_every_candidate_is_known_by_all_it_did(learned: Learned, data: Pooled) -> None:
    assert set(learned.irt.abilities) == set(data.models.tolist())
    assert all(one.measured == len(data) for one in learned.irt.abilities.values())


def test_spellings_of_one_model_are_one_and_base_models_are_known(own_folders: Path) -> None:
    catalog = open_catalog(load_settings())
    zeroeval, elsewhere = naming("zeroeval", catalog), naming("mine", catalog)
    assert zeroeval("Llama-3.1-405B-Instruct@hyperbolic", "here") == "llama-3.1-405b-instruct"
    assert elsewhere("Meta-Llama-3.1-8B-Instruct", "here") == "llama-3.1-8b-instruct"
    assert elsewhere("nobody-knows-it", "here") == "nobody-knows-it"
    with pytest.raises(AssetError, match="here: model"):
        elsewhere("a b", "here")
    assert is_base("Yi-1.5-9B-base-3shot") and not is_base("llama-3.1-8b-instruct")
