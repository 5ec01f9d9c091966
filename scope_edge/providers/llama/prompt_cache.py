"""Prompts kept in the cache. A new prompt begins with what one of them shares with it, and only the rest is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scope_edge.providers.llama.native import Engine


@dataclass(slots=True)
class Slot:
    """A prompt's sequence and what it holds. users: lanes that go on from it, and the reading of it."""

    sequence: int
    tokens: list[int] = field(default_factory=list)
    users: int = 0
    used_at: int = 0


class Slots:
    """Sequences 0 ... count - 1 of an engine."""

    def __init__(self, engine: Engine, count: int, keep: int) -> None:
        """keep: tokens of prompts nobody uses that stay. Where attention looks at all cells in use they slow all others."""
        self._engine, self._keep = engine, keep
        self._turn = 0
        self._slots = [Slot(i) for i in range(count)]

    def clear(self) -> None:
        """Forget everything, whatever else the engine holds included."""
        self._engine.clear()
        self._slots = [Slot(slot.sequence) for slot in self._slots]

    def take(self, tokens: Sequence[int], need: int, in_use: int) -> Slot | None:
        """A slot for a prompt, holding what was cached of it, with one user; None while those in use leave no room.

        need: cells the prompt and its samples may come to use. in_use: cells that others may come to use.
        """
        room = self._engine.context - in_use - need
        if room < 0 or all(slot.users for slot in self._slots):
            return None
        source = max(self._slots, key=lambda slot: (self._shared(slot, tokens), -slot.users))
        shared = self._shared(source, tokens)
        target = self._target(source, shared, min(room, self._keep))
        self._engine.forget(target.sequence, shared if target is source else 0)
        if target is not source and shared:
            self._engine.share(source.sequence, target.sequence, shared)
        self._turn += 1
        target.tokens, target.users, target.used_at = list(tokens[:shared]), 1, self._turn
        self._trim(tokens, min(room, self._keep))
        return target

    def leave(self, slot: Slot | None) -> None:
        """One user less. What it holds stays, for a prompt that begins alike, while nobody needs the room."""
        if slot is not None:
            slot.users -= 1
            self._turn += 1
            slot.used_at = self._turn

    def mend(self, slot: Slot | None) -> None:
        """Drop what a decode that was given up may have left in a sequence."""
        if slot is not None:
            if not self._engine.rewinds:
                slot.tokens = []
            self._engine.forget(slot.sequence, len(slot.tokens))

    def trim(self, room: int) -> None:
        """Leave prompts nobody uses at most so many tokens, the oldest going first."""
        if sum(len(slot.tokens) for slot in self._slots if not slot.users) > room:
            self._trim((), room)

    def _shared(self, slot: Slot, tokens: Sequence[int]) -> int:
        """How much of a slot serves a prompt. Its last token is always read: its logits are what the samples start from."""
        shared = min(common(slot.tokens, tokens), len(tokens) - 1)
        return shared if self._engine.rewinds or shared == len(slot.tokens) else 0

    def _target(self, source: Slot, shared: int, keep: int) -> Slot:
        """Where the prompt goes: on in the source when nothing worth keeping is lost by that, else to the oldest one."""
        rest = len(source.tokens) - shared
        if not source.users and (rest <= 1 or rest > keep):
            return source
        return min((slot for slot in self._slots if not slot.users), key=lambda slot: slot.used_at)

    def _trim(self, tokens: Sequence[int], keep: int) -> None:
        """Drop prompts nobody uses until so many tokens are left: those least like this one first, then the oldest.

        Cells that prompts share are counted once for each, so there is always at least the room promised.
        """
        idle = [slot for slot in self._slots if not slot.users and slot.tokens]
        idle.sort(key=lambda slot: (common(slot.tokens, tokens), slot.used_at))
        kept = sum(len(slot.tokens) for slot in idle)
        for slot in idle:
            if kept <= keep:
                break
            kept -= len(slot.tokens)
            self._engine.forget(slot.sequence)
            slot.tokens, slot.used_at = [], 0


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    size = min(len(one), len(other))
    if not size:
        return 0
    differ = np.flatnonzero(np.asarray(one[:size]) != np.asarray(other[:size]))
    return int(differ[0]) if len(differ) else size
