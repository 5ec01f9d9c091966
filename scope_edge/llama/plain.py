"""Plain text as it is shown while it is written: never half a character, never what may turn out to be a stop string."""

from __future__ import annotations

import codecs


class PlainText:
    """Bytes of tokens in, text out."""

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        """stop: texts at which it ends, and which are not shown."""
        self._stop = stop
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._shown: list[str] = []
        self._asked = 0
        self._held = ""
        self.stopped = False

    def take(self, raw: bytes) -> None:
        """A token's bytes. Sets `stopped` when they complete a stop string."""
        self._add(self._decode(raw))

    def end(self) -> None:
        """No more will come: what was held back is text after all."""
        if not self.stopped:
            self._add(self._decode(b"", True))
        if not self.stopped:
            self._shown.append(self._held)
            self._held = ""

    def fresh(self) -> str:
        """What can be shown and was not when this was last asked."""
        text = "".join(self._shown[self._asked :])
        self._asked = len(self._shown)
        return text

    @property
    def text(self) -> str:
        """All that can be shown."""
        return "".join(self._shown)

    def _add(self, new: str) -> None:
        text, self._held = self._held + new, ""
        found = [at for one in self._stop if (at := text.find(one)) >= 0]
        if found:
            self.stopped = True
            self._shown.append(text[: min(found)])
            return
        kept = len(text) - max((_begun(text, one) for one in self._stop), default=0)
        self._shown.append(text[:kept])
        self._held = text[kept:]


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of `text` are the beginning of `stop`."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
