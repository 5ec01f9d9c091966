"""Feedback: the user's word on single answers, as anchors of their own that estimates know from the next query on.

held.py   what was said                  give.py   an entry of the journal judged, and the judgement taken back
local.py  estimates corrected near queries whose answers were judged
"""

from scope_edge.history.entry import Entry
from scope_edge.history.journal import Journal

# The journal: what was decided, what became of it, and nothing of the query itself unless that was asked for.
#
# book.py      entries written, found, purged       entry.py     an entry, and its row in the database
# written.py   decisions and runs as JSON and back  key.py       the keyed hash by which a query is known again

__all__ = ["Entry", "Journal"]
