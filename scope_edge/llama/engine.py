"""What decoding needs of a loaded model, as a Protocol: `native.Native` is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Logits = NDArray[np.float32]


class Engine(Protocol):
    """A loaded model with one context for many sequences that share a cache of `context` cells.

    longest: tokens a sequence may have: beyond what the model was trained on it computes nonsense.
    threads: cores to compute on, here as there.
    rewinds: whether a sequence may be cut, or shared in part. A recurrent model's state knows only its own end.
    """

    context: int
    longest: int
    threads: int
    rewinds: bool

    def tokenize(self, text: str, *, markup: bool = False) -> list[int]: ...
    def piece(self, token: int) -> bytes: ...
    def ends(self, token: int) -> bool: ...
    def share(self, source: int, target: int, length: int) -> None: ...
    def forget(self, sequence: int, start: int = 0) -> None: ...
    def clear(self) -> None: ...
    def decode(
        self, tokens: Sequence[int], positions: Sequence[int], sequences: Sequence[int], wanted: Sequence[bool]
    ) -> Logits | None: ...
