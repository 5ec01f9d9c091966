"""onnxruntime, in the only file that imports it: no telemetry, the provider that was asked for, one clear line for what is wrong."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from scope_edge.errors import AssetError, MissingExtraError, UsageError

# Threads that share one run: the products of a short query take 0.2 ms, too little to be cut up further.
MAX_RUN_THREADS = 8
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
}


def runtime() -> Any:
    """Import onnxruntime without its telemetry: official builds since 1.29 send it, unless told not to before the import.

    If other code in this process has imported it already, telemetry is switched off afterwards.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    return onnxruntime


def usable_cores() -> int:
    """Return the number of cores this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def frugal_run() -> Any:
    """Make options for a run whose memory is given back afterwards instead of being kept for the next."""
    options = runtime().RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def provider_name(name: str) -> str:
    """Return onnxruntime's name of a provider. Raises UsageError if it is unknown, MissingExtraError if it is missing."""
    if name not in PROVIDERS:
        raise UsageError(f"provider {name!r} is not known; give one of {', '.join(PROVIDERS)}")
    here = runtime().get_available_providers()
    if PROVIDERS[name] not in here:
        known = ", ".join(key for key, value in PROVIDERS.items() if value in here)
        raise MissingExtraError(
            f"provider {name!r} is not in this onnxruntime, which has: {known}; install an onnxruntime built with it"
        )
    return PROVIDERS[name]


def open_session(
    model: bytes, name: str, signature: Sequence[str], *, provider: str = PROVIDERS["cpu"], threads: int = 1
) -> Any:
    """Make an onnxruntime session of a file's bytes. name: of the file, for errors. signature: its inputs, then its outputs.

    Raises AssetError if the model is unusable, MissingExtraError if the provider is.
    """
    onnxruntime = runtime()
    from onnxruntime.capi import onnxruntime_pybind11_state as native

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = min(threads, MAX_RUN_THREADS)
    options.inter_op_num_threads = 1
    # Idle threads sleep instead of spinning: spinning wastes as much processor time as the session takes to make.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    unusable = (native.Fail, native.InvalidArgument, native.InvalidGraph, native.InvalidProtobuf)
    try:
        session = onnxruntime.InferenceSession(model, options, providers=[provider])
    except (*unusable, native.NotImplemented, native.RuntimeException) as error:
        reason = str(error).partition("\n")[0]
        raise AssetError(f"{name}: onnxruntime cannot use it ({reason}); reinstall scope-edge") from error
    # It would keep the file's bytes beside its own copy of the weights: as much again.
    session._model_bytes = None
    if [item.name for item in (*session.get_inputs(), *session.get_outputs())] != [*signature]:
        raise AssetError(f"{name}: not an encoder of this project; reinstall scope-edge")
    if session.get_providers()[0] != provider:
        raise MissingExtraError(f"{provider} did not start (onnxruntime fell back to CPU); install its libraries")
    return session
