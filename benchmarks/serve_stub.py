"""Models for benchmarks/serve.py, in processes of their own: an OpenAI-compatible stub, and a bare proxy to measure against.

    python benchmarks/serve_stub.py stub [--fail 0.2] [--seconds 0.02]
    python benchmarks/serve_stub.py relay HOST PORT

Each prints its port. The stub answers with the last word of the question, so that an answer can be told from every other; of the
calls it is to fail, a third each gets a 503, a connection that ends unanswered, and a stream that ends midway. The relay passes
bytes on and looks at none of them: no proxy does less.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator
from typing import Any

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
PROMPT_TOKENS, COMPLETION_TOKENS = 20, 12


def answer_to(question: str) -> str:
    """What the stub says."""
    return f"{question.rpartition(' ')[2]} " + " ".join(WORDS)


class Stub:
    """Answers over plain HTTP/1.1, written by hand so that it costs as little as possible."""

    def __init__(self, fail: float, seconds: float) -> None:
        self._fail, self._seconds, self._luck = fail, seconds, random.Random(1)
        self.counts = {"answered": 0, "503": 0, "dropped": 0, "cut": 0}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            async for path, body in _requests(reader):
                if path == "/counts":
                    await _send(writer, 200, json.dumps(self.counts).encode())
                elif not await self._answer(writer, json.loads(body)):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, ValueError):
            pass
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, body: dict[str, Any]) -> bool:
        """Whether the connection goes on."""
        fault = self._luck.choice(("503", "dropped", "cut")) if self._luck.random() < self._fail else None
        if self._seconds:
            await asyncio.sleep(self._seconds)
        self.counts[fault or "answered"] += 1
        if fault == "503":
            await _send(writer, 503, b'{"error": {"message": "busy"}}')
            return True
        if fault == "dropped":
            return False
        text = answer_to(str(body["messages"][-1]["content"]))
        usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": COMPLETION_TOKENS, "total_tokens": 32}
        head = {"id": "chatcmpl-1", "created": 1, "model": body["model"]}
        if body.get("stream"):
            await self._stream(writer, head | {"object": "chat.completion.chunk"}, text, usage, cut=fault == "cut")
            return fault is None
        if fault == "cut":
            return False
        message = {"role": "assistant", "content": text}
        whole = head | {"object": "chat.completion", "usage": usage}
        whole["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
        await _send(writer, 200, json.dumps(whole).encode())
        return True

    async def _stream(
        self, writer: asyncio.StreamWriter, head: dict[str, Any], text: str, usage: dict[str, int], *, cut: bool
    ) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        words = text.split(" ")
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": word if n == len(words) - 1 else f"{word} "} for n, word in enumerate(words)]
        rows = [head | {"choices": [{"index": 0, "delta": one, "finish_reason": None}]} for one in deltas]
        rows.append(head | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        rows.append(head | {"choices": [], "usage": usage})
        for row in rows[: len(rows) // 2] if cut else rows:
            _chunk(writer, b"data: " + json.dumps(row).encode() + b"\n\n")
            await writer.drain()
        if not cut:
            _chunk(writer, b"data: [DONE]\n\n")
            writer.write(b"0\r\n\r\n")
            await writer.drain()


async def _requests(reader: asyncio.StreamReader) -> AsyncIterator[tuple[str, bytes]]:
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return
        first, *rows = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (row.partition(":") for row in rows)}
        body = await reader.readexactly(int(fields.get("content-length", "0")))
        yield first.split(" ")[1], body


async def _send(writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()


def _chunk(writer: asyncio.StreamWriter, raw: bytes) -> None:
    writer.write(b"%x\r\n%s\r\n" % (len(raw), raw))


async def relay(host: str, port: int) -> None:
    """Pass bytes on."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while raw := await reader.read(65536):
                writer.write(raw)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, port)
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

    await _run(serve)


async def _run(serve: Any) -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    asyncio.get_running_loop().run_in_executor(None, sys.stdin.read).add_done_callback(lambda _: server.close())
    async with server:
        await server.wait_closed()


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("stub", "relay"))
    parser.add_argument("to", nargs="*")
    parser.add_argument("--fail", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=0.0)
    options = parser.parse_args()
    if options.what == "relay":
        asyncio.run(relay(options.to[0], int(options.to[1])))
    else:
        asyncio.run(_run(Stub(options.fail, options.seconds).serve))


if __name__ == "__main__":
    main()
