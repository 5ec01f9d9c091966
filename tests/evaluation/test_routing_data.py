"""Against the real routing data, where SCOPE_EDGE_ROUTING_DATA points at it: the packs are of it and hold none of its text."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest

from scope_edge.encoding.encoder import Encoder
from scope_edge.encoding.token_count import estimate_prompt_tokens
from scope_edge.estimation.anchors import BANK, load_bank
from scope_edge.estimation.irt import MAP
from scope_edge.storage import assets
from scope_edge.storage.packs import unpack
from scope_edge.types import Query

DATA = os.environ.get("SCOPE_EDGE_ROUTING_DATA")
pytestmark = pytest.mark.skipif(not DATA, reason="SCOPE_EDGE_ROUTING_DATA does not point at routing data")
SETS = ("zeroeval", "kor_bench", "mmlu_pro", "reasoning_gym")


def queries(name: str) -> list[dict[str, object]]:
    with gzip.open(Path(str(DATA)) / name / "queries.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize("name", SETS)
def test_a_bank_question_finds_itself(name: str) -> None:
    bank, encoder = load_bank("exact"), Encoder.load()
    held = set(unpack(assets.read(BANK), "bank", BANK)["ids"])
    known = [row for row in queries(name) if row["id"] in held]
    sample = known[:: max(1, len(known) // 12)][:12]
    for row in sample:
        near = bank.nearest(encoder.encode(Query(str(row["text"]))).vector, 3)
        assert near[0].similarity > 0.99
        # Families of near-identical questions may tie; the question itself is among the first.
        assert str(row["id"]) in [one.anchor for one in near] or near[2].similarity > 0.985


def test_no_pack_holds_a_piece_of_a_question() -> None:
    blobs = [assets.read(name) for name in assets.manifest() if name.endswith(".pack")]
    for name in SETS:
        for row in queries(name)[::40]:
            text = str(row["text"])
            if len(text) >= 60:
                assert not any(text[:60].encode() in blob for blob in blobs), row["id"]


def test_the_bank_is_of_this_data_and_its_difficulty_follows_the_outcomes() -> None:
    body = unpack(assets.read(BANK), "bank", BANK)
    row_of = {query: i for i, query in enumerate(body["ids"])}
    for name in SETS:
        assert sum(str(row["id"]) in row_of for row in queries(name)) == min(len(queries(name)), 1_000)
    right: dict[str, list[float]] = {}
    with gzip.open(Path(str(DATA)) / "mmlu_pro" / "outcomes.csv.gz", "rt") as file:
        next(file)
        for line in file:
            query, _, correct, *_ = line.split(",")
            if correct:
                right.setdefault(query, []).append(float(correct))
    known = [query for query in right if query in row_of]
    shares = np.array([np.mean(right[query]) for query in known])
    # By the map, with each question's family left out of its fit.
    difficulty = body["difficulty"][[row_of[query] for query in known]].astype(float)
    assert np.corrcoef(shares, difficulty)[0, 1] < -0.3


@pytest.mark.parametrize("name", SETS)
def test_the_prompt_bound_covers_what_it_says(name: str) -> None:
    rows = queries(name)
    covered = [estimate_prompt_tokens(str(row["text"])).high >= float(str(row["text_tokens"])) for row in rows[::5]]
    assert np.mean(covered) >= 0.95


def test_the_calibration_is_a_correction_not_a_rescue() -> None:
    calibration = unpack(assets.read(MAP), "map", MAP)["calibration"]
    assert (calibration["slope"] > 0.5).all()
    assert (calibration["slope"] < 1.5).all()
    assert (np.abs(calibration["intercept"]) < 1.2).all()
