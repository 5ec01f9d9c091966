"""The kinds of tasks that a query may set. `unknowable` is the last: what no model can know."""

from __future__ import annotations

TASKS = (
    "greeting",
    "fact",
    "translate",
    "rewrite",
    "extract",
    "classify",
    "summarize",
    "brainstorm",
    "creative",
    "code",
    "debug",
    "maths",
    "plan",
    "explain",
    "agent",
    "unknowable",
)
UNKNOWABLE = TASKS.index("unknowable")
