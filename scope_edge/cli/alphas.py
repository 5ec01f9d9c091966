"""Alphas as they are written on the command line."""

from __future__ import annotations

from scope_edge.checks import check_alpha
from scope_edge.errors import UsageError

# A sweep of more alphas than this shows nothing that fewer would not.
_MOST = 1001


def read_alphas(text: str) -> tuple[float, ...]:
    """Numbers in [0, 1], rising: "0:1:0.05" or "0,0.5,1". Raises UsageError."""
    try:
        if ":" in text:
            first, last, step = (float(part) for part in text.split(":"))
            if not step > 0 or not last >= first or (last - first) / step >= _MOST:
                raise ValueError
            numbers = [round(first + i * step, 10) for i in range(int((last - first) / step + 1e-9) + 1)]
        else:
            numbers = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--alphas must be FROM:TO:STEP or numbers joined by commas, not {text!r}") from error
    return tuple(sorted({check_alpha(number, "--alphas") for number in numbers}))
