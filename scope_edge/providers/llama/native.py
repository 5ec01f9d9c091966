"""The only code that calls llama.cpp: a loaded model with its context, tokens in, logits out. Runs in the worker alone.

It uses the low-level interface because the high-level one cannot switch `use_extra_bufts` off (repacked weights crash machines
with AMX) and knows only one sequence at a time.
"""

from __future__ import annotations

import ctypes
import unicodedata
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llama_cpp
import numpy as np

from scope_edge.providers.llama.messages import LoadOptions
from scope_edge.providers.thoughts import marks_thought

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Logits = NDArray[np.float32]


# A list of devices that ends at once: llama.cpp queries no device's memory. Without a list it queries all.
_NO_DEVICES = (ctypes.c_void_p * 1)(None)
_ERROR = 4  # llama.cpp's log level
# Vocabularies whose own tokenizer composes characters (NFC) first, which llama.cpp leaves to its caller.
_COMPOSING = (b"qwen2",)
_SAID = deque[str](maxlen=8)


class NativeError(RuntimeError):
    """llama.cpp refused or failed; the message is one line."""


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _log(level: int, text: bytes | None, _: Any) -> None:
    if level == _ERROR and text:
        _SAID.append(" ".join(text.decode("utf-8", "replace").split()))


def complaint() -> str:
    """Return llama.cpp's first error message, in brackets: it names the cause, later ones only pass it on."""
    return f" ({_SAID[0].split(': ', 1)[-1][:200]})" if _SAID else ""


