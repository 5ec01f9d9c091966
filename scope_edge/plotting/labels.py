"""Names beside their points, so that none covers another, a point or a line. Plain geometry, in points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_ANGLES = (0, 30, -30, 60, -60, 90, -90, 150, -150, 120, -120, 180)
_RADII = (9.0, 13.0, 19.0, 28.0, 39.0, 52.0, 68.0)
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle: left, bottom, right, top."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlap(self, other: Box) -> float:
        """The area both cover."""
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        return width * height if width > 0 and height > 0 else 0.0

    def holds(self, x: float, y: float) -> bool:
        """Whether a point is in it."""
        return self.x0 <= x <= self.x1 and self.y0 <= y <= self.y1


@dataclass(frozen=True, slots=True)
class Named:
    """A point and the size of its label."""

    x: float
    y: float
    width: float
    height: float


def placed(
    items: Sequence[Named], obstacles: Sequence[Box], line: Sequence[tuple[float, float]], frame: Box
) -> list[Box]:
    """Where each label goes.

    Args:
        obstacles: what labels must not cover: the points' own markers too. line: points of lines, to be avoided.
        frame: labels stay within.
    """
    choices = [[(far + _badness(box, obstacles, line, frame), box) for far, box in _around(item)] for item in items]
    boxes: list[Box | None] = [None] * len(items)
    order = sorted(range(len(items)), key=lambda i: (-_crowd(items, i), i))
    for _ in range(_ROUNDS):
        for i in order:
            others = [box for j, box in enumerate(boxes) if j != i and box is not None]
            boxes[i] = min(choices[i], key=lambda choice: choice[0] + 5 * _covered(choice[1], others))[1]
    return [box for box in boxes if box is not None]


def _crowd(items: Sequence[Named], i: int) -> int:
    return sum(math.hypot(items[i].x - other.x, items[i].y - other.y) < 80 for other in items)


def _around(item: Named) -> list[tuple[float, Box]]:
    """Places for a label round its point, and how far-fetched each is: near is better, right of it best."""
    found = []
    for radius in _RADII:
        for rank, angle in enumerate(_ANGLES):
            cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            x, y = item.x + radius * cos, item.y + radius * sin
            left = x - item.width * (1 - cos) / 2
            bottom = y - item.height * (1 - sin) / 2
            found.append((radius + 0.6 * rank, Box(left, bottom, left + item.width, bottom + item.height)))
    return found


def _badness(box: Box, obstacles: Sequence[Box], line: Sequence[tuple[float, float]], frame: Box) -> float:
    outside = (box.x1 - box.x0) * (box.y1 - box.y0) - box.overlap(frame)
    hidden = sum(box.overlap(other) for other in obstacles)
    airy = Box(box.x0 - 2, box.y0 - 2, box.x1 + 2, box.y1 + 2)
    crossed = sum(airy.holds(x, y) for x, y in line)
    return 20 * outside + 2 * hidden + 4 * crossed


def _covered(box: Box, others: Sequence[Box]) -> float:
    """How much of other labels a label covers, a little air round it."""
    airy = Box(box.x0 - 3, box.y0 - 1, box.x1 + 3, box.y1 + 1)
    return sum(airy.overlap(other) for other in others)
