"""A decision carried out: its models asked in order, until one answers.

request.py    what is asked, of whom it may be, and when it must be over
contracts.py  what the executor knows of models, the ledger and the journal
chain.py      who is asked, in which order, and who never
room.py       how many tokens an answer may have, and what it may cost
cloud.py      models behind endpoints        device.py  GGUFs in the llama.cpp worker
call.py       one model asked: reserved, read, settled
execution.py  one answer, as it comes        verify.py  two samples compared, and another model asked where they differ
"""

from scope_edge.execution.executor import Execution, Executor
from scope_edge.execution.request import Request

__all__ = ["Execution", "Executor", "Request"]
