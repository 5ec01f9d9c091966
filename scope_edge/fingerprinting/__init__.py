"""Fingerprinting: a model answers the anchors of a core set, is graded, and becomes a candidate like any other.

run.py      the whole of it, from questions to the pack
questions.py    what is asked, in which order, and what it may cost
local.py    a GGUF asked in the llama.cpp worker      endpoint.py  an endpoint, asked by a few threads
journal.py  every answer on disk before the next      purse.py    what was spent, and what may be
standing.py     ability with its error, and the place among known models
"""
