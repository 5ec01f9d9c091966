"""`scope-edge completion`: the script with which a shell completes commands, pools and models."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from scope_edge.cli.group import PROGRAM, root
from scope_edge.cli.output import out

_EPILOG = """\b
Examples:
  bash:  scope-edge completion bash >> ~/.bashrc
  zsh:   scope-edge completion zsh >> ~/.zshrc
  fish:  scope-edge completion fish > ~/.config/fish/completions/scope-edge.fish
"""


@click.command("completion", epilog=_EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print a shell's completion script, for commands, options, pools and models."""
    from scope_edge.cli.run import COMPLETION_VARIABLE

    kind = get_completion_class(shell)
    assert kind is not None  # click knows the three shells of the choice
    # Its source() would check the installed bash, which is not needed to print a script.
    complete = kind(root, {}, PROGRAM, COMPLETION_VARIABLE)
    out(complete.source_template % complete.source_vars())
