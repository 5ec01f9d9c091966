"""Feedback: the user's word on single answers, as anchors of their own that estimates know from the next query on.

held.py   what was said                  give.py   an entry of the journal judged, and the judgement taken back
local.py  estimates corrected near queries whose answers were judged
"""
