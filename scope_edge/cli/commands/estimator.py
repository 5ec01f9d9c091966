"""`scope-edge estimator`: install and manage the language models that refine the prior's estimates."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from scope_edge.cli import format
from scope_edge.cli.commands.imports import report
from scope_edge.cli.inputs import confirmed
from scope_edge.cli.options import json_array_option, json_option, yes_option
from scope_edge.cli.output import ProgressLine, one_line, out, out_json, print_facts, print_table
from scope_edge.cli.run import complain
from scope_edge.errors import AssetError, ScopeEdgeError, UsageError, WorkerError
from scope_edge.estimator.convert.quantize import QUANTS
from scope_edge.estimator.factory import CALIBRATE, calibration
from scope_edge.estimator.store import Damaged, Installed, check_gguf, entries, find_installed, list_installed
from scope_edge.settings.config import load_settings

if TYPE_CHECKING:
    from scope_edge.providers.llama.messages import ModelShape
    from scope_edge.providers.llama.speed import SpeedRecord

_FILE = click.Path(dir_okay=False, path_type=Path)
_EPILOG = """\b
Examples:
  scope-edge estimator install Cooolder/SCOPE
  scope-edge estimator install ./scope.gguf --card ./README.md
  scope-edge estimator list
  scope-edge estimator measure
  scope-edge estimator remove scope-q4_k_m

\b
Exit codes:
  0 ok   2 usage, or offline is set   5 a file or download is missing or damaged, or no space
"""
_INSTALL_EPILOG = """\b
Examples:
  scope-edge estimator install Cooolder/SCOPE
  scope-edge estimator install Cooolder/SCOPE_NoCoT@main --quant Q8_0 --no-anchors
  scope-edge estimator install ./checkpoint
  scope-edge estimator install ./scope.gguf --prompt-template ./prompt.txt --mode cot

\b
Variables:
  HF_TOKEN             your token, for private or gated models
  HF_ENDPOINT          another hub
  SCOPE_EDGE_OFFLINE   1 = never download
