"""Does fine-tuning the encoder on outcomes tell more of how hard a query is than its states do? Trained, cross-fitted, compared.

    pip install -e '.[train]'
    python build_scripts/train_encoder.py prepare --data ROUTING_DATA/zeroeval ... --cache FOLDER --out teaching.npz
    python build_scripts/train_encoder.py learn teaching.npz --out codes/ --jobs 5
    python build_scripts/train_encoder.py compare teaching.npz --out codes/ --write anchors/README.md

`learn` needs this checkout, torch, numpy and the one file, so it can run on a machine that has a GPU and no more. For every seed
a network (code_net.py) is trained on the training models and queries, and again without each fifth of the query families, with the
models' loadings held so that all codes have the same coordinates: a training query's code comes from a network that never saw
it. What is trained is kept in --out and not trained again. Minutes on a GPU, far longer on a processor.

`compare` has the map's kernel ridge regression, all training queries as landmarks, predict difficulty with and without the
code. Parts that were not trained have no code of their own: their queries are left out of both.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from code_net import CodeNet, Windows, codes, untuned
from figures import table, write_figures
from teaching import FOLDS, Teaching, read_teaching, write_teaching
from torch import Tensor
from torch.nn import functional

from scope_edge.estimation.difficulty import Kernel
from scope_edge.estimation.newton import fit_logistic
from scope_edge.training.fit_map import EMBEDDING_VARIANCE, FEATURE_VARIANCE, NOISE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Ints = NDArray[np.int64]

SEEDS = (30, 31, 32, 33, 34)
SIZES = (250, 25)
# Of a model that is scored: outcomes there must be, and of either kind.
LEAST_SCORED, LEAST_OF_A_KIND = 50, 5
# Standard deviation of a model's level before anything is known of it.
LEVEL_SD = 2.0


@dataclass(frozen=True, slots=True)
class Config:
    """How a network is trained. Chosen on seeds 0 and 1.

    Attributes:
        own: layers that learn, from the top. rate, head_rate: AdamW's, for layers and for head and models; they rise over the
            first 6 % of the steps and fall to 0 over the rest. windows: read of a query in training, drawn anew each time.
        length_weight: of the squared error of log-length beside the cross-entropy. apart: of the loadings' spread.
    """

    size: int = 4
    own: int = 3
    epochs: int = 3
    rate: float = 3e-4
    head_rate: float = 2e-3
    batch: int = 32
    dropout: float = 0.1
    windows: int = 2
    length_weight: float = 0.1
    apart: float = 0.05
    seed: int = 0


# What the code adds to the kernel: linear, curved and how wide. The best of six on seeds 0 and 1.
CODE_LINEAR, CODE_CURVE, CODE_WIDTH = 0.3, 1.0, 8.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare", help="write the one file that training needs")
    prepare.add_argument("--data", type=Path, nargs="+", required=True, help="folders in the routing data format")
    prepare.add_argument("--cache", type=Path, help="folder that keeps embeddings between runs")
    prepare.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    prepare.add_argument("--out", type=Path, required=True)
    learn = commands.add_parser("learn", help="train what is not trained yet")
    compare = commands.add_parser("compare", help="what the codes are worth, as tables")
    for command in (learn, compare):
        command.add_argument("teaching", type=Path)
        command.add_argument("--out", type=Path, required=True, help="folder of codes, one file a network")
        command.add_argument("--seeds", type=int, nargs="+", help="some of the file's seeds only")
        command.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    learn.add_argument("--jobs", type=int, default=1, help="seeds trained side by side")
    for name, value in asdict(Config()).items():
        learn.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    compare.add_argument(
        "--write", type=Path, help="put the tables between the <!-- figures: code --> marks of this file"
    )
    options = parser.parse_args()
    if options.command == "prepare":
        from unseen import read

        write_teaching(options.out, read(options.data, options.cache), options.seeds)
        return
    teaching = read_teaching(options.teaching)
    seeds = options.seeds or list(teaching.scored)
    if options.command == "compare":
        text = "\n\n".join(report(teaching, seeds, options.out, options.device))
        print(text)
        if options.write:
            write_figures(options.write, text, "code")
        return
    config = Config(**{name: getattr(options, name) for name in asdict(Config())})
    options.out.mkdir(parents=True, exist_ok=True)
    jobs = [(options.teaching, seed, config, options.out, options.device) for seed in seeds]
    with multiprocessing.get_context("spawn").Pool(options.jobs, maxtasksperchild=1) as pool:
        for seed in pool.imap_unordered(learn_seed, jobs):
            print(f"seed {seed}: trained", flush=True)


def learn_seed(job: tuple[Path, int, Config, Path, str]) -> int:
    """Train a seed's networks that are not there yet, the whole one first: the others take the models' loadings from it."""
    path, seed, config, out, device = job
    teaching = read_teaching(path)
    windows = Windows(teaching, device)
    taught, models = ~teaching.scored[seed], ~teaching.unseen[seed]
    told = json.dumps(asdict(config))
    loading = None
    for part in (None, *range(FOLDS)):
        kept = code_file(out, seed, part)
        if kept.exists():
            with np.load(kept) as found:
                if str(found["config"]) == told:
                    loading = found["loading"]
                    continue
        rows = np.flatnonzero(taught if part is None else taught & (teaching.fold != part))
        # Other draws for every part, so that what they have in common is not luck.
        one = config if part is None else replace(config, seed=config.seed + 1 + part)
        net = train(teaching, windows, rows, models, one, loading, kept.stem)
        loading = net.loading.detach().cpu().numpy()
        partial = kept.with_suffix(".partial.npz")
        np.savez(partial, codes=codes(net, windows).cpu().numpy(), loading=loading, config=told)
        partial.replace(kept)
    return seed


def code_file(out: Path, seed: int, part: int | None) -> Path:
    return out / f"seed-{seed}-{'whole' if part is None else f'without-{part}'}.npz"


def train(
    teaching: Teaching,
    windows: Windows,
    rows: Ints,
    models: Bools,
    config: Config,
    loading: NDArray[np.float32] | None,
    title: str,
) -> CodeNet:
    """A network that learned from these queries (index) and models (mask). loading: (models, size), held where given."""
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    device = windows.ids.device
    correct, log_tokens = (
        torch.tensor(table[models], device=device) for table in (teaching.correct, teaching.log_tokens)
    )
    sets = torch.tensor(teaching.sets, device=device)
    sizes = {"size": config.size, "own": config.own, "dropout": config.dropout}
    net = CodeNet(teaching.weights, len(correct), len(teaching.set_names), **sizes).to(device)
    start(net, correct, log_tokens, sets, rows, loading)
    layers = [p for p in net.encoder.parameters() if p.requires_grad]
    rest = [p for name, p in net.named_parameters() if p.requires_grad and not name.startswith("encoder.")]
    groups = [
        {"params": layers, "lr": config.rate, "weight_decay": 0.01},
        {"params": rest, "lr": config.head_rate, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, fused=device.type == "cuda")
    total = -(-len(rows) // config.batch) * config.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (0.06 * total), (total - step) / (0.94 * total), 1)
    )
    begun, step, seen = time.monotonic(), 0, []
    net.train()
    for _ in range(config.epochs):
        for batch in batches(teaching, rows, config.batch, rng):
            chosen, of = draw_windows(teaching, batch, config.windows, rng)
            at = torch.tensor(batch, device=device)
            ids, mask = windows.batch(torch.tensor(chosen, device=device))
            with torch.autocast(device.type, torch.bfloat16, enabled=windows.ids.is_cuda):
                out = net(ids, mask)
            out = averaged(out, windows.lengths[chosen], torch.tensor(of, device=device), len(batch))
            loss = loss_of(net, out, correct[:, at], log_tokens[:, at], sets[at], config)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(layers + rest, 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            seen.append(loss.detach())
            if step % 100 == 0 or step == total:
                left = (time.monotonic() - begun) / step * (total - step)
                mean = float(torch.stack(seen[-100:]).mean())
                print(f"{title}: step {step} of {total}, loss {mean:.4f}, {left:.0f} s left", flush=True)
    return net


@torch.no_grad()
def start(
    net: CodeNet, correct: Tensor, log_tokens: Tensor, sets: Tensor, rows: Ints, loading: NDArray[np.float32] | None
) -> None:
    """Levels from what every model does on average; loadings held where they are given."""
    at = torch.tensor(rows, device=sets.device)
    for number in range(net.level.shape[1]):
        here = at[sets[at] == number]
        net.level[:, number] = torch.logit(correct[:, here].nanmean(1).nan_to_num(0.5).clamp(0.02, 0.98))
        net.length_level[:, number] = log_tokens[:, here].nanmean(1).nan_to_num(0.0)
    if loading is not None:
        net.loading.copy_(torch.tensor(loading))
        net.loading.requires_grad_(False)


def batches(teaching: Teaching, rows: Ints, size: int, rng: np.random.Generator) -> Iterator[Ints]:
    """All rows once, in batches of about the same length each."""
    longest = np.zeros(len(teaching), np.int64)
    np.maximum.at(longest, teaching.owner, teaching.lengths)
    order = rng.permutation(rows)
    parts = [order[i : i + 16 * size] for i in range(0, len(order), 16 * size)]
    parts = [part[np.argsort(longest[part], kind="stable")] for part in parts]
    made = [part[i : i + size] for part in parts for i in range(0, len(part), size)]
    for number in rng.permutation(len(made)):
        yield made[number]


def draw_windows(teaching: Teaching, batch: Ints, most: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """At most so many windows of every query of a batch, and which of its queries each is of."""
    first, after = (np.searchsorted(teaching.owner, batch, side) for side in ("left", "right"))
    drawn = [
        np.arange(a, b) if b - a <= most else a + rng.choice(b - a, most, replace=False)
        for a, b in zip(first, after, strict=True)
    ]
    return np.concatenate(drawn), np.repeat(np.arange(len(batch)), [len(one) for one in drawn])


def averaged(out: Tensor, lengths: Tensor, of: Tensor, queries: int) -> Tensor:
    """Windows' outputs as their queries', every token counting once."""
    weight = lengths.float()
    total = torch.zeros(queries, out.shape[1], device=out.device).index_add(0, of, out.float() * weight[:, None])
    return total / torch.zeros(queries, device=out.device).index_add(0, of, weight)[:, None]


def loss_of(net: CodeNet, out: Tensor, correct: Tensor, log_tokens: Tensor, sets: Tensor, config: Config) -> Tensor:
    """Mean over queries of the mean over the models that were measured on them."""
    code, length = out[:, : net.size], out[:, net.size]
    logits = net.level[:, sets] + net.loading @ code.T
    entropy = functional.binary_cross_entropy_with_logits(logits, correct.nan_to_num(), reduction="none")
    away = (log_tokens.nan_to_num() - net.length_level[:, sets] - net.length_slope[:, None] * length) ** 2
    spread = ((net.loading - net.loading.mean(0)) ** 2).mean()
    return over_known(entropy, correct) + config.length_weight * over_known(away, log_tokens) + config.apart * spread


def over_known(values: Tensor, measured: Tensor) -> Tensor:
    known = torch.isfinite(measured)
    return ((values * known).sum(0) / known.sum(0).clamp(min=1)).mean()


class Ridge:
    """The map's regression of difficulty on what is not trained, with every training query as a landmark."""

    def __init__(self, teaching: Teaching, vectors: Tensor, states: Tensor, train: Bools, test: Bools) -> None:
        device = vectors.device
        self.train, self.test = (torch.tensor(np.flatnonzero(one), device=device) for one in (train, test))
        self.difficulty = torch.tensor(teaching.difficulty, device=device)
        self.weight = 1 / (torch.tensor(teaching.error, device=device) ** 2 + NOISE)
        features = self.standard(torch.tensor(teaching.features, device=device)).clamp(-6, 6)
        states = functional.normalize(self.standard(states), dim=1)
        vectors = functional.normalize(vectors, dim=1)
        taught = [one[self.train].T for one in (vectors, states, features)]
        distances = (features**2).sum(1)[:, None] + (taught[2] ** 2).sum(0) - 2 * features @ taught[2]
        cosines, alike = vectors @ taught[0], states @ taught[1]
        kernel = Kernel()
        curved = kernel.curve * torch.exp(kernel.sharpness * (cosines - 1))
        curved += kernel.turn * torch.exp(kernel.keenness * (alike - 1))
        curved += kernel.bend * torch.exp(-distances / kernel.width)
        self.gram = EMBEDDING_VARIANCE * cosines + FEATURE_VARIANCE * features @ taught[2] + curved

    def standard(self, values: Tensor) -> Tensor:
        taught = values[self.train]
        return (values - taught.mean(0)) / (taught.std(0) + 1e-6)

    def predict(self, code: Tensor | None = None) -> Tensor:
        """Difficulty of the scored queries, (q,); with a code (n, k) of all queries where one is given."""
        gram = self.gram
        if code is not None:
            code = self.standard(code)
            taught = code[self.train]
            curve = torch.exp(-(torch.cdist(code, taught) ** 2) / CODE_WIDTH)
            gram = gram + CODE_LINEAR * code @ taught.T + CODE_CURVE * curve
        weight, aim = self.weight[self.train], self.difficulty[self.train]
        offset = (aim * weight).sum() / weight.sum()
        system = gram[self.train].double() + torch.diag(1 / weight)
        factor = torch.linalg.cholesky(system)
        solved = torch.cholesky_solve((aim - offset)[:, None], factor)
        return (gram[self.test].double() @ solved)[:, 0] + offset


