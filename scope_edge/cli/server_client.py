"""`route` and `ask` through the user's own server: its public API, over loopback only.

If no compatible server runs, the command does the work itself, with the same output. The connection never leaves this machine,
so offline mode allows it. The server must prove that it knows the token before the token is sent: another program may have
taken the port of a server that ended.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from scope_edge import errors
from scope_edge.catalog.endpoint import addresses_of, is_loopback
from scope_edge.errors import AssetError, ScopeEdgeError
from scope_edge.history.serialization import read_decision, read_run
from scope_edge.server.token import NONCE, PROOF, REQUEST_SETTINGS, RunningServer, find_server, proof, read_token, same
from scope_edge.types import Answer, Attempt

if TYPE_CHECKING:
    from scope_edge.settings.config import Settings
    from scope_edge.types import Decision

_PROOF_SECONDS, _ROUTE_SECONDS = 2.0, 60.0
_MAX_BYTES = 64 * 1024 * 1024
_SHOW = "x-scope-edge-decision"
_SOURCE = "the server's response"


class NotServed(Exception):
    """No server accepts the request, and none has begun to answer it."""


class ServerConnection:
    """One request to the user's server. Leaving its `with` block closes the connection, which cancels the request."""

    def __init__(self, state: RunningServer, token: str) -> None:
        """Raises NotServed: the address is not loopback."""
        if not is_loopback(state.host):
            raise NotServed
        self._port, self._token = state.port, token
        self._http = http.client.HTTPConnection(addresses_of(state.host)[0], state.port, timeout=_PROOF_SECONDS)

    def __enter__(self) -> ServerConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def post(self, path: str, body: Mapping[str, Any], seconds: float | None) -> http.client.HTTPResponse:
        """Send a request after the server has proved that it knows the token. seconds: the longest silence; None = no limit.

        Raises NotServed.
        """
        nonce = secrets.token_urlsafe(24)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}", _SHOW: "1"}
        try:
            self._http.request("GET", "/identity", headers={NONCE: nonce})
            proved = self._http.getresponse()
            proved.read(_MAX_BYTES)
            # Without a socket, http.client would connect again, to a server that has not proved itself.
            if (
                not same(proved.headers.get(PROOF, ""), proof(self._token, nonce, self._port))
                or self._http.sock is None
            ):
                raise NotServed
            self._http.sock.settimeout(seconds)
            self._http.request("POST", path, json.dumps(body).encode(), headers)
            return self._http.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise NotServed from error


def route(settings: Settings, text: str, options: Mapping[str, Any]) -> Decision | None:
    """Return the server's decision, or None if no compatible server runs or it reports an error. options: system, exclude."""
    try:
        with _connected(settings) as connection:
            preference = _preference(settings, options)
            body = {"text": text, "system": options["system"], **preference}
            response = connection.post("/v1/route", body, _ROUTE_SECONDS)
            raw = response.read(_MAX_BYTES)
            # A decision is free: this process decides again and reports the error itself.
            return read_decision(raw.decode(), _SOURCE) if response.status == http.client.OK else None
    except (NotServed, AssetError, OSError, ValueError, http.client.HTTPException):
        return None


@contextlib.contextmanager
def ask(settings: Settings, text: str, options: Mapping[str, Any]) -> Iterator[ServedStream | None]:
    """Give the server's answer as a stream, or None if no compatible server runs. options: system, exclude, model, fields.

    Raises InfeasibleError.
    """
    system = [] if options["system"] is None else [{"role": "system", "content": options["system"]}]
    body = {
        "model": options["model"] or "auto",
        "messages": [*system, {"role": "user", "content": text}],
        "stream": True,
        **options["fields"],
        "scope_edge": {"recorded_as": "scope-edge ask", **_preference(settings, options)},
    }
    with contextlib.ExitStack() as stack:
        stream = None
        with contextlib.suppress(NotServed):
            connection = stack.enter_context(_connected(settings))
            stream = ServedStream(connection.post("/v1/chat/completions", body, None))
        yield stream


