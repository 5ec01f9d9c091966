"""What llama.cpp itself makes of texts and tokens: its tokens and its logits, from a child process that may crash alone.

    from ask_llama import ask
    answers = ask(Path("model.gguf"), texts=[("a text", False)], prompts=[[1, 2, 3]])

Weights are never repacked (`use_extra_bufts`), which crashes machines with AMX.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """tokens: of each text. logits: of each prompt, float32, (its tokens, vocabulary)."""

    tokens: list[list[int]]
    logits: list[NDArray[np.float32]]


def ask(
    gguf: Path, *, texts: Sequence[tuple[str, bool]] = (), prompts: Sequence[Sequence[int]] = (), threads: int = 1
) -> Answers:
    """Tokenize `texts`, each with whether control tokens spelled in it count as such, and run `prompts` (token ids).

    Raises RuntimeError with what the child said when it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        question, answer = Path(folder, "question.json"), Path(folder, "answer.npz")
        body = {"gguf": str(gguf.resolve()), "texts": texts, "prompts": [list(p) for p in prompts], "threads": threads}
        question.write_text(json.dumps(body), "utf-8")
        child = [sys.executable, str(Path(__file__).resolve()), str(question), str(answer)]
        done = subprocess.run(child, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(
                f"llama.cpp failed ({done.returncode}): {done.stderr.decode('utf-8', 'replace')[-2000:]}"
            )
        with np.load(answer) as found:
            tokens = np.split(found["tokens"], np.cumsum(found["counts"])[:-1]) if len(texts) else []
            logits = [found[f"logits{i}"] for i in range(len(prompts))]
    return Answers([part.tolist() for part in tokens], logits)


def main() -> None:
    """The child: the one process here that loads llama.cpp."""
    import llama_cpp

    question = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_default_params()
    params.use_extra_bufts, params.n_gpu_layers = False, 0
    params.vocab_only = not question["prompts"]
    model = llama_cpp.llama_model_load_from_file(question["gguf"].encode(), params)
    if not model:
        raise RuntimeError("it cannot be loaded")
    tokens = [_tokenize(llama_cpp, model, text, markup) for text, markup in question["texts"]]
    answer: dict[str, NDArray[Any]] = {
        "tokens": np.array([token for part in tokens for token in part], np.int32),
        "counts": np.array([len(part) for part in tokens], np.int64),
    }
    if question["prompts"]:
        for i, logits in enumerate(_run(llama_cpp, model, question["prompts"], question["threads"])):
            answer[f"logits{i}"] = logits
    np.savez(sys.argv[2], **answer)  # type: ignore[arg-type]


def _tokenize(llama: Any, model: Any, text: str, markup: bool) -> list[int]:
    raw = text.encode()
    room = (llama.llama_token * (len(raw) + 8))()
    count = llama.llama_tokenize(llama.llama_model_get_vocab(model), raw, len(raw), room, len(room), False, markup)
    return list(room[:count])


def _run(llama: Any, model: Any, prompts: Sequence[Sequence[int]], threads: int) -> list[NDArray[np.float32]]:
    longest = max(map(len, prompts))
    params = llama.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = longest + 8, longest, longest
    params.n_threads = params.n_threads_batch = threads
    if hasattr(params, "n_outputs_max"):
        params.n_outputs_max = longest
    context = llama.llama_init_from_model(model, params)
    if not context:
        raise RuntimeError("no context could be made")
    vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    batch = llama.llama_batch_init(longest, 0, 1)
    found = []
    for prompt in prompts:
        llama.llama_memory_clear(llama.llama_get_memory(context), True)
        batch.n_tokens = len(prompt)
        for i, token in enumerate(prompt):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, True
            batch.seq_id[i][0] = 0
        if llama.llama_decode(context, batch) != 0:
            raise RuntimeError("decoding failed")
        shape = (len(prompt), vocabulary)
        found.append(np.ctypeslib.as_array(llama.llama_get_logits(context), shape=shape).copy())
    return found


if __name__ == "__main__":
    main()
