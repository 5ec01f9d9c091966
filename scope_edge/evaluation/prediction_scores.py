"""Scores of every router's predictions: per model, pooled, by field, by evidence, by number of anchors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scope_edge.estimation.metrics import BINS, ece, ece_floor, scores
from scope_edge.evaluation import report
from scope_edge.evaluation.predict import CLIP, OURS, SplitPredictions
from scope_edge.evaluation.report import ALL, UNSEEN, Prediction

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scope_edge.evaluation.fit import Part
    from scope_edge.policy.costs import Bools
    from scope_edge.types import Floats

_LENGTHS_SHOWN = 400


@dataclass(frozen=True, slots=True, eq=False)
class PredictionRows:
    """n outcomes: p and y (n,); true tokens, predicted tokens and tokens_hi (n,), NaN = not known."""

    p: Floats
    y: Floats
    tokens: Floats
    predicted: Floats
    high: Floats

    @classmethod
    def of(cls, found: Sequence[SplitPredictions], router: str, chosen: Callable[[Part], Bools]) -> PredictionRows:
        """Return one router's rows of the candidates for which `chosen` gives True, (candidates,), of each split."""
        columns: list[list[Floats]] = [[], [], [], [], []]
        for one in found:
            at = one.known & chosen(one.part)
            lengths = (one.table.tokens, one.table.tokens_hi) if router == OURS else (one.table.tokens * np.nan,) * 2
            for column, values in zip(columns, (one.p[router], one.correct, one.tokens, *lengths), strict=True):
                column.append(values[at])
        return cls(*(np.concatenate(column) for column in columns))

    def scored(self, mean_auc: float | None) -> Prediction:
        """Score the rows."""
        p, y = self.p, self.y
        s = scores(p, y)
        known = (self.tokens > 0) & np.isfinite(self.predicted)
        true, predicted, high = self.tokens[known], self.predicted[known], self.high[known]
        some = bool(known.any())
        return Prediction(
            n=len(p),
            accuracy=s.accuracy,
            auc=number(s.auc),
            mean_auc=mean_auc,
            brier=s.brier,
            logloss=s.logloss,
            ece=ece(p, y),
            ece_floor=ece_floor(p),
            length_log_mae=float(np.median(np.abs(np.log(true / predicted)))) if some else None,
            coverage=float((true <= high).mean()) if some else None,
            width=float(np.median(high / predicted)) if some else None,
        )


def number(value: float) -> float | None:
    """Return a number, or None for NaN."""
    return None if np.isnan(value) else float(value)


def prediction_scores(found: Sequence[SplitPredictions]) -> Mapping[str, Mapping[str, Prediction]]:
    """Return, by router, the scores of every candidate, of "all" of them and of the "unseen" ones."""
    models = sorted({name for one in found for name in one.part.names})
    body = {}
    for router in found[0].p:
        aucs = list(_aucs(found, router))
        rows = {}
        for name in models:
            mine = PredictionRows.of(found, router, lambda part, name=name: np.array(part.names) == name)  # type: ignore[misc]
            if len(mine.p):
                rows[name] = mine.scored(_mean([auc for model, _, auc in aucs if model == name]))
        rows[ALL] = PredictionRows.of(found, router, lambda part: np.ones(len(part.models), bool)).scored(
            _mean([auc for *_, auc in aucs])
        )
        unseen = PredictionRows.of(found, router, lambda part: part.unseen)
        if len(unseen.p):
            rows[UNSEEN] = unseen.scored(_mean([auc for _, joined, auc in aucs if joined]))
        body[router] = rows
    return body


def _aucs(found: Sequence[SplitPredictions], router: str) -> Iterator[tuple[str, bool, float]]:
    """Yield (model, unseen, AUC) of every candidate in every split."""
    for one in found:
        for column, name in enumerate(one.part.names):
            at = one.known[:, column]
            auc = scores(one.p[router][at, column], one.correct[at, column]).auc
            yield name, bool(one.part.unseen[column]), auc


def _mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else None


