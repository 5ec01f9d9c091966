"""`scope-edge serve`: an OpenAI-compatible server on this machine."""

from __future__ import annotations

import os
import sys
import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from scope_edge.cli.options import Setting, complete_profile, complete_selection
from scope_edge.cli.output import flush, out_json, out_line
from scope_edge.errors import MissingExtraError

if TYPE_CHECKING:
    from scope_edge.server.run import Listening

_EPILOG = """\b
Examples:
  scope-edge serve
  scope-edge serve --local-only --port 0
  scope-edge serve --profile work --queue 32
  curl -s http://127.0.0.1:8743/v1/models -H "Authorization: Bearer $(scope-edge serve --show-token)"

\b
Exit codes:
  0 ended by Ctrl-C, SIGTERM or --until-eof   1 unexpected   2 usage, or the port is taken   5 missing or damaged file
"""


@click.command("serve", epilog=_EPILOG)
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Listen on this address. Any but loopback is open to the network, and unencrypted.",
)
@click.option(
    "--port", metavar="N", type=click.IntRange(0, 65535), default=8743, show_default=True, help="0: any that is free."
)
@click.option(
    "--host-name",
    "names",
    metavar="NAME",
    multiple=True,
    help="Also answer requests to this name; may be repeated. Others are refused (DNS rebinding).",
)
@click.option("--alpha", metavar="A", type=Setting("alpha"), help="What `auto` weighs by.  [default: 0.5]")
@click.option("--local-only/--no-local-only", default=None, help="Only models on the device, whoever asks for what.")
@click.option(
    "--pool",
    metavar="POOL",
    type=Setting("pool"),
    shell_complete=complete_selection,
    help="A pool's name, or model ids joined by commas.  [default: default]",
)
@click.option(
    "--profile",
    metavar="NAME",
    type=Setting("profile"),
    shell_complete=complete_profile,
    help="What `auto` means: a profile of your settings file. All profiles can be asked for by their names.",
)
@click.option(
    "--keep-alive",
    metavar="S",
    type=Setting("keep_alive"),
    help="Seconds a model on the device stays loaded after it answered; -1 = for ever.  [default: 300]",
)
@click.option(
    "--at-once",
    metavar="N",
    type=click.IntRange(1, 1000),
    default=64,
    show_default=True,
    help="Answers under way at once.",
)
@click.option(
    "--queue",
    metavar="N",
    type=click.IntRange(0, 100_000),
    default=256,
    show_default=True,
    help="Requests that may wait for a turn; the next is refused with 429.",
)
@click.option(
    "--connections",
    metavar="N",
    type=click.IntRange(1, 100_000),
    default=512,
    show_default=True,
    help="Connections open at once, as far as the system allows. Those that wait make room; else the next is refused with 503.",
)
@click.option(
    "--grace",
    metavar="S",
    type=click.FloatRange(0, 3600),
    default=10.0,
    show_default=True,
    help="Seconds that running answers have when the server is to end; then they are cut, and told so.",
)
@click.option(
    "--max-body",
    metavar="MIB",
    type=click.FloatRange(0.001, 1024),
    default=32.0,
    show_default=True,
    help="The longest request taken.",
)
@click.option(
    "--no-auth", is_flag=True, help="Demand no token: any user and program of this machine can spend your keys."
)
@click.option("--preload", is_flag=True, help="Load what decisions take now, not with the first of them.")
@click.option("--until-eof", is_flag=True, help="End when standard input ends: for programs that start it as a child.")
@click.option("--show-token", is_flag=True, help="Print the token, made if there is none, and serve nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object once it listens (docs/json.md).")
@click.pass_context
def command(
    context: click.Context,
    /,
    host: str,
    port: int,
    names: tuple[str, ...],
    at_once: int,
    queue: int,
    connections: int,
    grace: float,
    max_body: float,
    no_auth: bool,
    preload: bool,
    until_eof: bool,
    show_token: bool,
    as_json: bool,
    **overrides: Any,
) -> None:
    """Serve the models behind an OpenAI-compatible address on this machine, a router before them.

    Programs ask for the model `auto`, `auto:cheap`, `auto:best`, `auto:local`, a profile, or a model by its id. Every request has to
    carry the token, which lies in a file of yours (docs/serve.md). A page at the address shows what the router would do.
    """
    from scope_edge.server.token import make_token

    if show_token:
        out_line(make_token())
        context.exit(0)
    for library in ("starlette", "uvicorn", "prometheus_client"):
        if find_spec(library) is None:
            raise MissingExtraError(f'a server needs {library}; pip install "scope-edge[server]"')
    from scope_edge.server.run import serve
    from scope_edge.server.state import ServerOptions
    from scope_edge.settings.config import load_settings

    settings = load_settings(overrides)
    options = ServerOptions(
        host=host,
        port=port,
        names=names,
        auth=not no_auth,
        grace=grace,
        preload=preload,
        at_once=at_once,
        queue=queue,
        body_bytes=int(max_body * 2**20),
        connections=connections,
    )
    until = _end_of_input() if until_eof else None
    done = serve(settings, overrides, options, lambda where: _say(where, options.auth, as_json), until)
    if not done:
        # A call that does not end when it is told to must not keep the process: what it costs stays reserved.
        flush()
        os._exit(0)
    context.exit(0)


def _say(where: Listening, auth: bool, as_json: bool) -> None:
    from scope_edge.server.token import token_path

    page = f"{where.url}/#code={where.code}" if auth else f"{where.url}/"
    if as_json:
        body = {"url": f"{where.url}/v1", "host": where.host, "port": where.port, "pid": os.getpid(), "page": page}
        out_json(body | {"token_file": str(token_path()) if auth else None})
        return
    out_line(f"serving {where.url}/v1; Ctrl-C ends it")
    out_line(f"the page: {page}")
    out_line(
        f"the token lies in {token_path()}; `scope-edge serve --show-token` prints it"
        if auth
        else "no token is demanded"
    )


def _end_of_input() -> threading.Event:
    """Set once standard input has ended."""
    ended = threading.Event()

    def read() -> None:
        while sys.stdin is not None and os.read(sys.stdin.fileno(), 4096):
            pass
        ended.set()

    threading.Thread(target=read, name="standard input", daemon=True).start()
    return ended
