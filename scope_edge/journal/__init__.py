"""The journal: what was decided, what became of it, and nothing of the query itself unless that was asked for.

book.py      entries written, found, purged       entry.py     an entry, and its row in the database
written.py   decisions and runs as JSON and back  key.py       the keyed hash by which a query is known again
"""

from scope_edge.journal.book import Journal
from scope_edge.journal.entry import Entry

__all__ = ["Entry", "Journal"]
