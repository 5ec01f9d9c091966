"""core-250: every key is right twice over, every wrong answer fails, and the set is as balanced as it says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from repository import ROOT

from scope_edge.encoding.encoder import Encoder
from scope_edge.errors import PackError, UsageError
from scope_edge.estimation.anchor_spec import (
    CORE_250,
    KINDS,
    LETTERS,
    TIERS,
    AnchorSpec,
    CoreSet,
    core_body,
    load_core,
    prompt_of,
    spec_body,
    spec_from_body,
    text_of,
)
from scope_edge.estimation.fingerprints import load_anchor_sets
from scope_edge.estimation.irt import load_irt_model
from scope_edge.fingerprinting.fresh import TEMPLATES, drafted, fresh_anchor, fresh_specs
from scope_edge.fingerprinting.grading.grade import grade
from scope_edge.storage import assets
from scope_edge.types import Query

sys.path.append(str(ROOT / "build_scripts"))
import check_core

WRITTEN = check_core.read_source()
CORE = load_core()
SPECS = {spec.id: spec for spec in CORE.specs}
REFUSALS = (
    "I'm sorry, I can't help with that.",
    "I cannot answer this question.",
    "As a language model I have no opinion.",
)
SEEDS = range(1, 7)


def wrong_answers() -> list[tuple[AnchorSpec, str]]:
    """Every plausible wrong answer of every anchor."""
    rows = [(one.spec, answer) for one in WRITTEN for answer in one.tempting]
    rows += [
        (one.spec, letter) for one in WRITTEN for letter in LETTERS[: len(one.spec.options)] if letter != one.spec.key
    ]
    rows += [(fresh_anchor(id, 0), answer) for id in TEMPLATES for answer in drafted(id, 0)[1].tempting]
    return rows


def said(spec: AnchorSpec, answer: str) -> str:
    """An answer as the prompt asks for it."""
    if spec.kind in ("json", "output"):
        return f"Here it is.\n\n```\n{answer}\n```"
    return answer if spec.kind == "rules" else f"Let me think.\n\nAnswer: {answer}"


@pytest.mark.parametrize("written", WRITTEN, ids=lambda one: one.spec.id)
def test_every_key_is_borne_out_by_its_check(written: check_core.Written) -> None:
    assert check_core.verify(written) in ("computed", "reasoned")


@pytest.mark.parametrize("id", TEMPLATES)
def test_every_fresh_key_is_borne_out_by_its_verifier(id: str) -> None:
    for seed in (0, *SEEDS):
        check_core.verify_fresh(id, seed)
        spec, draft = drafted(id, seed)
        assert grade(spec, said(spec, spec.key)) == 1.0
        assert all(grade(spec, said(spec, answer)) == 0.0 for answer in draft.tempting), (seed, draft)


@pytest.mark.parametrize("id", TEMPLATES)
def test_fresh_instances_differ_and_seed_0_is_the_shipped_one(id: str) -> None:
    assert fresh_anchor(id, 0) == SPECS[id]
    instances = [fresh_anchor(id, seed) for seed in (0, *SEEDS)]
    # A template with few blanks may draw the same twice.
    assert len({one.question for one in instances}) >= len(instances) - 2
    assert len({one.key for one in instances}) > 1
    assert {(one.id, one.field, one.tier, one.kind) for one in instances} == {
        (id, SPECS[id].field, SPECS[id].tier, SPECS[id].kind)
    }
    assert fresh_anchor(id, 5) == fresh_anchor(id, 5)


def test_no_template_makes_an_unknown_anchor() -> None:
    with pytest.raises(UsageError, match="no template makes this anchor"):
        fresh_anchor("math-01", 1)


@pytest.mark.parametrize("spec", CORE.specs, ids=lambda spec: spec.id)
def test_the_key_passes_and_what_is_no_answer_fails(spec: AnchorSpec) -> None:
    assert grade(spec, said(spec, spec.key)) == 1.0
    assert grade(spec, f"<think>Hm, 17 or (B)?\nAnswer: 99</think>\n{said(spec, spec.key)}") == 1.0
    assert grade(spec, None) is None
    for nothing in ("", "  \n", "<think>I know: " + said(spec, spec.key), *REFUSALS):
        assert grade(spec, nothing) == 0.0, nothing
    for echo in (prompt_of(spec), text_of(spec), spec.question, f"You asked: {prompt_of(spec)}"):
        assert grade(spec, echo) == 0.0, echo


@pytest.mark.parametrize(("spec", "answer"), wrong_answers(), ids=lambda one: getattr(one, "id", None))
def test_plausible_wrong_answers_fail(spec: AnchorSpec, answer: str) -> None:
    assert grade(spec, said(spec, answer)) == 0.0
    assert grade(spec, answer) == 0.0


@pytest.mark.parametrize("spec", CORE.specs, ids=lambda spec: spec.id)
def test_every_accepted_spelling_passes(spec: AnchorSpec) -> None:
    for spelling in spec.accept:
        assert grade(spec, said(spec, spelling)) == 1.0, spelling


def test_there_are_250_and_they_are_balanced() -> None:
    assert len(CORE.specs) == len(SPECS) == len(CORE.anchors) == 250
    fields = Counter(spec.field for spec in CORE.specs)
    assert len(fields) == 14
    assert set(fields.values()) == {17, 18}
    assert set(Counter(spec.tier for spec in CORE.specs).values()) == {83, 84}
    for field in fields:
        tiers = Counter(spec.tier for spec in CORE.specs if spec.field == field)
        assert set(tiers) == set(TIERS)
        assert min(tiers.values()) >= 5
    kinds = Counter(spec.kind for spec in CORE.specs)
    assert set(kinds) == set(KINDS)
    assert 80 <= kinds["choice"] <= 100
    assert len(TEMPLATES) == 40


def test_no_letter_is_right_more_often_than_others() -> None:
    choices = [spec for spec in CORE.specs if spec.kind == "choice"]
    letters = Counter(spec.key for spec in choices)
    assert set(letters) == set("ABCD")
    assert max(letters.values()) - min(letters.values()) <= 1
    longest = sum(max(spec.options, key=len) == spec.options[LETTERS.index(spec.key)] for spec in choices)
    assert longest / len(choices) < 0.5, "the longest option is right too often: a model could guess by it"


def test_the_pack_holds_what_the_source_says() -> None:
    assert {one.spec.id: one.spec for one in WRITTEN} == {id: spec for id, spec in SPECS.items() if not spec.fresh}
    assert CORE.anchors.ids == tuple(f"core-250/{spec.id}" for spec in CORE.specs)
    assert CORE.anchors.categories == tuple(f"core-250/{spec.field}" for spec in CORE.specs)
    assert CORE.anchors.texts == tuple(text_of(spec) for spec in CORE.specs)


def test_the_places_are_the_maps_and_begin_with_many_fields() -> None:
    fitted, encoder = load_irt_model().map, Encoder.load()
    for row in (0, 100, 249):
        place = fitted.place(encoder.encode(Query(CORE.anchors.texts[row])))
        assert place.difficulty == pytest.approx(CORE.anchors.difficulty[row], abs=0.05)
    assert np.linalg.norm(CORE.anchors.vectors, axis=1) == pytest.approx(1, abs=1e-3)
    assert (CORE.anchors.discrimination > 0).all()
    assert len(set(CORE.anchors.categories[:25])) >= 6


def test_it_is_small_and_compared_with_the_routing_data() -> None:
    asset = assets.manifest()[CORE_250]
    assert asset.size < 400_000
    assert asset.facts["keys_computed"] + asset.facts["keys_reasoned"] == 250
    assert asset.facts["compared_with"] > 17_000
    assert asset.facts["nearest_cosine"] < 0.95
    assert asset.facts["largest_shared_runs"] < 0.5


def test_routing_never_loads_it() -> None:
    assert "core-250" not in {anchors.name for anchors in load_anchor_sets()}
    script = (
        "import sys, json, scope_edge.factory, scope_edge.router, scope_edge.policy.pool\n"
        "print(json.dumps([m for m in sys.modules if m.startswith(('scope_edge.fingerprinting.grading', "
        "'scope_edge.estimation.anchor_spec', 'scope_edge.fingerprinting.fresh'))]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_fresh_specs_stand_in_for_the_shipped_ones() -> None:
    fresh = fresh_specs(CORE.specs, 3)
    assert [spec.id for spec in fresh] == [spec.id for spec in CORE.specs]
    changed = [a.id for a, b in zip(fresh, CORE.specs, strict=True) if a.question != b.question]
    assert len(changed) >= 38
    assert set(changed) <= set(TEMPLATES)
    assert fresh_specs(CORE.specs, 0) == CORE.specs


@pytest.mark.parametrize("spec", CORE.specs[::9], ids=lambda spec: spec.id)
def test_a_spec_survives_its_body(spec: AnchorSpec) -> None:
    assert spec_from_body(json.loads(json.dumps(spec_body(spec))), "here") == spec


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "essay"},
        {"tier": 4},
        {"key": ""},
        {"key": "E"},
        {"options": []},
        {"rules": {"words": 3}},
        {"colour": "red"},
        {"question": 3},
    ],
)
def test_a_spec_that_cannot_be_graded_is_refused_by_name(change: dict[str, object]) -> None:
    body = spec_body(next(spec for spec in CORE.specs if spec.kind == "choice"))
    with pytest.raises(PackError, match=f"here: not a usable anchor '{body['id']}'"):
        spec_from_body({**body, **change}, "here")


def test_a_set_whose_questions_and_places_differ_is_refused() -> None:
    with pytest.raises(PackError, match="do not fit together"):
        core_body(CoreSet(CORE.anchors, CORE.specs[::-1]))
