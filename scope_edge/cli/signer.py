"""`scope-edge signer`: a key of one's own to sign packs with, and the keys whose packs are taken."""

from __future__ import annotations

from pathlib import Path

import click

from scope_edge.cli.output import out
from scope_edge.cli.words import Column, table

_EPILOG = """\b
Examples:
  scope-edge signer new ~/.ssh/scope-edge.pem
  scope-edge export our-finetune -o our-finetune.pack --sign-with ~/.ssh/scope-edge.pem
  scope-edge signer trust maria ed25519:BASE64
  scope-edge import our-finetune.pack

\b
Exit codes:
  0 ok   2 usage, or a file that is no private key   5 a file that cannot be read or written
"""
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group("signer", epilog=_EPILOG)
def command() -> None:
    """Make a key to sign packs with, and say whose packs `scope-edge import` takes.

    As long as nobody is trusted any pack is taken, signed or not. Once somebody is, only packs that a trusted signer signed
    are, unless --from-anyone is given. A signature says who made a pack, not that what is in it is right.
    """


@command.command("new")
@click.argument("file", type=_FILE)
def new(file: Path) -> None:
    """Make a key pair: the private key goes to FILE, which only you can read; the public one is printed, to be given away."""
    from scope_edge.signing.ed25519 import make_key
    from scope_edge.signing.signers import key_text

    out(key_text(make_key(file)))


@command.command("show")
@click.argument("file", type=_FILE)
def show(file: Path) -> None:
    """Print the public key that belongs to the private one in FILE."""
    from scope_edge.signing.ed25519 import public_key
    from scope_edge.signing.signers import key_text

    out(key_text(public_key(file)))


@command.command("trust")
@click.argument("name")
@click.argument("key")
def trust_one(name: str, key: str) -> None:
    """Take packs signed with a public KEY, and call its owner NAME."""
    from scope_edge.signing.signers import trust

    trust(name, key)
    out(f"{name} is trusted; only packs that a trusted signer signed are taken from now on")


@command.command("forget")
@click.argument("name")
def forget_one(name: str) -> None:
    """Trust a signer no longer."""
    from scope_edge.signing.signers import forget, trusted_signers

    forget(name)
    out(f"{name} is trusted no longer" + ("" if trusted_signers() else "; as nobody is, any pack is taken"))


@command.command("list")
def list_signers() -> None:
    """List the trusted signers and their public keys."""
    from scope_edge.signing.signers import key_text, trusted_signers

    found = trusted_signers()
    if not found:
        out("nobody is trusted: any pack is taken, signed or not")
        return
    out("\n".join(table([Column("signer", list(found.values())), Column("public key", [key_text(k) for k in found])])))
