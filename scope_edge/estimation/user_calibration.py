"""Personal calibration: what the user's own fingerprints say of the prior's estimates, kept as a pack in the data folder.

It is fitted by calibrating.py and holds for the models it was fitted on, as long as nothing it rests on has changed: the
map, the encoder, and those models' outcomes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.errors import PackError
from scope_edge.estimation.calibration import Calibration
from scope_edge.estimation.fingerprints import set_digest
from scope_edge.storage import assets
from scope_edge.storage.packs import read_pack, write_pack

if TYPE_CHECKING:
    from scope_edge.estimation.fingerprints import Fingerprint

KIND, FILE = "personal-calibration", "calibration.pack"
_RESTS_ON = {"map": "anchors/map.pack", "encoder": "models/encoder/encoder.onnx"}
_MEND = "run `scope-edge calibrate` again, or `scope-edge calibrate --forget`"


@dataclass(frozen=True, slots=True)
class Personal:
    """A correction of the prior's estimates of some models; 1, 0, 1 changes nothing.

    Attributes:
        slope, intercept: of the log-odds of P(correct). widening: of the way from the expected log-length to its upper bound.
    """

    slope: float
    intercept: float
    widening: float
    models: tuple[str, ...]

    def on(self, calibration: Calibration, models: Sequence[str]) -> Calibration:
        """The calibration of each of these models: `calibration`, with this after it where it holds."""
        mine = np.array([model in self.models for model in models])[:, None]
        slope, intercept = np.where(mine, self.slope, 1.0), np.where(mine, self.intercept, 0.0)
        return Calibration(
            slope=slope * calibration.slope,
            intercept=slope * calibration.intercept + intercept,
            widening=np.where(mine[:, 0], self.widening, 1.0) * calibration.widening,
        )


@dataclass(frozen=True, slots=True)
class Loaded:
    """found: the one to use; None with `ignored`, the reason why there is one and it is not used, or with neither."""

    found: Personal | None = None
    ignored: str | None = None


def file() -> Path:
    """Where it is kept, whether or not there is one."""
    return assets.user_data_dir() / FILE


def save_personal(personal: Personal, fingerprints: Mapping[str, Sequence[Fingerprint]]) -> None:
    """Keep it, for the fingerprints it was fitted on. Raises AssetError when it cannot be written."""
    body = {
        "key": _key(personal.models, fingerprints),
        "models": list(personal.models),
        "numbers": [personal.slope, personal.intercept, personal.widening],
    }
    write_pack(file(), KIND, body)


def load_personal(fingerprints: Mapping[str, Sequence[Fingerprint]]) -> Loaded:
    """The one that holds for these fingerprints. A damaged one is ignored like one of another release: it only refines."""
    path = file()
    if not path.exists():
        return Loaded()
    try:
        body = read_pack(path, KIND)
        slope, intercept, widening = (float(number) for number in body["numbers"])
        personal = Personal(slope, intercept, widening, tuple(map(str, body["models"])))
        key = {str(name): str(digest) for name, digest in body["key"].items()}
    except PackError as error:
        return Loaded(ignored=f"{error}; {_MEND}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return Loaded(ignored=f"{path}: not a usable calibration ({error!r}); {_MEND}")
    if not (np.isfinite([slope, intercept]).all() and slope > 0 and 0 < widening < np.inf):
        return Loaded(ignored=f"{path}: its numbers make no sense; {_MEND}")
    changed = [name for name, digest in _key(personal.models, fingerprints).items() if key.get(name) != digest]
    if changed:
        return Loaded(ignored=f"{path}: made for another {' and another '.join(changed)}; {_MEND}")
    return Loaded(personal)


def forget_personal() -> bool:
    """Remove it; whether there was one. Raises PackError when it cannot be removed."""
    try:
        file().unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise PackError(
            f"{file()}: cannot be removed ({error.strerror or error}); check the folder's permissions"
        ) from error
    return True


def own_parts(parts: Sequence[Fingerprint]) -> tuple[Fingerprint, ...]:
    """What the user measured."""
    return tuple(one for one in parts if one.own)


def _key(models: Sequence[str], fingerprints: Mapping[str, Sequence[Fingerprint]]) -> Mapping[str, Any]:
    """What it rests on -> sha256, hex."""
    listed = assets.manifest()
    digest = hashlib.sha256()
    for model in sorted(models):
        for one in sorted(own_parts(fingerprints.get(model, ())), key=lambda one: one.anchors.name):
            digest.update(f"{model}\0{one.anchors.name}\0{set_digest(one.anchors)}\0".encode())
            digest.update(np.ascontiguousarray(one.correct, "<f8").tobytes())
            digest.update(np.ascontiguousarray(one.tokens, "<f8").tobytes())
    return {
        **{what: listed[name].sha256 for what, name in _RESTS_ON.items()},
        "set of fingerprints": digest.hexdigest(),
    }
