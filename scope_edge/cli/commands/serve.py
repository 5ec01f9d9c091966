"""`scope-edge serve`: an OpenAI-compatible server on this machine."""

from __future__ import annotations

import os
import sys
import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from scope_edge.cli.options import count_option, pool_option, profile_option, setting_option
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
  0 ended by Ctrl-C, SIGTERM or --until-eof   1 unexpected error   2 usage, or the port is in use
  5 missing or damaged file
"""


@click.command("serve", epilog=_EPILOG)
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="The address to listen on. Any other than loopback is open to the network, and unencrypted.",
)
@count_option("--port", "The port to listen on; 0 = any free one.", 0, 65535, 8743)
@click.option(
    "--host-name",
    "names",
    metavar="NAME",
    multiple=True,
    help="Also accept requests to this host name; may be repeated. Others are refused (DNS rebinding).",
)
@setting_option("alpha", "A", "The alpha of the model `auto`.  [default: 0.5]")
@click.option(
    "--local-only/--no-local-only", default=None, help="Only models on the device, whatever a request asks for."
)
@pool_option()
@profile_option("The profile of your settings file for the model `auto`. Each profile is a model by its name.")
@setting_option(
    "keep_alive", "S", "Seconds a model on the device stays loaded after its answer; -1 = for ever.  [default: 300]"
)
@count_option("--at-once", "Requests that are answered at the same time.", 1, 1000, 64)
@count_option("--queue", "Requests that may wait; any further one is refused with 429.", 0, 100_000, 256)
@count_option(
    "--connections",
    "Open connections, as far as the system allows. Idle ones are closed to make room; otherwise a new one is refused with 503.",
    1,
    100_000,
    512,
)
@click.option(
    "--grace",
    metavar="S",
    type=click.FloatRange(0, 3600),
    default=10.0,
    show_default=True,
    help="Seconds that running answers have at the end of the server; then they are cut off with an error.",
)
@click.option(
    "--max-body",
    metavar="MIB",
    type=click.FloatRange(0.001, 1024),
    default=32.0,
    show_default=True,
    help="The largest request that is accepted.",
)
@click.option(
    "--no-auth", is_flag=True, help="Require no token: any user and program of this machine can spend your keys."
)
@click.option("--preload", is_flag=True, help="Load what decisions need at the start, not with the first request.")
@click.option("--until-eof", is_flag=True, help="End when standard input ends: for programs that start it as a child.")
@click.option("--show-token", is_flag=True, help="Print the token (making it if it is missing), and do not serve.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object once it listens (docs/json.md).")
@click.pass_context
def command(
    context: click.Context, /, until_eof: bool, show_token: bool, as_json: bool, no_auth: bool, **options: Any
) -> None:
    """Serve the models, and the router, at an OpenAI-compatible address on this machine.

    Programs request the model `auto`, `auto:cheap`, `auto:best`, `auto:local`, a profile, or a model by its id. Every request
    needs the token, which is in a file of yours (docs/serve.md). A page at the address shows the router's decisions.
    """
    from scope_edge.server.token import make_token

    if show_token:
        out_line(make_token())
        context.exit(0)
    for library in ("starlette", "uvicorn", "prometheus_client"):
        if find_spec(library) is None:
            raise MissingExtraError(f'the server needs {library}; pip install "scope-edge[server]"')
    from scope_edge.server.run import serve
    from scope_edge.server.state import ServerOptions
    from scope_edge.settings.config import load_settings

    overrides = {key: options.pop(key) for key in ("alpha", "local_only", "pool", "profile", "keep_alive")}
    body_bytes = int(options.pop("max_body") * 2**20)
    served = ServerOptions(**options, auth=not no_auth, body_bytes=body_bytes)
    until = _end_of_input() if until_eof else None
    done = serve(
        load_settings(overrides), overrides, served, lambda where: _announce(where, served.auth, as_json), until
    )
    if not done:
        # A call that ignores its cancellation must not keep the process; its cost stays reserved.
        flush()
        os._exit(0)
    context.exit(0)


def _announce(where: Listening, auth: bool, as_json: bool) -> None:
    from scope_edge.server.token import token_path

    page = f"{where.url}/#code={where.code}" if auth else f"{where.url}/"
    if as_json:
        body = {"url": f"{where.url}/v1", "host": where.host, "port": where.port, "pid": os.getpid(), "page": page}
        out_json(body | {"token_file": str(token_path()) if auth else None})
        return
    out_line(f"serving {where.url}/v1; Ctrl-C ends it")
    out_line(f"the page: {page}")
    token = f"the token is in {token_path()}; `scope-edge serve --show-token` prints it"
    out_line(token if auth else "no token is required")


def _end_of_input() -> threading.Event:
    """Return an event that is set when standard input ends."""
    ended = threading.Event()

    def read() -> None:
        while sys.stdin is not None and os.read(sys.stdin.fileno(), 4096):
            pass
        ended.set()

    threading.Thread(target=read, name="standard input", daemon=True).start()
    return ended
