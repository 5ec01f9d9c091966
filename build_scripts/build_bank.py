"""Build the packs in anchors/ from routing data: bank, map, core anchor sets, fingerprints. No question text goes in.

    python build_scripts/build_bank.py --data ROUTING_DATA --out anchors/

Takes about an hour on two cores, most of it embedding; --cache keeps the embeddings for the next time.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from manifest import ROOT, record

from scope_edge.encoding.encoder import Encoder
from scope_edge.encoding.nearest import pack_vectors
from scope_edge.estimation.anchors import bank_body, set_body
from scope_edge.estimation.fingerprints import fingerprints_body
from scope_edge.estimation.irt import irt_model_body
from scope_edge.evaluation.splits import sources_of
from scope_edge.factory import open_catalog
from scope_edge.settings.config import Settings
from scope_edge.storage.packs import write_pack
from scope_edge.training.asks import SET, read_asks, with_asks
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
    SET: "written for this project",
}
LICENCES = {
    "MIT": (
        "coconot", "just_eval", "livecodebench", "llmrouter_small", "longform_2025", "nonsense_premise", "openhands_index",
        "product_tasks", "simple_code",
    ),
    "CC-BY-4.0": ("text_to_sql",),
    "CC0-1.0": ("misguided_attention",),
}  # fmt: skip
# Of one set, the most queries that neighbors are looked for in; and the fewest of a core set.
MOST_OF_A_SET, LEAST_OF_A_CORE = 1_000, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders in the routing data format")
    parser.add_argument("--out", type=Path, required=True, help="where the packs go")
    parser.add_argument("--cache", type=Path, help="folder that keeps embeddings between runs")
    parser.add_argument("--asks", type=Path, default=ROOT / "anchors" / "everyday.txt", help="everyday asks of our own")
    options = parser.parse_args()
    catalog, encoder = open_catalog(Settings()), Encoder.load()
    data = read_pooled(sources_of(options.data), catalog, encoder, cache=options.cache).data
    data = with_asks(data, read_asks(options.asks), encoder)
    learned = _bundled(learn(data), frozenset(catalog.by_id))
    bodies = {
        "bank": ("bank", _bank(data, learned)),
        "map": ("map", irt_model_body(learned.irt)),
        "core": ("anchor-sets", {"sets": [set_body(one) for one in learned.anchors.values()]}),
        "fingerprints": ("fingerprints", _fingerprints(data, learned)),
    }
    source = "; ".join(SOURCES.get(name, name) for name in data.set_names)
    licence = "; ".join(["Apache-2.0", *(f"{one}: {', '.join(names)}" for one, names in LICENCES.items())])
    for name, (kind, body) in bodies.items():
        write_pack(options.out / f"{name}.pack", kind, body)
        record(options.out, f"{name}.pack", source=source, licence=licence, facts={"queries": len(data.ids)})
        print(f"{name}.pack {(options.out / f'{name}.pack').stat().st_size / 1e6:.2f} MB")


def _bundled(learned: Learned, known: frozenset[str]) -> Learned:
    """Keep what is of use without the data: the abilities of models that have a card, and core sets of some size."""
    abilities = {model: ability for model, ability in learned.irt.abilities.items() if model in known}
    anchors = {name: core for name, core in learned.anchors.items() if len(core) >= LEAST_OF_A_CORE}
    return replace(learned, irt=replace(learned.irt, abilities=abilities), anchors=anchors)


def _bank(data: Pooled, learned: Learned) -> dict[str, object]:
    rng = np.random.default_rng(0)
    parts = [rng.permutation(np.flatnonzero(data.sets == s))[:MOST_OF_A_SET] for s in range(len(data.set_names))]
    kept = np.sort(np.concatenate(parts))
    rest = np.setdiff1d(np.arange(len(data)), kept)
    fitted = {
        "difficulty": learned.positions.difficulty[kept],
        "discrimination": learned.joint.a[kept],
        "log_length": learned.positions.log_length[kept],
    }
    ids, categories, texts = (column[kept].tolist() for column in (data.ids, data.categories, data.texts))
    return bank_body(ids, categories, texts, pack_vectors(data.vectors[kept]), fitted, data.texts[rest].tolist())


def _fingerprints(data: Pooled, learned: Learned) -> dict[str, object]:
    known = learned.irt.abilities
    parts = {}
    for name, anchors in learned.anchors.items():
        rows = [fingerprint(data, m, anchors) for m in np.flatnonzero(~data.base) if data.models[m] in known]
        parts[name] = [one for one in rows if np.isfinite(one.correct).sum() >= LEAST_OUTCOMES]
    return fingerprints_body(parts)


if __name__ == "__main__":
    main()
