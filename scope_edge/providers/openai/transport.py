"""HTTP to one model's server. Only this file knows httpx.

Calls are tasks of one event loop in a thread of its own, so any thread can end any call at any time: while it connects, while
the server is silent, and in the middle of an answer. The key is only sent to the endpoint's own origin: it never follows a
redirect, and never appears in an error.
"""

from __future__ import annotations

import codecs
import contextlib
import functools
import os
import queue
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeout
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from urllib.parse import urljoin

import anyio
import httpx
from anyio.from_thread import BlockingPortal
from httpx_sse import EventSource

from scope_edge._version import __version__
from scope_edge.catalog.endpoint import addresses_of, is_loopback, parse_endpoint
from scope_edge.errors import ProviderError, UsageError
from scope_edge.providers.openai.keys import find_key, key_header, redact_key

if TYPE_CHECKING:
    from scope_edge.types import ModelCard

Item = TypeVar("Item")

MAX_BYTES = 16 * 1024 * 1024
# An event of a chat holds a few tokens, or a picture, or a long tool call.
MAX_EVENT_BYTES = 4 * 1024 * 1024
# Only the beginning of a refusal is read: it becomes one line in an error.
_REFUSAL_BYTES = 64 * 1024
_CONNECT_SECONDS, _START_SECONDS = 20.0, 20.0
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=5.0)
# Items that may wait for a slow reader, and how often the loop looks whether there is room again.
_MAX_WAITING_ITEMS, _RETRY_SECONDS = 256, 0.01
_END = object()
_STARTING = threading.Lock()


