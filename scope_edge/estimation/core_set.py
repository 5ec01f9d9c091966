"""core-250: the questions a new model answers, written for this project. They are loaded to be asked or graded, never to route.

core = load_core()
for spec in core.specs:                       # most informative first
    reply = ask(prompt_of(spec))              # grading.specs; None when no reply came
    correct = grade(spec, reply)              # 0 to 1, or None: missing
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from scope_edge.errors import PackError
from scope_edge.estimation.anchor_spec import AnchorSpec, spec_body, spec_from_body, text_of
from scope_edge.estimation.anchors import AnchorSet, set_body, set_from_body
from scope_edge.storage import assets
from scope_edge.storage.packs import unpack

CORE_250 = "anchors/core-250.pack"
_KIND = "core-set"


@dataclass(frozen=True, slots=True, eq=False)
class CoreSet:
    """A core anchor set that can be asked: row i of `anchors` is where `specs[i]` lies on the map."""

    anchors: AnchorSet
    specs: tuple[AnchorSpec, ...]


def load_core() -> CoreSet:
    """The bundled core-250. Raises AssetError when it is missing or damaged."""
    body = unpack(assets.read(CORE_250), _KIND, CORE_250, verified=True)
    specs = tuple(spec_from_body(one, CORE_250) for one in body.get("specs", ()))
    anchors = set_from_body(body.get("anchors", {}), CORE_250)
    if anchors.ids != _ids(anchors.name, specs):
        raise PackError(f"{CORE_250}: its questions and their places do not fit together; reinstall scope-edge")
    return CoreSet(replace(anchors, texts=tuple(text_of(spec) for spec in specs)), specs)


def core_body(core: CoreSet) -> tuple[str, dict[str, Any]]:
    """Kind and body of the pack that holds a core set. The texts of the anchors are those of the specs, so are left out."""
    if core.anchors.ids != _ids(core.anchors.name, core.specs):
        raise PackError(f"{core.anchors.name}: its questions and their places do not fit together; build it again")
    anchors = set_body(replace(core.anchors, texts=()))
    return _KIND, {"anchors": anchors, "specs": [spec_body(spec) for spec in core.specs]}


def _ids(name: str, specs: Sequence[AnchorSpec]) -> tuple[str, ...]:
    return tuple(f"{name}/{spec.id}" for spec in specs)
