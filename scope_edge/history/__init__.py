"""The journal of decisions and runs, and the user's feedback on single answers."""

from scope_edge.history.entry import Entry
from scope_edge.history.journal import Journal

__all__ = ["Entry", "Journal"]