def reliability(found: Sequence[SplitPredictions]) -> tuple[report.ReliabilityBin, ...]:
    """Return tenths of every router's predictions for joining models."""
    bins = []
    for router in found[0].p:
        rows = PredictionRows.of(found, router, lambda part: part.joined)
        tenths = np.array_split(np.argsort(rows.p, kind="stable"), BINS)
        for at in filter(len, tenths):
            bins.append(report.ReliabilityBin(router, len(at), float(rows.p[at].mean()), float(rows.y[at].mean())))
    return tuple(bins)


def lengths(found: Sequence[SplitPredictions]) -> tuple[report.Length, ...]:
    """Return a random sample of our lengths for joining models, the shortest predicted first."""
    rows = []
    for one in found:
        at = one.known & one.part.joined & (one.tokens > 0) & np.isfinite(one.table.tokens)
        for q, m in np.argwhere(at):
            lengths = (float(column[q, m]) for column in (one.table.tokens, one.table.tokens_hi, one.tokens))
            rows.append(report.Length(one.part.names[m], *lengths))
    chosen = np.random.default_rng(0).permutation(len(rows))[:_LENGTHS_SHOWN]
    return tuple(sorted((rows[i] for i in chosen), key=lambda row: row.predicted))


def field_scores(found: Sequence[SplitPredictions]) -> tuple[report.FieldScore, ...]:
    """Score every candidate in every category."""
    rows = []
    for name in sorted({name for one in found for name in one.part.names}):
        parts = [(one, one.part.names.index(name)) for one in found if name in one.part.names]
        for category in sorted({c for one, _ in parts for c in one.part.data.categories[one.part.rows].tolist()}):
            y, p = [], []
            for one, column in parts:
                at = one.known[:, column] & (one.part.data.categories[one.part.rows] == category)
                y.append(one.correct[at, column])
                p.append(one.p[OURS][at, column])
            observed, predicted = np.concatenate(y), np.concatenate(p)
            if len(observed):
                rows.append(
                    report.FieldScore(name, category, len(observed), float(observed.mean()), float(predicted.mean()))
                )
    return tuple(rows)


def adaptation(found: Sequence[SplitPredictions]) -> tuple[report.Adaptation, ...]:
    """Score estimates by number of anchors: means over joining models and splits."""
    rows = []
    for size in found[0].by_size:
        values = []
        for one in found:
            table = one.by_size[size].p_correct
            for column in np.flatnonzero(one.part.joined):
                at = one.known[:, column]
                s = scores(np.clip(table[at, column], CLIP, 1 - CLIP), one.correct[at, column])
                values.append((s.auc, s.accuracy, s.logloss))
        auc, accuracy, logloss = zip(*values, strict=True)
        rows.append(report.Adaptation(size, _mean(auc), float(np.mean(accuracy)), float(np.mean(logloss))))
    return tuple(rows)


def evidence_scores(found: Sequence[SplitPredictions]) -> tuple[report.EvidenceScore, ...]:
    """Score by evidence word, over joining models and every number of anchors: with few, more evidence is weak."""
    rows = []
    for word in ("strong", "weak"):
        ps, ys, fields = [], [], []
        for one in found:
            categories = np.broadcast_to(one.part.data.categories[one.part.rows][:, None], one.correct.shape)
            for table in one.by_size.values():
                at = one.known & one.part.joined & (table.strong == (word == "strong"))
                ps.append(np.clip(table.p_correct[at], CLIP, 1 - CLIP))
                ys.append(one.correct[at])
                fields.append(categories[at])
        p, y, field = np.concatenate(ps), np.concatenate(ys), np.concatenate(fields)
        if len(p):
            rows.append(_evidence(word, p, y, field))
    return tuple(rows)


def _evidence(word: str, p: Floats, y: Floats, field: NDArray[np.str_]) -> report.EvidenceScore:
    gaps = [(field == one, p[field == one].mean() - y[field == one].mean()) for one in np.unique(field)]
    entropy = -(p * np.log(p) + (1 - p) * np.log1p(-p))
    logloss = -(y * np.log(p) + (1 - y) * np.log1p(-p))
    return report.EvidenceScore(
        evidence=word,
        n=len(p),
        signed_error=float(p.mean() - y.mean()),
        calibration_error=float(sum(at.sum() * abs(gap) for at, gap in gaps) / len(p)),
        excess_logloss=float((logloss - entropy).mean()),
        excess_brier=float(((p - y) ** 2 - p * (1 - p)).mean()),
    )
