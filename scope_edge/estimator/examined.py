"""What `doctor` says of the installed estimators: weights and template, where they would go, how fast, how far trusted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scope_edge import assets
from scope_edge.errors import AssetError, UsageError
from scope_edge.estimator.examples import TextSlices
from scope_edge.estimator.installed import Installed, check_gguf, entries, find_installed
from scope_edge.estimator.pace import Pace
from scope_edge.estimator.prompt import Template
from scope_edge.estimator.scope import no_text
from scope_edge.estimator.use import calibration, memory_plan
from scope_edge.files import in_words
from scope_edge.fingerprints import load_fingerprints
from scope_edge.llama.memory import NoRoom
from scope_edge.llama.speed import remembered

if TYPE_CHECKING:
    from scope_edge.records import ModelCard

# A prompt of usual length, for saying how long one takes.
_USUAL_PROMPT = 1000.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One estimator looked at. problem: what is wrong and what to do, None when it can be used."""

    name: str
    found: str
    problem: str | None


def examine_estimators(pool: Sequence[ModelCard], name: str | None) -> tuple[Finding, ...]:
    """Look at every installed estimator, the one in use first. name: the setting `estimator_name`."""
    used = _used(name)
    found = [
        _examine(one, pool, used) if isinstance(one, Installed) else Finding(one.name, "damaged", one.problem)
        for one in entries()
    ]
    return tuple(sorted(found, key=lambda one: one.name != used))


def text_missing(pool: Sequence[ModelCard], name: str | None) -> str | None:
    """A sentence when an estimator is in use that has nothing to read; else None. Raises AssetError."""
    used = _used(name)
    if used is None or TextSlices(pool, load_fingerprints()[1]).models:
        return None
    return no_text(used)


def _used(name: str | None) -> str | None:
    try:
        found = find_installed(name)
    except AssetError:
        return None
    return None if found is None else found.name


def _examine(one: Installed, pool: Sequence[ModelCard], used: str | None) -> Finding:
    try:
        check_gguf(one)
        Template.parse(one.template, one.name)
        facts = ", ".join(_facts(one, used))
        plan = memory_plan(one, pool)
    except (AssetError, UsageError) as error:
        return Finding(one.name, "damaged", str(error))
    if isinstance(plan, NoRoom):
        return Finding(one.name, facts, f"{plan.why}; these are the prior's estimates then")
    return Finding(one.name, f"{facts}; takes {plan.why}", None)


def _facts(one: Installed, used: str | None) -> Iterator[str]:
    if one.name == used:
        yield "in use"
    yield f"{one.shape.quantization} {in_words(one.size)}"
    yield f"mode {one.mode}"
    yield f"template {one.template_sha256[:12]} from {one.template_from}"
    fitted = calibration(one)
    yield "uncalibrated" if fitted is None else f"calibrated on {fitted.prompts} prompts"
    speed = remembered(one.sha256, assets.user_cache_dir())
    if speed is None:
        yield "speed not measured yet"
    else:
        seconds = Pace(speed, one.mode, one.analysis_tokens).seconds(_USUAL_PROMPT, one.samples)
        yield f"a prompt takes about {seconds:.2g} seconds here ({speed.rung})"