def start() -> None:
    """Initialize llama.cpp, once per process, before all else here."""
    llama_cpp.llama_log_set(_log, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()


def open_model(path: Path, *, gpu_layers: int = 0, repack: bool = False, vocabulary_only: bool = False) -> Any:
    """Open a GGUF and return llama.cpp's handle. Raises NativeError with its reason."""
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 10_000 if gpu_layers < 0 else gpu_layers
    if not gpu_layers:
        params.devices = ctypes.addressof(_NO_DEVICES)
    params.use_extra_bufts = repack
    params.vocab_only = vocabulary_only
    _SAID.clear()
    model = llama_cpp.llama_model_load_from_file(str(path).encode("utf-8", "surrogateescape"), params)
    if not model:
        raise NativeError(f"llama.cpp cannot load it{complaint()}")
    return model


class Vocabulary:
    """A model's tokens and chat template."""

    def __init__(self, model: Any) -> None:
        """model: llama.cpp's handle, see `open_model`."""
        self._model = model
        self._vocab = llama_cpp.llama_model_get_vocab(model)
        name = ctypes.create_string_buffer(64)
        llama_cpp.llama_model_meta_val_str(model, b"tokenizer.ggml.pre", name, len(name))
        self._composes = name.value in _COMPOSING
        self.size = int(llama_cpp.llama_vocab_n_tokens(self._vocab))
        self._pieces: dict[int, bytes] = {}

    @property
    def chat_template(self) -> str | None:
        """The model's chat template, in Jinja; None = missing."""
        raw = llama_cpp.llama_model_chat_template(self._model, None)
        return raw.decode("utf-8", "replace") if raw else None

    @property
    def ends_of_text(self) -> tuple[str, str, bool]:
        """The spelling of the begin and end tokens, empty if missing; and whether prompts must begin with the first."""
        tokens = (llama_cpp.llama_vocab_bos(self._vocab), llama_cpp.llama_vocab_eos(self._vocab))
        bos, eos = (
            self._spelled(token, control=True).decode("utf-8", "replace") if token >= 0 else "" for token in tokens
        )
        return bos, eos, bool(llama_cpp.llama_vocab_get_add_bos(self._vocab)) and bool(bos)

    def tokenize(self, text: str, *, markup: bool = False) -> list[int]:
        """Return the tokens of a text, nothing added. markup: control tokens spelled in it count as such."""
        raw = (unicodedata.normalize("NFC", text) if self._composes else text).encode("utf-8", "replace")
        size = len(raw) + 8
        while True:
            room = (llama_cpp.llama_token * size)()
            count = llama_cpp.llama_tokenize(self._vocab, raw, len(raw), room, size, False, markup)
            if count >= 0:
                return list(room[:count])
            size = -count

    def piece(self, token: int) -> bytes:
        """Return a token's text; empty for control tokens, but for those around a thought."""
        known = self._pieces.get(token)
        if known is None:
            known = self._spelled(token, control=True)
            if not marks_thought(known.decode("utf-8", "replace")):
                known = self._spelled(token, control=False)
            self._pieces[token] = known
        return known

    def _spelled(self, token: int, *, control: bool) -> bytes:
        room = ctypes.create_string_buffer(256)
        size = llama_cpp.llama_token_to_piece(self._vocab, token, room, len(room), 0, control)
        return room.raw[: max(size, 0)]

    def ends(self, token: int) -> bool:
        """Return whether a token ends the text."""
        return bool(llama_cpp.llama_vocab_is_eog(self._vocab, token))


class Native(Vocabulary):
    """A model and one context for many sequences that share a cache of `context` cells. Not safe for use from several threads.

    Attributes:
        longest: tokens a sequence may have: beyond its training context a model computes nonsense.
        threads: cores to compute on, for the code around llama.cpp, too.
        rewinds: whether a sequence may be cut, or shared in part. A recurrent model's state knows only its own end.
    """

    def __init__(self, path: Path, options: LoadOptions, cancelled: Callable[[], bool]) -> None:
        """Load. `cancelled` is called while decoding; once it returns True, `decode` gives up. Raises NativeError."""
        model = open_model(path, gpu_layers=options.gpu_layers, repack=options.repack)
        super().__init__(model)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = options.context, options.batch, options.batch
        params.n_seq_max, params.kv_unified = options.sequences, True
        params.n_threads = params.n_threads_batch = options.threads
        params.no_perf = True
        if not options.gpu_layers:
            # llama.cpp's fused attention goes row by row on the processor; plain products take all samples of a prompt at
            # once, 1.3 times as fast (docs/benchmarks.md).
            params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        if hasattr(params, "n_outputs_max"):  # rows of 150,000 numbers: room for a whole batch of them is 300 MB
            params.n_outputs_max = options.sequences
        self._abort = llama_cpp.ggml_abort_callback(lambda _: cancelled())
        params.abort_callback = self._abort
        self._context = llama_cpp.llama_init_from_model(model, params)
        if not self._context:
            raise NativeError(f"llama.cpp cannot make a context of {options.context} tokens{complaint()}")
        self.threads = options.threads
        self._memory = llama_cpp.llama_get_memory(self._context)
        self.context = int(llama_cpp.llama_n_ctx(self._context))
        self.longest = min(self.context, int(llama_cpp.llama_model_n_ctx_train(model)) or self.context)
        self.rewinds = not any(_is(kind, model) for kind in ("recurrent", "hybrid"))
        self._batch = _Batch(options.batch)

    def share(self, source: int, target: int, length: int) -> None:
        """Let sequence `target` begin with the first `length` tokens of `source`, in the same cells."""
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def forget(self, sequence: int, start: int = 0) -> None:
        """Drop a sequence from a position on; from 0 only, where it does not rewind."""
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, start, -1)

    def clear(self) -> None:
        """Drop everything."""
        llama_cpp.llama_memory_clear(self._memory, True)

    def decode(
        self, tokens: Sequence[int], positions: Sequence[int], sequences: Sequence[int], wanted: Sequence[bool]
    ) -> Logits | None:
        """Run one batch: row i is a token at a position of a sequence.

        Returns logits of shape (wanted rows, vocabulary), in order, valid until the next call; None when cancelled.
        Raises NativeError when the cache is full or llama.cpp fails.
        """
        batch = self._batch.fill(tokens, positions, sequences, wanted)
        code = llama_cpp.llama_decode(self._context, batch)
        if code == 2:
            return None
        if code:
            what = "its cache is full" if code == 1 else f"decoding failed with code {code}"
            raise NativeError(f"llama.cpp: {what}{complaint()}")
        rows = sum(wanted)
        if not rows:
            return np.zeros((0, self.size), np.float32)
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits(self._context), shape=(rows, self.size))


class _Batch:
    """llama.cpp's batch over numpy arrays, filled by whole columns."""

    def __init__(self, size: int) -> None:
        self._token, self._pos, self._seq = (np.zeros(size, np.int32) for _ in range(3))
        self._count, self._wanted = np.ones(size, np.int32), np.zeros(size, np.int8)
        base = self._seq.ctypes.data
        self._seq_pointers = base + 4 * np.arange(size, dtype=np.uintp)

    def fill(
        self, tokens: Sequence[int], positions: Sequence[int], sequences: Sequence[int], wanted: Sequence[bool]
    ) -> Any:
        n = len(tokens)
        self._token[:n], self._pos[:n], self._seq[:n], self._wanted[:n] = tokens, positions, sequences, wanted
        batch = llama_cpp.llama_batch()
        batch.n_tokens = n
        for name, column in (
            ("token", self._token),
            ("pos", self._pos),
            ("n_seq_id", self._count),
            ("seq_id", self._seq_pointers),
            ("logits", self._wanted),
        ):
            setattr(batch, name, ctypes.cast(column.ctypes.data, type(getattr(batch, name))))
        return batch


def _is(kind: str, model: Any) -> bool:
    """Return whether a model is of a kind, which older builds of llama.cpp may not know."""
    ask = getattr(llama_cpp, f"llama_model_is_{kind}", None)
    return ask is not None and bool(ask(model))
