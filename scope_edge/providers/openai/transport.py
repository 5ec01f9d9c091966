"""HTTP to one model's server. Only this file and http_client.py know httpx.

Calls are tasks of one event loop in a thread of its own, so any thread can end any call at any time: while it connects, while
the server is silent, and in the middle of an answer. The key is only sent to the endpoint's own origin: it never follows a
redirect, and never appears in an error.
"""

from __future__ import annotations

import codecs
import contextlib
import functools
import math
import os
import queue
import threading
import time
import zlib
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
from scope_edge.providers.openai.http_client import open_http
from scope_edge.providers.openai.keys import find_key, key_header, redact_key
from scope_edge.providers.openai.pace import ANY_PACE, Pace

if TYPE_CHECKING:
    from scope_edge.types import ModelCard

Item = TypeVar("Item")

MAX_BYTES = 16 * 1024 * 1024
# An event of a chat holds a few tokens, or a picture, or a long tool call.
MAX_EVENT_BYTES = 4 * 1024 * 1024
# Only the beginning of a refusal is read: it becomes one line in an error.
_REFUSAL_BYTES, _REFUSAL_SECONDS = 64 * 1024, 10.0
# Bytes of a packed body that are unpacked at once.
_UNPACKED = 64 * 1024
_CONNECT_SECONDS, _START_SECONDS = 20.0, 20.0
# Items that may wait for a slow reader, and how often the loop looks whether there is room again.
_MAX_WAITING_ITEMS, _RETRY_SECONDS = 256, 0.01
_END = object()
_STARTING = threading.Lock()
# No file descriptor is left, or no thread can start, or the loop's module cannot be imported.
_NO_LOOP = (OSError, RuntimeError, LookupError)


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
        headers = {
            "user-agent": f"scope-edge/{__version__}",
            "accept": "application/json, text/event-stream",
            "accept-encoding": "identity",
        }
        if self._key:
            headers |= key_header(self._key, self.endpoint)
        timeout = httpx.Timeout(self.timeout, connect=min(self.timeout, _CONNECT_SECONDS), pool=None)
        return open_http(self.endpoint, headers, timeout, trust_env=self._trust_env)


class HttpCall(Generic[Item]):
    """One call: an async generator that runs in the event loop, iterated once by one thread. Iterating raises ProviderError."""

    def __init__(
        self,
        transport: Transport,
        produce: Callable[[HttpCall[Item]], AsyncIterator[Item]],
        seconds: float,
        pace: Pace = ANY_PACE,
    ) -> None:
        """Nothing is sent before this is iterated. seconds: from now until the call must be over. pace: see `wrote`."""
        self._transport, self._produce, self._pace = transport, produce, pace
        self._seconds, self._until = seconds, time.monotonic() + seconds
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._task: Future[None] | None = None
        # What is late when they are cancelled: the whole call, the next token, the head of the answer.
        self._scope: anyio.CancelScope
        self._token: anyio.CancelScope
        self._head: anyio.CancelScope
        self._ended = self._sent = self._began = self._complete = False
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
            with (
                anyio.move_on_after(self._until - time.monotonic()) as self._scope,
                anyio.move_on_after(self._pace.first) as self._token,
            ):
                async for item in self._produce(self):
                    self._items.put(item)
                    if self._items.qsize() >= _MAX_WAITING_ITEMS:
                        await self._wait_for_reader()
                return
            raise self._slow() if self._token.cancelled_caught else self._late()
        except ProviderError:
            if not self._complete:
                raise
        finally:
            self._items.put(_END)

    def wrote(self, tokens: float) -> None:
        """Note that so many tokens have come, which sets when the next one is due."""
        due = self._token.deadline if self._began else None
        self._token.deadline = self._pace.due(anyio.current_time(), due, tokens)
        self._began = True

    async def _wait_for_reader(self) -> None:
        """Wait for a slow reader, which slows the server down; its whole answer would wait here otherwise."""
        begun, due = anyio.current_time(), self._token.deadline
        self._token.deadline = math.inf
        while self._items.qsize() >= _MAX_WAITING_ITEMS:
            await anyio.sleep(_RETRY_SECONDS)
        self._token.deadline = due + anyio.current_time() - begun

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
                with anyio.CancelScope() as self._head:
                    return await client.send(request, stream=True)
                raise httpx.ReadTimeout("")
            except httpx.ConnectError:
                if address == addresses[-1]:
                    raise
        raise AssertionError("a host has an address")

    async def read(self, response: httpx.Response) -> AsyncIterator[bytes]:
        """Yield a body as it comes. Raises ProviderError: it has more than `MAX_BYTES`."""
        size = 0
        async for chunk in _unpacked(response):
            size += len(chunk)
            if size > MAX_BYTES:
                raise ProviderError(f"its answer is longer than {MAX_BYTES // 2**20} MiB", retryable=True)
            yield chunk

    async def read_whole(self, response: httpx.Response) -> bytes:
        """Return a body. Raises ProviderError."""
        return b"".join([chunk async for chunk in self.read(response)])

    async def read_beginning(self, response: httpx.Response) -> bytes:
        """Return the beginning of a body, for an error. Raises ProviderError."""
        raw = b""
        with anyio.move_on_after(_REFUSAL_SECONDS):
            async for chunk in _unpacked(response):
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
            self._head.deadline = math.inf
        elif step.endswith("send_request_body.complete"):
            # Silence has a limit of its own; this one is for a head in small parts, or after other heads without end.
            self._head.deadline = anyio.current_time() + self._transport.timeout

    def _slow(self) -> ProviderError:
        if self._began:
            return ProviderError(f"it writes less than {self._pace.least:g} tokens per second (least_pace)")
        why = f"no token within {self._pace.first:g} seconds (first_token_seconds)"
        return ProviderError(why, unbilled=not self._sent)

    def _late(self) -> ProviderError:
        why = "the call was ended" if self._ended else f"no answer within {round(self._seconds, 1):g} seconds"
        return ProviderError(why, retryable=True, unbilled=not self._sent, unreachable=not (self._sent or self._ended))


