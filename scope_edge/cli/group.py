"""The commands by name. A command's module is imported only if the command is used, so that --help is fast."""

from __future__ import annotations

from importlib import import_module

import click

from scope_edge._version import __version__

PROGRAM = "scope-edge"
COMMANDS = {
    "route": "Choose a model for a query.",
    "ask": "Choose a model for a query, and print the model's answer.",
    "serve": "Serve the models behind an OpenAI-compatible address on this machine.",
    "log": "Show past decisions and what was spent; delete them.",
    "feedback": "Say whether an answer was right.",
    "models": "Show the models; add, test, compare and remove yours.",
    "pool": "Show and change the pools.",
    "fingerprint": "Measure a model on anchor questions, so that it becomes a candidate.",
    "anchors": "List the anchor sets; remove those of yours.",
    "import": "Import outcomes measured elsewhere as anchors and fingerprints.",
    "export": "Write a fingerprint to a file, to share it.",
    "estimator": "Install language models that refine the estimates.",
    "calibrate": "Learn from known outcomes how far estimates can be trusted.",
    "eval": "Replay labelled queries to measure how good the router is.",
    "tune": "Show what each alpha buys in a pool, and find the alpha for a goal.",
    "doctor": "Show what works and what does not.",
    "completion": "Print a shell's completion script.",
}
# Commands whose name cannot be a module's name.
_MODULES = {"import": "imports"}


class Commands(click.Group):
    """A group that imports a command's module, `scope_edge.cli.commands.<name>`, when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if word not in COMMANDS and not word.startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(word, COMMANDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(COMMANDS)}"
            raise click.UsageError(f"no command {word!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"scope_edge.cli.commands.{_MODULES.get(cmd_name, cmd_name)}").command
        return command


@click.group(
    cls=Commands,
    name=PROGRAM,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  scope-edge route "What is the capital of France?"
  scope-edge route --alpha 0.9 --max-usd 0.01 "Prove that 2 has no rational root."
  scope-edge models list
  scope-edge doctor""",
)
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
def root() -> None:
    """Choose between models on the device and in the cloud, before any of them runs.

    For a query, scope-edge predicts how likely each model of the pool is to answer correctly and how many tokens it
    will use. It picks one model under your preference and budget. It needs no network.
    """