"""


def _found(name: str | None) -> Installed:
    """Return an installed estimator, None = the newest. Raises UsageError."""
    entry = find_installed(name)
    if entry is None and name is None:
        raise UsageError("no estimator is installed; `scope-edge estimator install Cooolder/SCOPE` gets the paper's")
    if entry is None:
        raise UsageError(f"no estimator {name!r} is installed; `scope-edge estimator list` shows the installed ones")
    return entry


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(entry.name) for entry in entries() if entry.name.startswith(incomplete)]


@click.group("estimator", epilog=_EPILOG)
def command() -> None:
    """Install and remove estimators: language models that predict how well others answer a query.

    An estimator refines the estimates from fingerprints. It runs on this machine, with llama.cpp.
    """


@command.command("install", epilog=_INSTALL_EPILOG)
@click.argument("source")
@click.option("--name", metavar="NAME", help="A name for it. Default: made from the source.")
@click.option(
    "--quant",
    type=click.Choice(QUANTS, case_sensitive=False),
    metavar=f"[{'|'.join(QUANTS)}]",
    help="Quantization. Default: Q4_K_M; a .gguf file is not changed.",
)
@click.option(
    "--prompt-template",
    "template_file",
    type=_FILE,
    metavar="FILE",
    help="The prompt it was trained with (docs/estimator.md).",
)
@click.option("--card", "card_file", type=_FILE, metavar="FILE", help="A model card that contains the prompt.")
@click.option(
    "--mode",
    type=click.Choice(["cot", "direct"]),
    help="cot = it writes an analysis before its answer. Default: from its card or name.",
)
@click.option("--no-anchors", is_flag=True, help="Do not import the paper's anchors with the paper's models.")
@click.option("--no-measure", is_flag=True, help="Do not start it to measure its speed.")
@click.pass_context
def install_estimator(
    context: click.Context, /, source: str, no_anchors: bool, no_measure: bool, **options: Any
) -> None:
    """Install an estimator.

    SOURCE is a .gguf file, a folder with a checkpoint, or a hub id: OWNER/NAME or OWNER/NAME@REVISION. An existing path
    takes precedence. An interrupted installation leaves nothing behind, and a download continues where it stopped. The
    paper's own models bring its anchors: questions with text, and the outcomes of 18 models on them.
    """
    from scope_edge.estimation.fingerprints import usable_anchor_sets
    from scope_edge.estimator.install import InstallOptions, install, measure
    from scope_edge.fingerprinting.importing.scope_dataset import DATASETS, is_paper_model

    if options["name"] is not None and not options["name"].strip():
        raise UsageError("--name is blank; give a name or leave the option out")
    with ProgressLine() as progress:
        entry = install(source, InstallOptions(**options, offline=load_settings().offline_by), progress)
        ready: SpeedRecord | None = None
        if not no_measure:
            progress("measuring its speed", 0, 0)
            try:
                ready = measure(entry)
            except WorkerError as error:
                complain(f"it was installed, but does not run on this machine now: {error}", 0)
    out(f"{click.style(entry.name, bold=True)} was installed")
    print_facts(_facts(entry, ready))
    if is_paper_model(source) and not no_anchors:
        context.exit(max(_import(dataset) for dataset in DATASETS))
    elif not any(one.texts for one in usable_anchor_sets()):
        complain(
            "there are no anchors with text yet, and an estimator needs some;"
            f" `scope-edge estimator anchors {DATASETS[0]}` gets the paper's",
            0,
        )


@command.command("list")
@json_array_option
def list_estimators(as_json: bool) -> None:
    """List the installed estimators, newest first."""
    sound = list_installed()
    damaged = [entry for entry in entries() if isinstance(entry, Damaged)]
    everything: list[Installed | Damaged] = [*sound, *damaged]
    if as_json:
        out_json([_body(entry) for entry in everything])
        return
    if not everything:
        out("no estimator is installed; `scope-edge estimator install Cooolder/SCOPE` gets the paper's")
        return
    print_table(
        ("estimator", "weights", "mode", "template", "installed"),
        [
            (
                one.name,
                weights(one.shape, one.size),
                one.mode,
                format.clipped(one_line(one.template_from), 50),
                one.installed[:10],
            )
            for one in sound
        ]
        + [(one.name, "damaged", "", "", "") for one in damaged],
    )
    for entry in damaged:
        complain(entry.problem, 0)


@command.command("info")
@click.argument("name", required=False, shell_complete=_complete)
@json_option
def show_estimator(name: str | None, as_json: bool) -> None:
    """Show an estimator, by default the newest.

    Shows its weights, prompt template, mode and speed. Its files are checked against their hashes.
    """
    from scope_edge.estimator.install import measured

    entry = _found(name)
    check_gguf(entry)
    if as_json:
        out_json({**_body(entry), "template": entry.template})
        return
    out(click.style(entry.name, bold=True))
    print_facts(_facts(entry, measured(entry)))


@command.command("measure")
@click.argument("name", required=False, shell_complete=_complete)
def measure_estimator(name: str | None) -> None:
    """Measure an estimator's speed, by default the newest's.

    With `--estimator auto`, the speed decides whether `route` uses it. Measure while the machine is otherwise idle.
    """
    from scope_edge.estimator.install import measure, measured
    from scope_edge.storage import assets

    entry = _found(name)
    with ProgressLine() as progress:
        progress("measuring its speed", 0, 0)
        ready = measure(entry)
    print_facts(_facts(entry, ready))
    if measured(entry) is None:
        complain(f"the cache folder {assets.user_cache_dir()} cannot be written, so the speed is not stored", 0)


@command.command("remove")
@click.argument("name", shell_complete=_complete)
@yes_option
def remove_estimator(name: str, yes: bool) -> None:
    """Delete an installed estimator from the disk. Its anchors are kept."""
    from scope_edge.estimator.store import remove_installed

    if name in {entry.name for entry in entries()} and not confirmed(f"Delete {name}", yes):
        out(f"{name} was not deleted")
        return
    out(f"{name} was deleted ({remove_installed(name)})")


@command.command("anchors")
@click.argument("source")
@click.pass_context
def import_anchors(context: click.Context, /, source: str) -> None:
    """Import anchors with text, and the outcomes of models on them.

    SOURCE is a hub dataset's id or a folder: a table with the columns id, prompt, model_name, is_correct, category and
    usage_completion_tokens, as Parquet, JSON lines or CSV. Only files named after the split "anchor" are read. Importing it
    again replaces its data.
    """
    context.exit(_import(source, failing=False))


def _import(source: str, *, failing: bool = True) -> int:
    """Import one dataset and print the result. Return the exit code. failing: print an error instead of raising it."""
    from scope_edge.factory import open_cards
    from scope_edge.fingerprinting.importing.scope_dataset import import_anchors as imported

    try:
        with ProgressLine() as progress:
            done = imported(source, open_cards(), progress, offline=load_settings().offline_by)
    except ScopeEdgeError as error:
        if not failing:
            raise
        return complain(f"{error} (to try again: `scope-edge estimator anchors {source}`)", error.exit_code)
    report(done)
    return 0


def weights(shape: ModelShape, size: int) -> str:
    """Describe a GGUF's weights on one line. size: in bytes."""
    return f"{one_line(shape.architecture)}, {_count(shape.parameters)}, {shape.quantization}, {_size(size)}"


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.1f}B" if parameters >= 1e8 else f"{parameters / 1e6:.1f}M"


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _weight(entry: Installed) -> str:
    try:
        fitted = calibration(entry)
    except AssetError as error:
        return f"none: {error}"
    return f"none before {CALIBRATE}" if fitted is None else f"calibrated on {format.plural(fitted.prompts, 'prompt')}"


def _facts(entry: Installed, ready: SpeedRecord | None) -> dict[str, str]:
    """Describe an estimator for people."""
    speed = "not measured"
    if ready is not None:
        speed = (
            f"{ready.prefill_tps:,.0f} tokens a second of prompts, {ready.decode_tps:,.0f} of answers"
            f" ({ready.lanes} samples together), on the {'GPU' if ready.gpu else 'CPU'}; loaded in {ready.load_seconds:.1f} s"
        )
    revision = f"@{entry.revision}" if entry.revision else ""
    sampling = entry.sampling
    return {
        "source": entry.source + revision,
        "weights": weights(entry.shape, entry.size),
        "sha256": entry.sha256,
        "licence": entry.licence or "",
        "context": f"{entry.shape.context:,} tokens",
        "template": f"{entry.template_from} (sha256 {entry.template_sha256[:12]})",
        "mode": "cot: an analysis, then the answer" if entry.mode == "cot" else "direct: the answer at once",
        "sampling": f"{entry.samples} samples, temperature {sampling.temperature:g}, top_p {sampling.top_p:g},"
        f" top_k {sampling.top_k}; {entry.examples} examples",
        "speed": speed,
        "weight": _weight(entry),
        "installed": entry.installed,
        "folder": str(entry.folder),
    }


def _body(entry: Installed | Damaged) -> dict[str, Any]:
    """Return an entry as JSON; `problem` says what is wrong with a damaged one, of which nothing else is known."""
    from scope_edge.estimator.install import measured

    body = {**asdict(entry), "folder": str(entry.folder)}
    if not isinstance(entry, Installed):
        return body
    ready = measured(entry)
    return {**body, "problem": None, "measured": None if ready is None else asdict(ready)}
