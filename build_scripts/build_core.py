"""Build anchors/core-250.pack: questions, keys and graders' data, their place on the map, most informative first.

    python build_scripts/build_core.py --data ROUTING_DATA

Every key is checked first (check_core.py), and every question is compared with every text of the routing data: none may be
equal or nearly so. Run it again when the encoder or the map has changed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from check_core import read_source, verify, verify_fresh
from manifest import ROOT, record

from scope_edge.encoding.nearest import from_body
from scope_edge.encoding.token_count import estimate_prompt_tokens
from scope_edge.estimation.anchor_spec import AnchorSpec, CoreSet, core_body, prompt_of, text_of
from scope_edge.estimation.anchors import BANK, AnchorSet
from scope_edge.estimation.irt import load_irt_model
from scope_edge.estimation.refit import PlacedQuestion, place
from scope_edge.fingerprinting.fresh import TEMPLATES, fresh_anchor
from scope_edge.storage import assets
from scope_edge.storage.packs import unpack, write_pack
from scope_edge.training.learn import core_of

NAME = "core-250"
SIZE = 250
# Above these a question counts as one of the routing data's.
MOST_COSINE, MOST_GRAMS, GRAM = 0.95, 0.5, 8


@dataclass(frozen=True, slots=True)
class Nearest:
    """How near the routing data comes to the questions, one entry a question.

    Attributes:
        equal: ids of questions that are in it, but for case, spaces and punctuation.
        grams: largest share of a question's 8-word runs that one text holds. cosines: to the nearest text, and its id.
    """

    texts: int
    equal: tuple[str, ...]
    grams: tuple[tuple[float, str], ...]
    cosines: tuple[tuple[float, str], ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of folders in the routing data format")
    parser.add_argument("--out", type=Path, default=ROOT / "anchors", help="where the pack and its manifest are")
    options = parser.parse_args()
    specs, how = _checked()
    placed = place(NAME, [PlacedQuestion(spec.id, spec.field, text_of(spec)) for spec in specs], own=False)
    nearest = compare(specs, placed, options.data)
    _report(specs, nearest)
    kind, body = core_body(_ordered(specs, placed))
    path = options.out / f"{NAME}.pack"
    write_pack(path, kind, body)
    facts = {
        "anchors": len(specs),
        "keys_computed": how["computed"],
        "keys_reasoned": how["reasoned"],
        "compared_with": nearest.texts,
        "nearest_cosine": round(max(nearest.cosines)[0], 3),
        "largest_shared_runs": round(max(nearest.grams)[0], 3),
    }
    record(options.out, path.name, source="written for this project", licence="Apache-2.0", facts=facts)
    print(f"{path.name} {path.stat().st_size / 1e3:.0f} kB")


def _checked() -> tuple[list[AnchorSpec], Counter[str]]:
    """The 250 specs in the source's order and how their keys were checked. Raises CheckError for a wrong one."""
    written = read_source()
    how = Counter(verify(one) for one in written)
    for id in TEMPLATES:
        verify_fresh(id, 0)
        how["computed"] += 1
    specs = [*(one.spec for one in written), *(fresh_anchor(id, 0) for id in TEMPLATES)]
    if len(specs) != SIZE or len({spec.id for spec in specs}) != SIZE:
        sys.exit(f"{len(specs)} anchors, {len({spec.id for spec in specs})} ids, where {SIZE} were expected")
    return specs, how


def _ordered(specs: Sequence[AnchorSpec], placed: AnchorSet) -> CoreSet:
    """Most informative first, by what the population of models measured so far says of a new one."""
    ordered = core_of(placed, np.ones(len(placed)), load_irt_model().population, len(placed))
    by_id = dict(zip(placed.ids, specs, strict=True))
    chosen = tuple(by_id[id] for id in ordered.ids)
    prompts = [estimate_prompt_tokens(prompt_of(one)).expected for one in chosen]
    return CoreSet(replace(ordered, prompt_tokens=np.array(prompts)), chosen)


def compare(specs: Sequence[AnchorSpec], placed: AnchorSet, data: Path) -> Nearest:
    """Compare every question with every text of the routing data; embeddings of the latter are the bank's."""
    own = [_words(spec.question) for spec in specs]
    plain = {" ".join(words): spec.id for words, spec in zip(own, specs, strict=True)}
    runs = [_runs(words) for words in own]
    holders: dict[str, list[int]] = {}
    for i, grams in enumerate(runs):
        for gram in grams:
            holders.setdefault(gram, []).append(i)
    equal: list[str] = []
    shares = [(0.0, "") for _ in specs]
    texts = 0
    for name, text in _texts(data):
        texts += 1
        words = _words(text)
        joined = " ".join(words)
        equal += [id for question, id in plain.items() if question == joined]
        shared = Counter(i for gram in _runs(words) for i in holders.get(gram, ()))
        for i, count in shared.items():
            shares[i] = max(shares[i], (count / len(runs[i]), name))
    body = unpack(assets.read(BANK), "bank", BANK, verified=True)
    cosines = placed.vectors @ from_body(body["vectors"], BANK).unpack().T
    best = cosines.argmax(axis=1)
    pairs = tuple((float(cosines[i, at]), str(body["ids"][at])) for i, at in enumerate(best))
    return Nearest(texts, tuple(equal), tuple(shares), pairs)


def _texts(data: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(data.glob("*/queries.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                yield row["id"], row["text"]


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _runs(words: Sequence[str]) -> set[str]:
    """Every run of 8 words; a shorter text is one run."""
    return {" ".join(words[i : i + GRAM]) for i in range(max(1, len(words) - GRAM + 1))}


def _report(specs: Sequence[AnchorSpec], nearest: Nearest) -> None:
    """Print how near the routing data comes, without its texts. Ends the build when it comes too near."""
    print(f"compared with {nearest.texts} texts; equal: {len(nearest.equal)}")
    for word, pairs in (("cosine", nearest.cosines), ("8-word runs", nearest.grams)):
        ranked = sorted(zip(pairs, specs, strict=True), key=lambda row: -row[0][0])
        for (value, id), spec in ranked[:5]:
            print(f"  {word} {value:.3f}: {spec.id} and {id}")
    cosines = np.array([value for value, _ in nearest.cosines])
    print(f"  cosine to the nearest text: median {np.median(cosines):.3f}, largest {cosines.max():.3f}")
    print(f"  questions that share any 8-word run: {sum(value > 0 for value, _ in nearest.grams)}")
    if nearest.equal or max(nearest.cosines)[0] > MOST_COSINE or max(nearest.grams)[0] > MOST_GRAMS:
        sys.exit("a question is one of the routing data's, or nearly: rewrite it")


if __name__ == "__main__":
    main()
