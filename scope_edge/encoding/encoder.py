"""Text to unit vectors and state, with the bundled encoders: all-MiniLM-L6-v2 (int8), and a multilingual one beside it.

One query is one run: the int8 scales are taken over everything in a run, so a batch would change every vector in it.
Long text is read in windows and their vectors are averaged; the multilingual encoder needs no windows (multilingual.py).
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from scope_edge.encoding.multilingual import MultilingualEncoder
from scope_edge.encoding.session import open_session, provider_name, runtime, usable_cores
from scope_edge.encoding.unicode import replace_surrogates
from scope_edge.errors import AssetError, UsageError
from scope_edge.storage import assets
from scope_edge.types import EncodedQuery, Query

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tokenizers import Tokenizer

    from scope_edge.types import Vector

ONNX = "models/encoder/encoder.onnx"
TOKENIZER = "models/encoder/tokenizer.json"
# Tokens of a window, [CLS] and [SEP] included: the model authors' setting, twice the length of training.
WINDOW = 256
# Text beyond this many windows is not read: a query costs at most this many runs, however long it is.
MAX_WINDOWS = 8
# Characters beyond this are not read either: 16 for every token that could be read.
MAX_CHARACTERS = 32_768
# Text is tokenized in pieces of at most this many characters, so that dense text is not tokenized far past its last window.
_PIECE = 8_192
_OUTPUTS = ["embedding", "state"]
_SIGNATURE = ("input_ids", "attention_mask", *_OUTPUTS)
_VISIBLE = re.compile(r"\S")


class Encoder:
    """The encoder, loaded. Its methods may be called from several threads at once."""

    def __init__(
        self,
        model: bytes,
        tokenizer: bytes,
        *,
        provider: str = "cpu",
        threads: int | None = None,
        identity: str | None = None,
    ) -> None:
        """Make an encoder from the bytes of an ONNX file and of its tokenizer.json; other arguments and errors as `load`.

        identity: that of these files, if it is known. The bytes are not kept. The multilingual encoder is the bundled one.
        """
        self._threads = usable_cores() if threads is None else threads
        if self._threads < 1:
            raise UsageError(f"threads: {threads} is invalid; give 1 or more")
        with ThreadPoolExecutor(1) as builder:
            # onnxruntime releases the interpreter meanwhile.
            session = builder.submit(_session, model, provider, self._threads)
            self._tokenizer = _tokenizer(tokenizer)
            self._multilingual = MultilingualEncoder(MAX_CHARACTERS, MAX_WINDOWS * (WINDOW - 2))
            self._session = session.result()
        self.identity = identity or _identity(hashlib.sha256(model).hexdigest())
        """A sha256 over both encoders' files, hex: vectors of encoders with different identities must not be mixed."""
        self._first, self._last = (self._tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))

    @classmethod
    def load(cls, *, provider: str = "cpu", threads: int | None = None) -> Encoder:
        """Load the bundled encoder.

        Args:
            provider: one of `PROVIDERS`; any other than "cpu" needs an onnxruntime built with it.
            threads: cores to use; None = all this process may use.

        Raises AssetError (files missing, damaged or unusable), UsageError (unknown provider, threads < 1),
        MissingExtraError (provider not in this onnxruntime).
        """
        return cls.loading(provider=provider, threads=threads)()

    @classmethod
    def loading(cls, *, provider: str = "cpu", threads: int | None = None) -> Callable[[], Encoder]:
        """Begin to load the bundled encoder in the background. The returned function waits for it, and raises as `load`.

        onnxruntime is imported now; most of the rest runs without the interpreter, which is free for other preparations.
        """
        worker = ThreadPoolExecutor(1)
        # Reading and hashing 23 MB runs beside the imports.
        model = worker.submit(assets.read, ONNX)
        runtime()

        def load() -> Encoder:
            tokenizer = assets.read(TOKENIZER)
            return cls(model.result(), tokenizer, provider=provider, threads=threads, identity=bundled_identity())

        encoder = worker.submit(load)
        worker.shutdown(wait=False)
        return encoder.result

    @property
    def dimension(self) -> int:
        """Length of the vectors, the multilingual ones apart."""
        return int(self._session.get_outputs()[0].shape[1])

    def encode(self, query: Query) -> EncodedQuery:
        """Encode the query's text, not its system prompt. Any text works, even one without a readable letter.

        Lone surrogates, which UTF-8 cannot hold, read as U+FFFD, which the tokenizer drops like control characters; special
        tokens spelled out in the text ("[SEP]") are read as plain text.
        """
        multilingual = self._multilingual.encode(query.text)
        ids, truncated = self._tokens(query.text)
        room = WINDOW - 2
        if len(ids) <= room:
            return EncodedQuery(query, *self._run(ids), multilingual, 1, truncated)
        windows = -(-len(ids) // room)
        # Windows of equal length, so that the last is not a scrap; the mean counts every token once.
        parts = [ids[len(ids) * i // windows : len(ids) * (i + 1) // windows] for i in range(windows)]
        vectors, states = zip(*map(self._run, parts), strict=True)
        shares = np.array([len(part) for part in parts]) / len(ids)
        vector, state = shares @ np.array(vectors), shares @ np.array(states)
        unit = (vector / np.linalg.norm(vector)).astype(np.float32)
        return EncodedQuery(query, unit, state.astype(np.float32), multilingual, windows, truncated)

    def encode_many(self, queries: Iterable[Query]) -> Iterator[EncodedQuery]:
        """Encode many queries on all cores, in order, with the same vectors as `encode`, bit for bit.

        At most 2 queries per core are read ahead, so that memory does not grow with their number.
        """
        pending: deque[Future[EncodedQuery]] = deque()
        with ThreadPoolExecutor(self._threads, thread_name_prefix="encode") as pool:
            try:
                for query in queries:
                    pending.append(pool.submit(self.encode, query))
                    if len(pending) > 2 * self._threads:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()

    def _run(self, ids: list[int]) -> tuple[Vector, Vector]:
        """Return unit vector and state of one window."""
        tokens = np.array([[self._first, *ids, self._last]], dtype=np.int64)
        feed = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
        vector, state = self._session.run(_OUTPUTS, feed)
        return vector[0], state[0]

    def _tokens(self, text: str) -> tuple[list[int], bool]:
        """Return the token ids of the part of a text that is read, and whether something visible was left unread."""
        limit, end = MAX_WINDOWS * (WINDOW - 2), min(len(text), MAX_CHARACTERS)
        ids: list[int] = []
        start = 0
        while start < end and len(ids) <= limit:
            stop = _piece_end(text, start, end)
            ids += self._tokenizer.encode(replace_surrogates(text[start:stop]), add_special_tokens=False).ids
            start = stop
        return ids[:limit], len(ids) > limit or _VISIBLE.search(text, start) is not None


def bundled_identity() -> str:
    """Return the identity of the bundled encoders, without loading them. Raises AssetError: no manifest lists them."""
    return _identity(assets.asset(ONNX).sha256)


def _identity(model_sha256: str) -> str:
    return hashlib.sha256(f"{model_sha256} {MultilingualEncoder.identity()}".encode()).hexdigest()


def _session(model: bytes, provider: str, threads: int) -> Any:
    return open_session(model, ONNX, _SIGNATURE, provider=provider_name(provider), threads=threads)


def _piece_end(text: str, start: int, end: int) -> int:
    """Return the end of the piece that begins at `start`: after white space, where tokens never cross, if possible."""
    stop = start + _PIECE
    if stop >= end:
        return end
    space = max(text.rfind(" ", start, stop), text.rfind("\n", start, stop))
    return stop if space < 0 else space + 1


def _tokenizer(blob: bytes) -> Tokenizer:
    """Make the tokenizer. Raises AssetError when the bytes do not hold one."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_buffer(blob)
    except ValueError as error:
        raise AssetError(f"{TOKENIZER}: cannot be used ({error}); reinstall scope-edge") from error
    if None in (tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")):
        raise AssetError(f"{TOKENIZER}: has no [CLS] and [SEP]; reinstall scope-edge")
    # A text is never more than text, even where it spells special tokens out.
    tokenizer.encode_special_tokens = True
    return tokenizer
