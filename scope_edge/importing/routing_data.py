"""A folder of labelled queries (`labelled.py`) as an anchor set: its questions, and outcomes by model.

What prompts and calls cost there is left alone: cost follows from the card's prices.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from scope_edge.errors import AssetError
from scope_edge.importing.naming import Cards, check_model, set_name
from scope_edge.importing.outcomes import Material, Tally
from scope_edge.labelled import OUTCOMES, read_outcomes, read_queries
from scope_edge.placing import Question

if TYPE_CHECKING:
    from scope_edge.importing.keeping import Progress
    from scope_edge.importing.outcomes import Imported


def import_routing_data(
    folder: Path, cards: Cards, name: str | None = None, limit: int | None = None, progress: Progress | None = None
) -> Imported:
    """Import a folder as anchor set `name`, by default the folder's. Raises as `read_routing_data` and `keep`."""
    from scope_edge.importing.keeping import keep

    called = set_name(name or folder.resolve().name, "give --name")
    return keep(read_routing_data(folder, cards), cards, called, limit, progress)


def read_routing_data(folder: Path, cards: Cards) -> Material:
    """The folder's questions and outcomes.

    Dropped and counted: blank questions, outcomes of questions that are not there or whose `correct` is not known;
    repeated measurements are averaged, and counted too. Raises AssetError naming file and row.
    """
    dropped: Counter[str] = Counter()
    questions = read_queries(folder, dropped)
    at = {id: i for i, id in enumerate(questions)}
    tally = Tally(len(questions))
    for one in read_outcomes(folder, lambda spelled, where: check_model(cards.known_as(spelled), where)):
        row = at.get(one.query)
        if row is None:
            dropped["outcomes of unknown or blank questions"] += 1
        elif one.correct is None and one.completion_tokens is None:
            dropped["outcomes that say nothing (missing)"] += 1
        else:
            tally.add(one.model, row, one.correct, one.completion_tokens)
    if not tally.models:
        raise AssetError(f"{folder / OUTCOMES}: has no outcome of these questions; is this the folder?")
    dropped["repeated outcomes, averaged"] = tally.repeated
    asked = tuple(Question(one.id, one.category, one.text) for one in questions.values())
    return Material(str(folder), asked, tally, dropped)