class Transport:
    """Calls the endpoint of a card. Threads may share it."""

    def __init__(self, card: ModelCard, timeout: float, *, offline: bool) -> None:
        """Prepare; nothing is connected yet. timeout: seconds of silence that end a call.

        Raises UsageError: the card has no endpoint, its key is missing, or `offline` forbids the call.
        """
        if card.endpoint is None:
            raise UsageError(f"{card.id} has no endpoint; write one on its card")
        self.endpoint = parse_endpoint(card.endpoint)
        self._local = is_loopback(self.endpoint.host)
        if offline and not (self._local and card.where == "device"):
            raise UsageError(
                f"{card.id} is not called: offline is set, so only a model on this machine may be called,"
                ' and its card must say where = "device"'
            )
        self.key_env, self._key = card.key_env, find_key(card.key_env, self.endpoint)
        # The key, to be removed from the server's texts; None = there is no secret.
        self.secret = redact_key(self._key)
        self.timeout = timeout
        # A call that stays on this machine must not go through a proxy.
        self._trust_env = not (offline or self._local)
        self._lock = threading.Lock()
        self._tasks: set[Future[None]] = set()
        self._process, self._closed = 0, False
        self._portal: BlockingPortal
        self.http: httpx.AsyncClient

    def start(self, run: Callable[[], Awaitable[None]]) -> Future[None]:
        """Start a task in the event loop. Raises ProviderError: this is closed, or the loop cannot start."""
        with self._lock:
            if self._closed:
                raise ProviderError("the client is closed", retryable=True, unbilled=True)
            # A forked process has neither the thread nor connections of its own yet.
            if self._process != os.getpid():
                self._portal, self.http = _portal(), self._client()
                self._process, self._tasks = os.getpid(), set()
            task = self._portal.start_task_soon(run)
            self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def close(self) -> None:
        """Close every connection; running calls fail."""
        with self._lock:
            closed, self._closed = self._closed, True
        if self._process == os.getpid() and not closed:
            for task in tuple(self._tasks):
                task.cancel()
            self._portal.call(self.http.aclose)

    def moved(self, url: str, location: str) -> str:
        """Return the address that a redirect leads to. Raises ProviderError: it is on another server."""
        target, host = urljoin(url, location), "an invalid address"
        with contextlib.suppress(UsageError):
            endpoint = parse_endpoint(target)
            if location and endpoint.origin == self.endpoint.origin:
                return target
            host = endpoint.host
        why = f"it redirects to {host}, where nothing was sent; if that is right, write it as the card's endpoint"
        raise ProviderError(why, every_question=True, unbilled=True)

    def check_peer(self, address: tuple[Any, ...]) -> None:
        """Raise ProviderError if a call that must stay on this machine has reached another one; nothing was sent yet."""
        if self._local and not is_loopback(str(address[0])):
            why = f"{self.endpoint.host} led to {address[0]}, which is not this machine; nothing was sent"
            raise ProviderError(why, every_question=True, unbilled=True)

    def _client(self) -> httpx.AsyncClient:
        headers = {"user-agent": f"scope-edge/{__version__}", "accept": "application/json, text/event-stream"}
        if self._key:
            headers |= key_header(self._key, self.endpoint)
        return httpx.AsyncClient(
            headers=headers,
            trust_env=self._trust_env,
            verify=_tls(self._trust_env, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")),
            timeout=httpx.Timeout(self.timeout, connect=min(self.timeout, _CONNECT_SECONDS), pool=None),
            limits=_LIMITS,
        )


class HttpCall(Generic[Item]):
    """One call: an async generator that runs in the event loop, iterated once by one thread. Iterating raises ProviderError."""

    def __init__(
        self, transport: Transport, produce: Callable[[HttpCall[Item]], AsyncIterator[Item]], seconds: float
    ) -> None:
        """Nothing is sent before this is iterated. seconds: from now until the call must be over."""
        self._transport, self._produce = transport, produce
        self._seconds, self._until = seconds, time.monotonic() + seconds
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._task: Future[None] | None = None
        self._scope: anyio.CancelScope
        self._ended = self._sent = self._complete = False
        # A connection during its TLS handshake.
        self._shaking: Any = None
        # When the last request was made, by time.monotonic().
        self.started = 0.0

    def __iter__(self) -> Iterator[Item]:
        if self._ended:
            raise self._late()
        task = self._task = self._transport.start(self.run)
        if self._ended:
            # It was ended meanwhile, by a thread that did not see the task yet.
            task.cancel()
        try:
            while (item := self._items.get()) is not _END:
                yield item
            task.result()
        except CancelledError as error:
            self._ended = True
            if not self._complete:
                raise self._late() from error
        finally:
            task.cancel()

    def end(self) -> None:
        """End the call, from any thread."""
        self._ended = True
        if self._task is not None:
            self._task.cancel()

    async def run(self) -> None:
        """Produce the items. Raises ProviderError."""
        try:
            with anyio.move_on_after(self._until - time.monotonic()) as self._scope:
                async for item in self._produce(self):
                    self._items.put(item)
                    # A slow reader slows the server down, or its whole answer would wait here.
                    while self._items.qsize() >= _MAX_WAITING_ITEMS:
                        await anyio.sleep(_RETRY_SECONDS)
                return
            raise self._late()
        except ProviderError:
            if not self._complete:
                raise
        finally:
            self._items.put(_END)

    @contextlib.asynccontextmanager
    async def request(self, method: str, url: str, body: dict[str, Any] | None) -> AsyncIterator[httpx.Response]:
        """Make a request and wait for the head of its answer. httpx's errors become ProviderError here."""
        self.started = time.monotonic()
        try:
            response = await self._send(method, httpx.URL(url), body)
            try:
                yield response
            finally:
                await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            why = f"no connection ({_short(error)})"
            raise ProviderError(why, retryable=True, unbilled=True, unreachable=True) from error
        except httpx.TimeoutException as error:
            raise ProviderError(f"no answer within {self._transport.timeout:g} seconds", retryable=True) from error
        except (httpx.RequestError, httpx.StreamError) as error:
            raise ProviderError(f"the connection broke ({_short(error)})", retryable=True) from error
        finally:
            if self._shaking is not None:
                with anyio.CancelScope(shield=True):
                    await self._shaking.aclose()

    async def _send(self, method: str, url: httpx.URL, body: dict[str, Any] | None) -> httpx.Response:
        """Return the head of an answer. A name of this machine is not resolved: a resolver could send it elsewhere."""
        client, addresses = self._transport.http, addresses_of(url.host)
        for address in addresses:
            request = client.build_request(
                method,
                url.copy_with(host=address),
                json=body,
                headers={"host": url.netloc.decode()},
                extensions={"trace": self._trace, "sni_hostname": url.host},
            )
            try:
                return await client.send(request, stream=True)
            except httpx.ConnectError:
                if address == addresses[-1]:
                    raise
        raise AssertionError("a host has an address")

    async def read(self, response: httpx.Response) -> AsyncIterator[bytes]:
        """Yield a body as it comes. Raises ProviderError: it has more than `MAX_BYTES`."""
        size = 0
        async for chunk in response.aiter_bytes():
            size += len(chunk)
            if size > MAX_BYTES:
                raise ProviderError(f"its answer is longer than {MAX_BYTES // 2**20} MiB", retryable=True)
            yield chunk

    async def read_whole(self, response: httpx.Response) -> bytes:
        """Return a body. Raises ProviderError."""
        return b"".join([chunk async for chunk in self.read(response)])

    async def read_beginning(self, response: httpx.Response) -> bytes:
        """Return the beginning of a body, for an error."""
        raw = b""
        async for chunk in response.aiter_bytes():
            raw += chunk
            if len(raw) > _REFUSAL_BYTES:
                break
        return raw

    def complete(self, seconds: float) -> None:
        """Count the answer as whole; wait so many seconds at most for the rest, which may fail."""
        self._complete = True
        self._scope.deadline = min(self._scope.deadline, anyio.current_time() + seconds)

    async def _trace(self, step: str, info: dict[str, Any]) -> None:
        """Follow httpcore's steps. It leaves a connection open that is cancelled during the TLS handshake."""
        if step == "connection.connect_tcp.complete":
            self._shaking = info["return_value"]
            self._transport.check_peer(self._shaking.get_extra_info("server_addr"))
        elif step == "connection.start_tls.complete":
            self._shaking = None
        elif step.endswith("send_request_headers.started"):
            self._sent, self._shaking = True, None

    def _late(self) -> ProviderError:
        why = "the call was ended" if self._ended else f"no answer within {round(self._seconds, 1):g} seconds"
        return ProviderError(why, retryable=True, unbilled=not self._sent, unreachable=not (self._sent or self._ended))


async def read_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Yield the data of server-sent events. Raises ProviderError: an event is too long, or not UTF-8."""
    text = _StrictText(chunks)
    try:
        async for event in EventSource(cast(httpx.Response, text)).aiter_sse():
            text.pending = 0
            if event.data:
                yield event.data
    except UnicodeDecodeError as error:
        raise ProviderError("it sent an event that is not UTF-8", retryable=True) from error


class _StrictText:
    """A response as httpx-sse reads it, but strictly UTF-8, and with a limit on the bytes between two events."""

    headers = MappingProxyType({"content-type": "text/event-stream"})

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks, self.pending = chunks, 0

    async def aiter_text(self) -> AsyncIterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8-sig")()
        async for chunk in self._chunks:
            self.pending += len(chunk)
            if self.pending > MAX_EVENT_BYTES:
                raise ProviderError(f"it sent an event of more than {MAX_EVENT_BYTES // 2**20} MiB", retryable=True)
            yield decoder.decode(chunk)


def _portal() -> BlockingPortal:
    """Return the event loop of this process, started at first use. Raises ProviderError: it cannot start."""
    with _STARTING:
        try:
            return _started(os.getpid())
        except Exception as error:
            why = f"no call can be made ({_in_words(error)[:120] or type(error).__name__})"
            raise ProviderError(why, retryable=True, unbilled=True) from error


@functools.lru_cache(maxsize=1)
def _started(_process: int) -> BlockingPortal:
    """Start an event loop in a thread. Raises what anyio.run raises (no file descriptor is left), or TimeoutError.

    `start_blocking_portal` would do, but its generator is finalized at exit, which hangs in a forked process.
    """
    ready: Future[BlockingPortal] = Future()

    async def serve() -> None:
        async with BlockingPortal() as portal:
            ready.set_result(portal)
            await portal.sleep_until_stopped()

    def run() -> None:
        try:
            anyio.run(serve)
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            elif not ready.cancelled():
                raise

    threading.Thread(target=run, name="endpoints", daemon=True).start()
    try:
        return ready.result(_START_SECONDS)
    except FutureTimeout as error:
        # A loop that comes too late ends at once, since it cannot set the result.
        if ready.cancel():
            raise TimeoutError(f"the event loop did not start within {_START_SECONDS:g} seconds") from error
        return ready.result()


@functools.lru_cache(maxsize=4)
def _tls(trust_env: bool, *_environment: str | None) -> ssl.SSLContext:
    """Return the trusted authorities, read once: they take time and memory."""
    return httpx.create_ssl_context(verify=True, trust_env=trust_env)


def _short(error: BaseException) -> str:
    # anyio reports "All connection attempts failed"; what the system said is further in.
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    errors: Sequence[BaseException] = getattr(error, "exceptions", (error,))  # several addresses: an ExceptionGroup
    said = " ".join(_in_words(errors[0]).split())
    return said[:120] or type(error).__name__


def _in_words(error: BaseException) -> str:
    if isinstance(error, ConnectionError) and error.errno:
        return os.strerror(error.errno)  # asyncio puts the address in place of these words
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