async def _unpacked(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yield a body in small parts. Servers are told not to pack it; one layer of gzip or deflate is unpacked all the same.

    httpx would unpack any number of layers, and each part of them at once. Raises ProviderError.
    """
    packed = response.headers.get("content-encoding", "").strip().lower()
    if packed in ("", "identity"):
        async for chunk in response.aiter_raw():
            yield chunk
        return
    if packed not in ("gzip", "x-gzip", "deflate"):
        raise ProviderError(f"it sent its answer packed ({packed[:40]!r}), which was not asked for")
    unpacker = zlib.decompressobj(32 + zlib.MAX_WBITS)
    try:
        async for chunk in response.aiter_raw():
            while chunk:
                yield unpacker.decompress(chunk, _UNPACKED)
                chunk = unpacker.unconsumed_tail
        yield unpacker.flush()
    except zlib.error as error:
        raise ProviderError("it sent a packed answer that is damaged", retryable=True) from error


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
        except (*_NO_LOOP, CancelledError) as error:
            why = f"no call can be made ({_in_words(error)[:120] or type(error).__name__})"
            raise ProviderError(why, retryable=True, unbilled=True) from error


@functools.lru_cache(maxsize=1)
def _started(_process: int) -> BlockingPortal:
    """Start an event loop in a thread. Raises `_NO_LOOP`, a TimeoutError among them; CancelledError: for another reason.

    `start_blocking_portal` would do, but its generator is finalized at exit, which hangs in a forked process.
    """
    ready: Future[BlockingPortal] = Future()

    async def serve() -> None:
        async with BlockingPortal() as portal:
            if ready.set_running_or_notify_cancel():
                ready.set_result(portal)
                await portal.sleep_until_stopped()

    def run() -> None:
        try:
            anyio.run(serve)
        except _NO_LOOP as error:
            if not ready.done():
                ready.set_exception(error)
        finally:
            # After any other error, no thread may wait for a result.
            ready.cancel()

    threading.Thread(target=run, name="endpoints", daemon=True).start()
    try:
        return ready.result(_START_SECONDS)
    except FutureTimeout as error:
        # A loop that comes too late ends at once.
        if ready.cancel():
            raise TimeoutError(f"the event loop did not start within {_START_SECONDS:g} seconds") from error
        return ready.result()


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