def report(teaching: Teaching, seeds: Sequence[int], out: Path, device: str) -> Iterator[str]:
    """The tables, as markdown: means over seeds."""
    vectors, states = untuned(teaching.weights, Windows(teaching, device))
    found: dict[str, list[NDArray[np.float64]]] = {}
    for seed in seeds:
        for name, rows in compared(teaching, vectors, states, seed, out).items():
            found.setdefault(name, []).append(rows)
    means = {name: np.mean(rows, axis=0) for name, rows in found.items()}
    head = ["of unseen models on unseen queries", *teaching.set_names]
    for title, column in (("Correlation with the queries' own difficulty", 0), ("AUC", 1)):
        known = {name: row[:, column] for name, row in means.items() if not np.isnan(row[:, column]).all()}
        rows = [[name, *(f"{value:.4f}" for value in row)] for name, row in known.items()]
        rows.append(["the code's gain, and its standard error over seeds", *gains(found, column)])
        yield f"{title}, {len(seeds)} splits:\n\n" + table(head, rows)


MAP, WITH, ALONE = "the map, a query's difficulty", "the map with the code", "the code by itself"


def gains(found: Mapping[str, list[NDArray[np.float64]]], column: int) -> list[str]:
    apart = np.array(found[WITH])[:, :, column] - np.array(found[MAP])[:, :, column]
    error = apart.std(axis=0, ddof=1) / np.sqrt(len(apart)) if len(apart) > 1 else np.full(apart.shape[1], np.nan)
    return [f"{mean:+.4f} ± {spread:.4f}" for mean, spread in zip(apart.mean(axis=0), error, strict=True)]


