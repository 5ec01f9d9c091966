"""What a server does not accept, learned from its refusals: options, their names, roles of messages, streaming.

One thing is changed at a time, and remembered for as long as the client lives.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

# A refusal is read as far as this.
_READ = 4096
# Fields that shape an answer but that an answer can do without. What a request means (tools, formats, stops) is never left out.
_PREFERENCES = (
    "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "logit_bias", "seed", "user",
    "metadata", "store", "parallel_tool_calls", "service_tier", "reasoning_effort",
)  # fmt: skip
_REFUSES = re.compile(
    r"not (?:be )?(?:support|allow|permit|accept|recogni)|unsupport|unknown|unrecogni|unexpected|forbidden|extra (?:input|field)|"
    r"only the default|deprecated",
    re.IGNORECASE,
)
_ABOUT_STREAMING = re.compile(r"\bstream(?:ing|ed)?\b", re.IGNORECASE)
_ABOUT_ROLES = re.compile(
    r"system (?:message|role|prompt)|\broles?\b|alternat|chat template|unknown variant|at the beginning", re.IGNORECASE
)
# Ways to write a conversation, from the plainest reading of it to what the strictest templates take.
_AS_GIVEN, _SYSTEM_ONLY, _ONE_SYSTEM, _NO_SYSTEM = range(4)


class ServerDialect:
    """What one endpoint accepts. Threads may share it."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """options: sent until the server refuses them; never a user's own."""
        self._options = dict(options)
        self._tokens_name = "max_tokens"
        self._left_out: set[str] = set()
        self._form, self._streams = _AS_GIVEN, True

    def applied(self, body: Mapping[str, Any], max_tokens: int | None) -> dict[str, Any]:
        """Return a request's body as this server takes it."""
        kept = {name: value for name, value in body.items() if name not in self._left_out}
        named = {} if max_tokens is None else {self._tokens_name: max_tokens}
        sent = {**self._options, **kept, **named, "messages": _written(body["messages"], self._form)}
        if not self._streams:
            sent = {name: value for name, value in sent.items() if name != "stream_options"} | {"stream": False}
        return sent

    def learn(self, raw: bytes, sent: Mapping[str, Any]) -> bool:
        """Change one thing that a refusal (HTTP 400 or 422) complains of. Return whether the next request will differ."""
        complaint = raw[:_READ].decode("utf-8", "replace")
        if "max_tokens" in sent and "max_completion_tokens" in complaint:
            self._tokens_name = "max_completion_tokens"
            return True
        for name in [name for name in self._options if name in sent and name in complaint]:
            del self._options[name]
            return True
        if _REFUSES.search(complaint):
            for name in _PREFERENCES:
                if name in sent and name in complaint:
                    self._left_out.add(name)
                    return True
        if sent.get("stream") and _ABOUT_STREAMING.search(complaint.replace("stream_options", "")):
            self._streams = False
            return True
        return _ABOUT_ROLES.search(complaint) is not None and self._plainer(sent["messages"])

    def _plainer(self, messages: Sequence[Mapping[str, Any]]) -> bool:
        """Write conversations in the next form that changes this one. Return False if none does."""
        for form in range(self._form + 1, _NO_SYSTEM + 1):
            if _written(messages, form) != list(messages):
                self._form = form
                return True
        return False


def _written(messages: Sequence[Mapping[str, Any]], form: int) -> list[Mapping[str, Any]]:
    """Return a conversation in a form: with `system` for `developer`, with one system message at the start, or with none."""
    written = list(messages)
    if form >= _SYSTEM_ONLY:
        written = [{**one, "role": "system"} if one.get("role") == "developer" else one for one in written]
    systems = [one for one in written if one.get("role") == "system"]
    if form < _ONE_SYSTEM or not systems or not all(isinstance(one.get("content"), str) for one in systems):
        return written
    rest = [one for one in written if one.get("role") != "system"]
    text = "\n\n".join(str(one["content"]) for one in systems)
    first = rest[0] if rest else None
    if form < _NO_SYSTEM or first is None or first.get("role") != "user" or not isinstance(first.get("content"), str):
        return [{"role": "system", "content": text}, *rest]
    return [{**first, "content": f"{text}\n\n{first['content']}"}, *rest[1:]]