class ServedStream:
    """An answer from the server, with those attributes of `router.Stream` that the CLI reads."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        """Read up to the decision. Raises NotServed (the server did not begin), InfeasibleError, AssetError (connection lost)."""
        self._response = response
        self._texts: list[str] = []
        self._failure: ScopeEdgeError | None = None
        self.model: str | None = None
        self.attempts: tuple[Attempt, ...] = ()
        self.answer: Answer | None = None
        if response.status == http.client.OK:
            first = self._event()
            self.model, extra = first["model"] or None, first["scope_edge"]
            self.attempts = tuple(Attempt(**one) for one in extra["attempts"])
        else:
            extra = self._refusal()
        self.decision: Decision = read_decision(json.dumps(extra["decision"]), _SOURCE)
        if isinstance(self._failure, errors.InfeasibleError):
            raise self._failure

    def __iter__(self) -> Iterator[str]:
        if self._failure is not None:
            raise self._failure
        while self.answer is None:
            event = self._event()
            if "error" in event:
                raise _error(event["error"]) or AssetError(f"the server says: {event['error'].get('message')}")
            text = event["choices"][0]["delta"].get("content")
            if text:
                self._texts.append(text)
                yield text
            if "scope_edge" in event:
                self.answer = self._complete(event["scope_edge"])

    def _complete(self, extra: Mapping[str, Any]) -> Answer:
        run = read_run(json.dumps(extra["run"]), _SOURCE)
        if run is None:
            raise _connection_lost()
        return Answer("".join(self._texts), self.decision, run, extra["id"], tuple(extra["warnings"]))

    def _refusal(self) -> dict[str, Any]:
        """Keep the error of a response without an answer, and return the decision and other details with it."""
        try:
            body: dict[str, Any] = json.loads(self._response.read(_MAX_BYTES))["error"]
            self._failure = _error(body)
        except (OSError, ValueError, LookupError, http.client.HTTPException) as error:
            raise NotServed from error
        if self._failure is None or body["scope_edge"]["decision"] is None:
            raise NotServed
        return dict(body["scope_edge"])

    def _event(self) -> dict[str, Any]:
        try:
            while line := self._response.readline(_MAX_BYTES):
                if line.startswith(b"data: {"):
                    return dict(json.loads(line.removeprefix(b"data: ")))
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise _connection_lost() from error
        raise _connection_lost()


@contextlib.contextmanager
def _connected(settings: Settings) -> Iterator[ServerConnection]:
    """Connect to the user's server. Raises NotServed: none runs with the same settings."""
    try:
        state, token = (find_server(), read_token()) if settings.use_server else (None, None)
    except ScopeEdgeError as error:
        raise NotServed from error
    if state is None or token is None or not state.is_compatible(settings, token):
        raise NotServed
    with ServerConnection(state, token) as connection:
        yield connection


def _preference(settings: Settings, options: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: getattr(settings, name) for name in REQUEST_SETTINGS}
    return {
        "exclude": list(options["exclude"]),
        "recorded_profile": settings.profile,
        **{name: value for name, value in given.items() if value is not None},
    }


def _error(body: Mapping[str, Any]) -> ScopeEdgeError | None:
    """Return the error of a request that the server carried out; None = it did not, so the command can do the work."""
    message, extra = str(body["message"]), body.get("scope_edge") or {}
    run = read_run(json.dumps(extra.get("run")), _SOURCE) if extra.get("run") else None
    if body["code"] in ("infeasible", "context_length_exceeded") and extra.get("decision") and run is None:
        return errors.InfeasibleError(message, read_decision(json.dumps(extra["decision"]), _SOURCE))
    if body["code"] == "spending_cap":
        return errors.BudgetError(message)
    if body["code"] == "broken_answer" and run is not None:
        return errors.BrokenAnswerError(message, str(body["partial"]), run)
    kinds: dict[str, Any] = {"unanswered": errors.UnansweredError, "refused_by_model": errors.RefusedError}
    kinds |= dict.fromkeys(("context_length_exceeded", "unsupported_parameter"), errors.RefusedError)
    return kinds[body["code"]](message, run) if body["code"] in kinds and run is not None else None


def _connection_lost() -> AssetError:
    return AssetError("the server closed the connection; ask again")
