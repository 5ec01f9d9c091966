"""Build the packs in anchors/ from routing data: bank, map, core anchor sets, fingerprints. No question text goes in.

    python build_scripts/build_bank.py --data ROUTING_DATA/zeroeval ROUTING_DATA/mmlu_pro ... --out anchors/

Takes about an hour on two cores, most of it embedding; --cache keeps the embeddings for the next time.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from learn import fingerprint, learn
from manifest import record
from pooled import read_pooled

from scope_edge.ability import population_body
from scope_edge.anchors import bank_body, set_body
from scope_edge.calibration import calibration_body
from scope_edge.difficulty import map_body
from scope_edge.fingerprints import fingerprints_body
from scope_edge.packs import write_pack
from scope_edge.vectors import pack_vectors

if TYPE_CHECKING:
    from learn import Learned
    from pooled import Pooled

LANDMARKS = 4096
SOURCES = {
    "zeroeval": "WildEval/ZeroEval @8c1485e",
    "kor_bench": "KOR-Bench/KOR-Bench @bb8194d",
    "mmlu_pro": "TIGER-AI-Lab/MMLU-Pro @f418b11 and its history",
    "reasoning_gym": "open-thought/reasoning-gym-eval @5f09fec",
}
# A model measured on fewer of a set's core anchors than this gets no fingerprint there.
LEAST_OUTCOMES = 25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders in the routing data format")
    parser.add_argument("--out", type=Path, required=True, help="where the packs go")
    parser.add_argument("--cache", type=Path, help="file that keeps embeddings between runs (.npz)")
    options = parser.parse_args()
    data = read_pooled(options.data, options.cache)
    learned = learn(data, min(LANDMARKS, len(data.ids) // 4))
    bodies = {
        "bank": ("bank", _bank(data, learned)),
        "map": ("map", _map(learned)),
        "core": ("anchor-sets", {"sets": [set_body(one) for one in learned.anchors.values()]}),
        "fingerprints": ("fingerprints", _fingerprints(data, learned)),
    }
    source = "; ".join(SOURCES.get(name, name) for name in data.set_names)
    for name, (kind, body) in bodies.items():
        write_pack(options.out / f"{name}.pack", kind, body)
        record(options.out, f"{name}.pack", source=source, licence="Apache-2.0", facts={"queries": len(data.ids)})
        print(f"{name}.pack {(options.out / f'{name}.pack').stat().st_size / 1e6:.2f} MB")


def _bank(data: Pooled, learned: Learned) -> dict[str, object]:
    fitted = {
        "difficulty": learned.joint.b,
        "discrimination": learned.joint.a,
        "log_length": learned.log_length,
    }
    return bank_body(data.ids.tolist(), data.categories.tolist(), pack_vectors(data.vectors), fitted)


def _map(learned: Learned) -> dict[str, object]:
    return {
        "map": map_body(learned.map),
        "population": population_body(learned.population),
        "calibration": calibration_body(learned.calibration),
    }


def _fingerprints(data: Pooled, learned: Learned) -> dict[str, object]:
    parts = {}
    for name, anchors in learned.anchors.items():
        rows = [fingerprint(data, m, anchors) for m in np.flatnonzero(~data.base)]
        parts[name] = [one for one in rows if np.isfinite(one.correct).sum() >= LEAST_OUTCOMES]
    return fingerprints_body(parts)


if __name__ == "__main__":
    main()
