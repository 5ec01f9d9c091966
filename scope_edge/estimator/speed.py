"""How long a prompt takes here: from what the warm-up measured, corrected by every run since."""

from __future__ import annotations

from typing import Protocol

from scope_edge.providers.llama.messages import Mode, Stats

# Tokens of the answer line, and what an analysis usually takes until it has been seen.
ANSWER_TOKENS = 16
_ANALYSIS_TOKENS = 160
# A run counts as much as what was known before once it has this many tokens.
_WEIGHT_TOKENS = 2000.0
_FORGET = 0.05


class PromptSpeed(Protocol):
    """Tokens per second: of prompts read, and written by all samples together."""

    @property
    def prefill_tps(self) -> float: ...

    @property
    def decode_tps(self) -> float: ...


class SpeedEstimate:
    """Predicts seconds and tokens of prompts. Starts from a warm-up's figures and learns from runs."""

    def __init__(self, speed: PromptSpeed, mode: Mode, analysis_tokens: int) -> None:
        self._warm = max(speed.prefill_tps, 1e-6), max(speed.decode_tps, 1e-6)
        self._prefill, self._decode = self._warm
        free = 0 if mode == "direct" else min(analysis_tokens, _ANALYSIS_TOKENS)
        self._sample = float(free + ANSWER_TOKENS)

    def seconds(self, prompt_tokens: float, samples: int) -> float:
        """Wall seconds of one prompt."""
        return prompt_tokens / self._prefill + samples * self._sample / self._decode

    def tokens(self, prompt_tokens: float, samples: int) -> float:
        """Tokens read and written for one prompt."""
        return prompt_tokens + samples * self._sample

    def learn(self, stats: Stats, samples: int) -> None:
        """Take in what a run of so many samples really took."""
        if stats.prefill_tokens > 0 and stats.prefill_seconds > 0:
            rate = stats.prefill_tokens / stats.prefill_seconds
            self._prefill = _mixed(self._prefill, rate, stats.prefill_tokens)
        if stats.decode_tokens > 0 and stats.decode_seconds > 0:
            rate = stats.decode_tokens / stats.decode_seconds
            self._decode = _mixed(self._decode, rate, stats.decode_tokens)
            if samples:
                self._sample = _mixed(self._sample, stats.decode_tokens / samples, stats.decode_tokens)

    def relax(self) -> None:
        """A prompt was not run for being too slow: forget a little of what was seen, which may have been a busy minute.

        Otherwise one slow run could keep every later one from showing that it was an exception.
        """
        self._prefill += _FORGET * (self._warm[0] - self._prefill)
        self._decode += _FORGET * (self._warm[1] - self._decode)


def _mixed(known: float, seen: float, tokens: float) -> float:
    share = tokens / (tokens + _WEIGHT_TOKENS)
    return known + share * (seen - known)
