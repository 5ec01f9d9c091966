"""A model carried to the map's scale is as accurate over the reference as its anchors' own difficulties say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scope_edge.errors import PackError
from scope_edge.estimation.ability import spread_along
from scope_edge.estimation.calibration import Calibration
from scope_edge.estimation.irt import IrtEstimator, IrtModel, load_irt_model
from scope_edge.estimation.newton import sigmoid
from scope_edge.estimation.reference import linking_constants, own_rows, reference_body, reference_from_body
from scope_edge.types import ModelCard

MODELS = ("gemma-2-2b-it", "llama-3.1-8b-instruct", "llama-3.1-405b-instruct", "claude-3-5-sonnet-20240620")


@pytest.fixture(scope="module")
def basis() -> IrtModel:
    found = load_irt_model()
    return replace(found, calibration=Calibration.none(len(found.calibration.slope)))


def shares(basis: IrtModel) -> tuple[np.ndarray, np.ndarray]:
    """(models, sets) mean P(correct) over the reference, by its questions' own difficulties and by the map."""
    reference = basis.by_set
    prior = IrtEstimator(basis, [ModelCard(id=model, where="cloud") for model in MODELS], {}, coverage=0.9)
    said = prior.table(reference.places, np.ones(len(reference))).p_correct
    rows, offsets = own_rows(reference)
    able = [basis.abilities[model] for model in MODELS]
    mean, covariance = (np.array([getattr(one, name) for one in able]) for name in ("mean", "covariance"))
    softened = (mean @ rows.T + offsets) / np.sqrt(1 + np.pi / 8 * spread_along(rows, covariance))
    sets = range(reference.places.domains.shape[1])
    own = [[sigmoid(softened[m, reference.sets == s]).mean() for s in sets] for m in range(len(MODELS))]
    mapped = [[said[reference.sets == s, m].mean() for s in sets] for m in range(len(MODELS))]
    return np.array(own), np.array(mapped)


def test_on_every_domain_a_model_is_as_accurate_by_the_map_as_by_its_questions(basis: IrtModel) -> None:
    own, mapped = shares(basis)
    # A query is shifted as the domains it is like, and a model's own differences between domains by a quarter only, so that
    # something is left over; all domains together are met.
    assert np.abs(own - mapped).max() < 0.15
    assert np.abs((own - mapped).mean(axis=1)).max() < 0.05


def test_without_a_reference_nothing_is_shifted(basis: IrtModel) -> None:
    able = basis.abilities[MODELS[0]]
    one = basis.by_set
    empty = replace(
        one,
        places=one.places.take(np.zeros(0, int)),
        difficulty=one.difficulty[:0],
        discrimination=one.discrimination[:0],
        sets=one.sets[:0],
        prompt_tokens=one.prompt_tokens[:0],
    )
    assert (linking_constants(empty, basis.population, able.mean[None], able.covariance[None]) == 0).all()


def test_what_is_not_known_stays_unknown(basis: IrtModel) -> None:
    able = basis.abilities[MODELS[0]]
    found = linking_constants(
        basis.by_set,
        basis.population,
        np.full((1, len(able.mean)), np.nan),
        np.full((1, *able.covariance.shape), np.nan),
    )
    assert np.isnan(found).all()


def test_the_reference_survives_its_pack_and_refuses_another(basis: IrtModel) -> None:
    body = reference_body(basis.reference)
    again = reference_from_body(body, "some.pack")
    assert np.abs(again.places.difficulty - basis.reference.places.difficulty).max() < 0.01
    assert (again.sets == basis.reference.sets).all()
    for broken in ({**body, "sets": body["sets"][:-1]}, {**body, "sets": body["sets"] + 200}):
        with pytest.raises(PackError, match="do not fit together"):
            reference_from_body(broken, "some.pack")
    body.pop("difficulty")
    with pytest.raises(PackError, match="not a usable reference"):
        reference_from_body(body, "some.pack")
