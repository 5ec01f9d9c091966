"""What scope-edge makes of everyday asks that nothing was fitted on: easy against hard, device against cloud, twelve languages.

    python benchmarks/everyday.py

Asks and labels are in everyday.txt (levels 1 to 4, 5 = unknowable) and everyday_parallel.txt beside this file. The pool is the
default one; --pool takes another, or ids joined by commas.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.estimation.metrics import scores
from scope_edge.factory import load_pipeline
from scope_edge.settings.config import load_settings
from scope_edge.training.asks import read_asks
from scope_edge.types import Preference, Query

if TYPE_CHECKING:
    from scope_edge.pipeline import Pipeline
    from scope_edge.types import Decision

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", default="default")
    parser.add_argument("--alpha", type=float, default=0.5)
    options = parser.parse_args()
    with load_pipeline(load_settings({"pool": options.pool})) as flow:
        print("\n".join([*_asks(flow, options.alpha), "", *_languages(flow, options.alpha)]))


def _asks(flow: Pipeline, alpha: float) -> list[str]:
    """A row a level, and the AUC of level 1 against 4 and 5 by every model's p."""
    asks = read_asks(HERE / "everyday.txt")
    found = _decided(flow, [one.text for one in asks], alpha)
    level = np.array([one.level for one in asks])
    p = {card.id: np.array([_of(decision, card.id)[0] for decision in found]) for card in flow.pool}
    lines = ["| level | asks | " + " | ".join(p) + " | on the device | task right |", "|---" * (len(p) + 4) + "|"]
    for one in range(1, 6):
        here = level == one
        device = np.mean([decision.where == "device" for decision, is_here in zip(found, here, strict=True) if is_here])
        right = np.mean([d.task == a.task for d, a, is_here in zip(found, asks, here, strict=True) if is_here])
        lines.append(
            f"| {one} | {here.sum()} | "
            + " | ".join(f"{v[here].mean():.2f}" for v in p.values())
            + f" | {device:.0%} | {right:.0%} |"
        )
    apart = (level == 1) | (level >= 4)
    auc = {model: scores(values[apart], (level[apart] == 1).astype(float)).auc for model, values in p.items()}
    lines += [
        "",
        "AUC of level 1 against 4 and 5: " + ", ".join(f"{model} {value:.3f}" for model, value in auc.items()),
    ]
    tokens = np.array([np.median([_of(d, card.id)[1] for card in flow.pool]) for d in found])
    away = np.abs(np.log(tokens) - np.log([one.tokens for one in asks]))
    ranks = np.corrcoef(np.argsort(np.argsort(tokens)), np.argsort(np.argsort([one.tokens for one in asks])))[0, 1]
    return [
        *lines,
        f"Tokens against the label's guess: rank correlation {ranks:.2f}, median factor {np.exp(np.median(away)):.2f}",
    ]


def _languages(flow: Pipeline, alpha: float) -> list[str]:
    """A row a language: how far p and tokens are from those of the same ask in English, medians over asks and models."""
    lines = [
        line for line in (HERE / "everyday_parallel.txt").read_text("utf-8").splitlines() if not line.startswith("#")
    ]
    rows = [line.split("|", 2) for line in lines]
    found = dict(
        zip(
            [(id, language) for id, language, _ in rows],
            _decided(flow, [text for *_, text in rows], alpha),
            strict=True,
        )
    )
    ids, languages = sorted({id for id, _ in found}), sorted({language for _, language in found} - {"en"})
    models = [card.id for card in flow.pool]
    out, all_p, all_tokens = ["| language | p away | tokens, factor |", "|---|---|---|"], [], []
    for language in languages:
        pairs = [(_of(found[id, language], m), _of(found[id, "en"], m)) for id in ids for m in models]
        p = [abs(a[0] - b[0]) for a, b in pairs]
        tokens = [abs(np.log(a[1] / b[1])) for a, b in pairs]
        all_p, all_tokens = all_p + p, all_tokens + tokens
        out.append(f"| {language} | {np.median(p):.3f} | {np.exp(np.median(tokens)):.2f} |")
    return [*out, f"| all | {np.median(all_p):.3f} | {np.exp(np.median(all_tokens)):.2f} |"]


def _decided(flow: Pipeline, texts: list[str], alpha: float) -> list[Decision]:
    preference = Preference(alpha=alpha)
    return [
        decision for _, decision in flow.decide_many((Query(text.replace("\\n", "\n")), preference) for text in texts)
    ]


def _of(decision: Decision, model: str) -> tuple[float, float]:
    row = next(one for one in decision.candidates if one.model == model)
    return row.p_correct or np.nan, row.tokens or np.nan


if __name__ == "__main__":
    main()
