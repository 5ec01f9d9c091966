"""Build the packs in anchors/ from routing data: bank, map, core anchor sets, fingerprints. No question text goes in.

    python build_scripts/build_bank.py --data ROUTING_DATA/zeroeval ROUTING_DATA/mmlu_pro ... --out anchors/

Takes about an hour on two cores, most of it embedding; --cache keeps the embeddings for the next time.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from manifest import record

from scope_edge.encoding.encoder import Encoder
from scope_edge.encoding.nearest import pack_vectors
from scope_edge.estimation.anchors import bank_body, set_body
from scope_edge.estimation.fingerprints import fingerprints_body
from scope_edge.estimation.irt import irt_model_body
from scope_edge.evaluation.splits import sources_of
from scope_edge.factory import open_catalog
from scope_edge.settings.config import Settings
from scope_edge.storage.packs import write_pack
from scope_edge.training.dataset import read_pooled
from scope_edge.training.learn import LEAST_OUTCOMES, fingerprint, learn

if TYPE_CHECKING:
    from scope_edge.training.dataset import Pooled
    from scope_edge.training.learn import Learned

SOURCES = {
    "zeroeval": "WildEval/ZeroEval @8c1485e",
    "kor_bench": "KOR-Bench/KOR-Bench @bb8194d",
    "mmlu_pro": "TIGER-AI-Lab/MMLU-Pro @f418b11 and its history",
    "reasoning_gym": "open-thought/reasoning-gym-eval @5f09fec",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders in the routing data format")
    parser.add_argument("--out", type=Path, required=True, help="where the packs go")
    parser.add_argument("--cache", type=Path, help="folder that keeps embeddings between runs")
    options = parser.parse_args()
    catalog = open_catalog(Settings())
    data = read_pooled(sources_of(options.data), catalog, Encoder.load(), cache=options.cache).data
    learned = learn(data)
    bodies = {
        "bank": ("bank", _bank(data, learned)),
        "map": ("map", irt_model_body(learned.irt)),
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
    return bank_body(
        data.ids.tolist(), data.categories.tolist(), data.texts.tolist(), pack_vectors(data.vectors), fitted
    )


def _fingerprints(data: Pooled, learned: Learned) -> dict[str, object]:
    parts = {}
    for name, anchors in learned.anchors.items():
        rows = [fingerprint(data, m, anchors) for m in np.flatnonzero(~data.base)]
        parts[name] = [one for one in rows if np.isfinite(one.correct).sum() >= LEAST_OUTCOMES]
    return fingerprints_body(parts)


if __name__ == "__main__":
    main()
