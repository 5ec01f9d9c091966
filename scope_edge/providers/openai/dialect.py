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
    r"only the default|deprecated|only \S+ is allowed|may only be|cannot both",
    re.IGNORECASE,
)
_ABOUT_STREAMING = re.compile(r"\bstream(?:ing|ed)?\b", re.IGNORECASE)
_ABOUT_ROLES = re.compile(
    r"(?:system|developer) (?:message|role|prompt|instruction)|\broles?\b|alternat|chat template|unknown variant|at the beginning",
    re.IGNORECASE,
)
# Many servers list the fields that they do know, or repeat the request: neither is what they complain of.
_LIST_OF_KNOWN = re.compile(
    r"(?:expected|must be) (?:one|any) of|(?:supported|valid|allowed|known|permitted) \w+ (?:are|is|include)\b|did you mean",
    re.IGNORECASE,
)
_PYDANTIC = re.compile(r"""["'](?:loc["']:\s*[\[(](.*?)[\])]|msg["']:\s*["'](.*?)["'][,}])""")
# Ways to write a conversation, from the plainest reading of it to what the strictest templates take.
_AS_GIVEN, _SYSTEM_ONLY, _ONE_SYSTEM, _ALTERNATING, _NO_SYSTEM = range(5)


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

    def draft(self) -> ServerDialect:
        """Return a copy for one request, which learns by itself: requests at the same time do not disturb each other."""
        made = ServerDialect(self._options)
        made._tokens_name, made._left_out = self._tokens_name, set(self._left_out)
        made._form, made._streams = self._form, self._streams
        return made

    def adopt(self, draft: ServerDialect) -> None:
        """Remember what a request has learned. One that is refused in every form says nothing of the server."""
        self._options = {name: value for name, value in self._options.items() if name in draft._options}
        self._left_out = self._left_out | draft._left_out
        if draft._tokens_name != "max_tokens":
            self._tokens_name = draft._tokens_name
        self._form, self._streams = max(self._form, draft._form), self._streams and draft._streams

    def learn(self, raw: bytes, sent: Mapping[str, Any]) -> bool:
        """Change one thing that a refusal (HTTP 400 or 422) complains of. Return whether the next request will differ."""
        complaint = _complaint(raw)
        refuses = _REFUSES.search(complaint) is not None
        if "max_tokens" in sent and (
            "max_completion_tokens" in complaint or (refuses and _names("max_tokens", complaint))
        ):
            self._tokens_name = "max_completion_tokens"
            return True
        for name in [name for name in self._options if name in sent and _names(name, complaint)]:
            del self._options[name]
            return True
        for name in _PREFERENCES if refuses else ():
            if name in sent and _names(name, complaint):
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


def _complaint(raw: bytes) -> str:
    """Return what a refusal complains of, without what it repeats of the request and the names that it knows."""
    text = raw[:_READ].decode("utf-8", "replace").replace('\\"', '"')
    blamed = " ".join(" ".join(one) for one in _PYDANTIC.findall(text))
    return _LIST_OF_KNOWN.split(blamed or text)[0]


def _names(name: str, complaint: str) -> bool:
    """Return whether a complaint names a field, in any way of writing it: top_p, topP, "top p"."""
    return re.search(rf"(?<![a-z]){name.replace('_', '[_ -]?')}(?![a-z]|_\w)", complaint, re.IGNORECASE) is not None


def _written(messages: Sequence[Mapping[str, Any]], form: int) -> list[Mapping[str, Any]]:
    """Return a conversation in a form: with `system` for `developer`, with one system message at the start,

    with neighbouring messages of one role joined, or without a system message.
    """
    written = list(messages)
    if form >= _SYSTEM_ONLY:
        written = [{**one, "role": "system"} if one.get("role") == "developer" else one for one in written]
    if form >= _ONE_SYSTEM:
        systems = [one for one in written if one.get("role") == "system"]
        rest = [one for one in written if one.get("role") != "system"]
        written = [*_joined(systems), *rest]
    if form >= _ALTERNATING:
        written = _joined(written)
    if form >= _NO_SYSTEM and written and written[0].get("role") == "system":
        written = _joined([{**written[0], "role": "user"}, *written[1:]])
    return written


def _joined(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Join neighbouring messages of one role that hold text and nothing else."""
    joined: list[Mapping[str, Any]] = []
    for one in messages:
        before, text = joined[-1] if joined else {}, _text_alone(one)
        first = _text_alone(before)
        if text is not None and first is not None and before["role"] == one["role"]:
            joined[-1] = {**before, "content": f"{first}\n\n{text}"}
        else:
            joined.append(one)
    return joined


def _text_alone(message: Mapping[str, Any]) -> str | None:
    """Return the text of a message that has no other content; None = it has."""
    content = message.get("content")
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "\n\n".join(str(part.get("text")) for part in content)
    return content if isinstance(content, str) and message.keys() <= {"role", "content", "name"} else None
