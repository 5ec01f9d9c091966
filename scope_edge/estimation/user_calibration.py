"""Personal calibration: a correction of the estimates from the user's own fingerprints, stored as a pack in the data folder.

tuning/calibrate.py fits it. It holds for the models it was fitted on while the map, the encoder and those models' outcomes
stay the same.
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
from scope_edge.storage.packs import read_pack, reading, write_pack

if TYPE_CHECKING:
    from scope_edge.estimation.fingerprints import Fingerprint

KIND, FILE = "personal-calibration", "calibration.pack"
_RESTS_ON = {
    "map": "anchors/map.pack",
    "encoder": "models/encoder/encoder.onnx",
    "multilingual encoder": "models/multilingual/net.onnx",
}
_MEND = "run `scope-edge calibrate` again, or `scope-edge calibrate --forget`"


@dataclass(frozen=True, slots=True)
class Personal:
    """A correction of the estimates of some models; 1, 0, 1 changes nothing.

    Attributes:
        slope, intercept: of the log-odds of P(correct). widening: of the distance from expected log-length to upper bound.
    """

    slope: float
    intercept: float
    widening: float
    models: tuple[str, ...]

    def on(self, calibration: Calibration, models: Sequence[str]) -> Calibration:
        """Return the calibration of each of these models: `calibration`, followed by this one where it holds."""
        mine = np.array([model in self.models for model in models])[:, None]
        slope, intercept = np.where(mine, self.slope, 1.0), np.where(mine, self.intercept, 0.0)
        return Calibration(
            slope=slope * calibration.slope,
            intercept=slope * calibration.intercept + intercept,
            widening=np.where(mine[:, 0], self.widening, 1.0) * calibration.widening,
        )


@dataclass(frozen=True, slots=True)
class Loaded:
    """found: the calibration to use, or None. ignored: why a stored one is not used, or None."""

    found: Personal | None = None
    ignored: str | None = None


def file() -> Path:
    """Return its path, whether or not it exists."""
    return assets.user_data_dir() / FILE


def save_personal(personal: Personal, fingerprints: Mapping[str, Sequence[Fingerprint]]) -> None:
    """Store it with the key of the fingerprints it was fitted on. Raises AssetError when it cannot be written."""
    body = {
        "key": _key(personal.models, fingerprints),
        "models": list(personal.models),
        "numbers": [personal.slope, personal.intercept, personal.widening],
    }
    write_pack(file(), KIND, body)


def load_personal(fingerprints: Mapping[str, Sequence[Fingerprint]]) -> Loaded:
    """Load the one that holds for these fingerprints. A damaged one is ignored like another release's: it only refines."""
    path = file()
    if not path.exists():
        return Loaded()
    try:
        body = read_pack(path, KIND)
        with reading(str(path), "calibration", "made by another release or damaged"):
            slope, intercept, widening = (float(number) for number in body["numbers"])
            personal = Personal(slope, intercept, widening, tuple(map(str, body["models"])))
            key = {str(name): str(digest) for name, digest in body["key"].items()}
            if not (np.isfinite([slope, intercept]).all() and slope > 0 and 0 < widening < np.inf):
                raise ValueError("its numbers make no sense")
    except PackError as error:
        return Loaded(ignored=f"{error}; {_MEND}")
    changed = [name for name, digest in _key(personal.models, fingerprints).items() if key.get(name) != digest]
    if changed:
        return Loaded(ignored=f"{path}: made for another {' and another '.join(changed)}; {_MEND}")
    return Loaded(personal)


def forget_personal() -> bool:
    """Remove it; return whether it existed. Raises PackError when it cannot be removed."""
    try:
        file().unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise PackError(
            f"{file()}: cannot be removed ({error.strerror or error}); check the folder's permissions"
        ) from error
    return True


def _key(models: Sequence[str], fingerprints: Mapping[str, Sequence[Fingerprint]]) -> Mapping[str, Any]:
    """Return the sha256, hex, of everything it rests on, by name."""
    listed = assets.manifest()
    digest = hashlib.sha256()
    for model in sorted(models):
        own = [one for one in fingerprints.get(model, ()) if one.own]
        for one in sorted(own, key=lambda one: one.anchors.name):
            digest.update(f"{model}\0{one.anchors.name}\0{set_digest(one.anchors)}\0".encode())
            digest.update(np.ascontiguousarray(one.correct, "<f8").tobytes())
            digest.update(np.ascontiguousarray(one.tokens, "<f8").tobytes())
    rests_on = {what: listed[name].sha256 for what, name in _RESTS_ON.items()}
    return {**rests_on, "set of fingerprints": digest.hexdigest()}
