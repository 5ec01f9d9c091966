"""What a model thinks before it answers, in the spellings in use: found in a whole reply, or taken off an answer as it comes.

Tags are those of DeepSeek and Qwen (`<think>`) and their relatives, Mistral (`[THINK]`), Seed (`<seed:think>`), Gemma
(`<unused94>thought`), and the channels of gpt-oss (Harmony): all but the channel "final" is thought.
"""

from __future__ import annotations

import re

_WORDS = "think|thinking|thought|thoughts|reasoning|seed:think|start_of_thought"
# Everything that opens a thought, and everything that ends one.
_OPENS = rf"<(?:{_WORDS})>|\[THINK\]|<unused94>thought|(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary)[^<]*<\|message\|>"
_CLOSES = (
    rf"</(?:{_WORDS})>|<end_of_thought>|\[/THINK\]|<unused95>"
    r"|(?:<\|end\|>|<\|return\|>)?(?:<\|start\|>assistant)?<\|channel\|>final[^<]*<\|message\|>"
)
_TAG = re.compile(f"(?P<open>{_OPENS})|(?P<close>{_CLOSES})", re.IGNORECASE)
_OPEN, _CLOSE = re.compile(_OPENS, re.IGNORECASE), re.compile(_CLOSES, re.IGNORECASE)
# Control tokens that a vocabulary may have for them.
_MARKERS = re.compile(rf"{_OPENS}|{_CLOSES}|<unused9[45]>|<\|(?:start|channel|message)\|>", re.IGNORECASE)
_LAST = re.compile(r"<\|(?:return|end)\|>\s*\Z")
# The first characters that any of them has, and more than the longest of them takes.
_FIRST, _LONGEST = "<[", 160


def without_thoughts(text: str) -> str:
    """Return a whole reply without thoughts.

    A thought without a beginning begins with the reply, since many templates write it; one without an end goes on to the end.
    """
    kept: list[str] = []
    at, open_tags = 0, 0
    for tag in _TAG.finditer(text):
        if tag["close"]:
            kept = kept if open_tags else []
            open_tags = max(open_tags - 1, 0)
        else:
            if not open_tags:
                kept.append(text[at : tag.start()])
            open_tags += 1
        at = tag.end()
    return _LAST.sub("", "".join(kept) if open_tags else "".join((*kept, text[at:])))


def opened_thought(prompt: str) -> str:
    """Return the tag with which a prompt ends, as some chat templates begin the thought themselves; "" = it does not."""
    tags = list(_TAG.finditer(prompt))
    return tags[-1]["open"] or "" if tags and not prompt[tags[-1].end() :].strip() else ""


def marks_thought(token: str) -> bool:
    """Return whether a control token of this spelling begins or ends a thought, so that it must not be left out of an answer."""
    return _MARKERS.fullmatch(token) is not None


class ThoughtFilter:
    """Parts an answer that comes in pieces into thought and text.

    Only a thought that the answer begins with is taken off, so that an answer may speak of such tags. What may become a tag is
    held back.
    """

    def __init__(self) -> None:
        self._held = ""
        self._state = "start"

    def feed(self, text: str) -> tuple[str, str]:
        """Return (thought, text) that are new."""
        if self._state == "after":
            text = text.lstrip()
            self._state = "text" if text else "after"
        if self._state in ("text", "after") or not text:
            return "", text
        self._held += text
        if self._state == "start":
            begun = self._held.lstrip()
            opened = _OPEN.match(begun)
            if opened is not None:
                self._held, self._state = begun[opened.end() :], "thought"
            elif begun and not _may_become(begun, _OPENINGS):
                held, self._held, self._state = self._held, "", "text"
                return "", held
            else:
                return "", ""
        closed = _CLOSE.search(self._held)
        if closed is None:
            kept = _unsure(self._held)
            thought, self._held = self._held[: len(self._held) - kept], self._held[len(self._held) - kept :]
            return thought, ""
        thought, rest = self._held[: closed.start()], self._held[closed.end() :].lstrip()
        self._held = ""
        # Blank space between thought and answer may come in a later piece.
        self._state = "text" if rest else "after"
        return thought, rest

    def rest(self) -> tuple[str, str]:
        """Return (thought, text) that were held back, at the end."""
        held, self._held = self._held, ""
        return (held, "") if self._state == "thought" else ("", held)


def _unsure(text: str) -> int:
    """Return how many characters at the end may begin a tag that ends a thought."""
    least = max(0, len(text) - _LONGEST)
    starts = (at for at in range(least, len(text)) if text[at] in _FIRST)
    return next((len(text) - at for at in starts if _may_become(text[at:], _CLOSINGS)), 0)


def _may_become(begun: str, tags: tuple[str, ...]) -> bool:
    """Return whether a text is the beginning of a tag, or of a channel's head, which has free words in the middle."""
    head = begun.lower()
    return any(
        tag.startswith(head)
        or (tag.startswith(_CHANNELS) and head.startswith(tag) and _WITHIN_HEAD.fullmatch(head, len(tag)))
        for tag in tags
    )


_BEFORE = [end + start for end in ("", "<|end|>", "<|return|>") for start in ("", "<|start|>assistant")]
_CHANNELS = tuple(f"{one}<|channel|>" for one in _BEFORE)
_WITHIN_HEAD = re.compile(r"[^<]*(?:<(?:\|(?:m(?:e(?:s(?:s(?:a(?:g(?:e(?:\|)?)?)?)?)?)?)?)?)?)?")
_OPENINGS = (
    *(f"<{word}>" for word in _WORDS.split("|")),
    "[think]",
    "<unused94>thought",
    *(f"{start}<|channel|>{name}" for start in ("", "<|start|>assistant") for name in ("analysis", "commentary")),
)
_CLOSINGS = (
    *(f"</{word}>" for word in _WORDS.split("|")),
    "[/think]",
    "<end_of_thought>",
    "<unused95>",
    *(f"{one}<|channel|>final" for one in _BEFORE),
)