def compared(
    teaching: Teaching, vectors: Tensor, states: Tensor, seed: int, out: Path
) -> dict[str, NDArray[np.float64]]:
    """Way of predicting -> (sets, 2): correlation and AUC of one seed; NaN where there is none."""
    with np.load(code_file(out, seed, None)) as whole:
        code, loading = whole["codes"].copy(), whole["loading"]
    taught = np.zeros(len(teaching), bool)
    for part in range(FOLDS):
        if code_file(out, seed, part).exists():
            with np.load(code_file(out, seed, part)) as without:
                left = ~teaching.scored[seed] & (teaching.fold == part)
                code[left] = without["codes"][left]
                taught |= left
    ridge = Ridge(teaching, vectors, states, taught, teaching.scored[seed])
    crossed = torch.tensor(code, device=vectors.device)
    plain, joined = (ridge.predict(one).cpu().numpy() for one in (None, crossed))
    found = {MAP: judged(teaching, plain, seed), WITH: judged(teaching, joined, seed)}
    for size in SIZES:
        found[f"{ALONE}, {size} anchors at random"] = by_anchors(teaching, code[:, :-1], loading, taught, seed, size)
    return found


def judged(teaching: Teaching, predicted: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """(sets, 2) of predicted difficulties of the scored queries, (q,)."""
    rows = np.flatnonzero(teaching.scored[seed])
    found = []
    for number in range(len(teaching.set_names)):
        here = teaching.sets[rows] == number
        own = np.corrcoef(predicted[here], teaching.difficulty[rows[here]])[0, 1]
        aucs = [
            auc(-predicted[here][known], teaching.correct[m, rows[here][known]])
            for m, known in scored_models(teaching, seed, rows[here])
        ]
        found.append([own, np.mean(aucs)])
    return np.array(found)


def scored_models(teaching: Teaching, seed: int, rows: Ints) -> Iterator[tuple[int, Bools]]:
    """Unseen models with enough outcomes on these queries, and on which of them."""
    for m in np.flatnonzero(teaching.unseen[seed]):
        known = np.isfinite(teaching.correct[m, rows])
        right = int((teaching.correct[m, rows[known]] > 0.5).sum())
        if known.sum() >= LEAST_SCORED and min(right, known.sum() - right) >= LEAST_OF_A_KIND:
            yield int(m), known


def by_anchors(
    teaching: Teaching, code: NDArray[np.float32], loading: NDArray[np.float32], taught: Bools, seed: int, size: int
) -> NDArray[np.float64]:
    """(sets, 2) where a model's level and loading are fitted to so many of its outcomes, drawn from a set's training queries."""
    rng = np.random.default_rng(seed)
    mean = np.concatenate([[0.0], loading.mean(0)])
    precision = np.zeros((len(mean),) * 2)
    precision[0, 0] = LEVEL_SD**-2
    precision[1:, 1:] = np.linalg.inv(np.cov(loading.T) + 1e-3 * np.eye(loading.shape[1]))
    design = np.hstack([np.ones((len(code), 1)), code]).astype(np.float64)
    found = []
    for number in range(len(teaching.set_names)):
        here = teaching.sets == number
        rows = np.flatnonzero(teaching.scored[seed] & here)
        aucs = []
        for m, known in scored_models(teaching, seed, rows):
            material = np.flatnonzero(taught & here & np.isfinite(teaching.correct[m]))
            anchors = rng.permutation(material)[:size]
            if len(anchors):
                right = teaching.correct[m, anchors].astype(np.float64)
                fitted = fit_logistic(design[anchors], right, mean, precision)[0]
                aucs.append(auc(design[rows[known]] @ fitted, teaching.correct[m, rows[known]]))
        found.append([np.nan, np.mean(aucs)])
    return np.array(found)


def auc(values: NDArray[np.float64], correct: NDArray[np.float32]) -> float:
    """Chance that a query that went right stands above one that went wrong."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    right = correct > 0.5
    ups = int(right.sum())
    return float((ranks[right].sum() - ups * (ups + 1) / 2) / (ups * (len(right) - ups)))


if __name__ == "__main__":
    main()
