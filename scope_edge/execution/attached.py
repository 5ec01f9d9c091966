"""What a request sends beside the text of its messages: its strings, and the parts whose size in tokens is unknown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scope_edge.execution.request import Messages

# Types of parts that are text, under whatever name.
_TEXT_PARTS = ("text", "input_text", "output_text", "refusal", "thinking", "reasoning")
_MEDIA = {
    "image_url": "pictures", "input_image": "pictures", "image": "pictures", "input_audio": "audio", "audio": "audio",
    "file": "files", "input_file": "files", "document": "files", "video_url": "videos",
}  # fmt: skip
# Tools that the caller runs. Others run at the server, which bills them by the call.
_OWN_TOOLS = ("function", "custom")
# Fields that make a server add text or pictures of its own, ask another model, or bill at another rate.
_UNPRICED = ("audio", "web_search_options", "plugins", "models", "previous_response_id", "conversation")
_USUAL_TIERS = ("auto", "default", "flex")
# A long string without a blank that is cut by a part's end can be an address or a key: so much of it is kept.
# After "data:", the type of what follows; and base64 with nothing else in it, not one long word.
_LONGEST_TYPE, _BASE64 = 100, re.compile(r"[A-Za-z0-9+/_-]*={0,2}")
_SEAM = 256


def attached_strings(messages: Messages, fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Return every string that is sent beside roles and texts, field names included; numbers within objects as text.

    Of a picture or a file in a data URI only the head is returned. Where a message has several texts, what stands at each seam
    without a blank is returned too: a model reads the texts as one.
    """
    found = list(_strings({k: value for k, value in fields.items() if isinstance(value, (str, list, tuple, Mapping))}))
    for message in messages:
        found += _strings({name: value for name, value in message.items() if name not in ("role", "content")})
        content = message.get("content")
        if isinstance(content, list):
            parts = [part for part in content if isinstance(part, Mapping)]
            for part in parts:
                rest = {k: v for k, v in part.items() if not (k == "text" or (k, v) == ("type", "text"))}
                found += map(_head, _strings(rest))
            found += _seams([part["text"] for part in parts if isinstance(part.get("text"), str)])
    return tuple(found)


def unsized_part(messages: Messages, fields: Mapping[str, Any]) -> str | None:
    """Name something in the request whose cost its length does not bound; None = there is nothing."""
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, Mapping) else None
            if kind not in _TEXT_PARTS:
                return _MEDIA.get(str(kind), f"parts of type {kind}")
        if message.get("audio"):
            return "audio"
    modalities = fields.get("modalities")
    if isinstance(modalities, list) and "audio" in modalities:
        return "audio"
    for tool in _mappings(fields.get("tools")):
        if tool.get("type", "function") not in _OWN_TOOLS:
            return f"tools of type {tool.get('type')}"
    if fields.get("service_tier") not in (None, *_USUAL_TIERS):
        return f"the service tier {fields['service_tier']}"
    return next((name for name in _UNPRICED if fields.get(name)), None)


def predicted_text(fields: Mapping[str, Any]) -> str:
    """Return the text of a predicted answer: a server bills those of its tokens that the answer does not use."""
    return "\n".join(_strings(fields.get("prediction")))


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    return (one for one in (value if isinstance(value, list) else ()) if isinstance(one, Mapping))


def _strings(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, Mapping):
            for name, held in reversed(list(one.items())):
                waiting += (held, str(name))
        elif isinstance(one, (list, tuple)):
            waiting += reversed(one)
        elif one is not None:
            yield str(one)


def _head(text: str) -> str:
    """Return a picture or file in a data URI without its content; any other text as it is."""
    head, mark, content = text.partition(";base64,") if text[:5].lower() == "data:" else (text, "", "")
    return head if mark and len(head) <= _LONGEST_TYPE and _BASE64.fullmatch(content) else text


def _seams(texts: Sequence[str]) -> Iterator[str]:
    """Yield what stands across the ends of texts, as far as the next blank."""
    before = ""
    for text in texts:
        head = re.match(r"\S*", text[:_SEAM])
        if before and head and head[0]:
            yield before + head[0]
        whole = before + text if len(text) < _SEAM and not re.search(r"\s", text) else text
        tail = re.search(r"\S*\Z", whole[-_SEAM:])
        before = tail[0] if tail else ""
