"""Requests in OpenAI's format: the fields that the server uses are checked, all others go to the model unchanged."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from scope_edge.encoding.unicode import replace_surrogates_in_body
from scope_edge.errors import UsageError
from scope_edge.execution.attached import attached_strings
from scope_edge.execution.request import texts_of, whole_number
from scope_edge.server.errors import bad
from scope_edge.server.token import REQUEST_SETTINGS
from scope_edge.settings.schema import CHECKS
from scope_edge.settings.validation import suggestion
from scope_edge.types import Query

Value = TypeVar("Value")
AUTO = "auto"
OURS = "scope_edge"
MAX_MESSAGES = 10_000
MAX_INPUTS = 2048
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_SYSTEM = ("system", "developer")
# Type of a part -> what a model needs for it.
_PARTS = {
    "image_url": "images", "input_image": "images", "input_audio": "audio", "file": "files", "input_file": "files",
}  # fmt: skip
_TOOLS = ("tools", "functions", "tool_calls", "function_call")
# Never sent to a model.
_KEPT = ("model", "messages", "prompt", "stream", "stream_options", "n", OURS)
# An answer is one choice of text, so these would get wrong answers.
_UNSUPPORTED = ("logprobs", "top_logprobs", "echo", "suffix", "best_of")
# How a request is recorded; the user's commands say it.
_LISTED_AS, _PROFILE = "recorded_as", "recorded_profile"
_LONGEST_NAME = 300
_OPTIONS = (*REQUEST_SETTINGS, "exclude", "decision", _LISTED_AS, _PROFILE)


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """A request's options for the decision.

    settings: checked values by name. show: return the decision, too. listed_as: the name in the list of recent answers; None =
    that of the model.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()
    show: bool = False
    listed_as: str | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """A request for an answer.

    Attributes:
        model: the name in the request. query: the text to decide on. messages, fields: sent to the model.
        needs: abilities, as in `ModelCard.supports`. stream, usage: whether to stream, and to end with an event of token counts.
    """

    model: str
    query: Query
    messages: tuple[Mapping[str, Any], ...]
    fields: Mapping[str, Any]
    needs: tuple[str, ...]
    options: RequestOptions
    stream: bool = False
    usage: bool = False


def parse(raw: bytes) -> dict[str, Any]:
    """Return a JSON object. Raises ApiError."""
    try:
        body = json.loads(raw, parse_constant=_refuse, parse_float=_finite, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise bad('the body is not JSON; send an object such as {"model": "auto", ...}') from error
    if not isinstance(body, dict):
        raise bad("the body must be a JSON object")
    # A lone surrogate can only be written as an escape.
    return dict(replace_surrogates_in_body(body)) if b"\\ud" in raw.lower() else body


def read_chat(body: Mapping[str, Any], *, show: bool = False) -> Conversation:
    """Read a request for /v1/chat/completions. show: a header asks for the decision. Raises ApiError."""
    return _conversation(body, _messages(body.get("messages")), show)


def read_completion(body: Mapping[str, Any], *, show: bool = False) -> Conversation:
    """Read a request for /v1/completions; the prompt becomes a user message. Raises ApiError."""
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        (prompt,) = prompt
    if not isinstance(prompt, str):
        raise bad("prompt must be one text; tokens and several prompts are not supported", "prompt")
    return _conversation(body, ({"role": "user", "content": prompt},), show)


def read_query(body: Mapping[str, Any]) -> tuple[str, Query, RequestOptions]:
    """Read a request for /v1/route: (model, query, options). Its options may stand beside the text. Raises ApiError."""
    known = ("text", "system", "messages", "model", OURS, *_OPTIONS)
    for name in body:
        if name not in known:
            raise bad(f"unknown field {name}{suggestion(name, known)}; known fields: {', '.join(known)}", name)
    twice = [name for name in ("text", "system") if body.get(name) is not None]
    if body.get("messages") is None:
        text, system = (_typed(body, name, str, "a text") for name in ("text", "system"))
        query = Query(text or "", system=system)
    elif twice:
        raise bad(f"give messages or {' and '.join(twice)}, not both", twice[0])
    else:
        query = _query(_messages(body["messages"]), {})
    options = {name: body[name] for name in _OPTIONS if name in body}
    return _model(body), query, _options({**_object(body, OURS), **options}, show=False)


def read_inputs(body: Mapping[str, Any]) -> tuple[str, tuple[str, ...], bool]:
    """Read a request for /v1/embeddings: (model, texts, whether to encode vectors in base64). Raises ApiError."""
    given = body.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(one, str) and one for one in texts):
        raise bad("input must be a text or a list of texts that are not empty; tokens are not supported", "input")
    if len(texts) > MAX_INPUTS:
        raise bad(f"input has {len(texts)} texts, more than {MAX_INPUTS}; send fewer", "input")
    form = body.get("encoding_format")
    if form not in (None, "float", "base64"):
        raise bad('encoding_format must be "float" or "base64"', "encoding_format")
    return _model(body), tuple(texts), form == "base64"


def _model(body: Mapping[str, Any]) -> str:
    """Return the model's name, "auto" by default. Raises ApiError."""
    model = AUTO if body.get("model") is None else body["model"]
    if not isinstance(model, str) or not model.strip() or len(model) > _LONGEST_NAME:
        raise bad('model must be a name, such as "auto"', "model")
    return model


def _conversation(body: Mapping[str, Any], messages: tuple[Mapping[str, Any], ...], show: bool) -> Conversation:
    if body.get("n") not in (None, 1):
        raise bad("a request gets one answer; leave n out", "n", "unsupported_parameter")
    for name in _UNSUPPORTED:
        if body.get(name):
            raise bad(f"{name} is not supported; leave it out", name, "unsupported_parameter")
    fields = {k: value for k, value in body.items() if k not in (*_KEPT, *_UNSUPPORTED) and value is not None}
    for name in ("max_tokens", "max_completion_tokens"):
        # What clients of llama.cpp and LM Studio send for "no limit".
        if type(fields.get(name)) is int and fields[name] == -1:
            del fields[name]
        if name in fields and not (type(fields[name]) is int and fields[name] >= 1):
            raise bad(f"{name} must be a whole number, at least 1", name)
    return Conversation(
        model=_model(body),
        query=_query(messages, fields),
        messages=messages,
        fields=fields,
        needs=_needs(messages, fields),
        options=_options(_object(body, OURS), show=show),
        stream=_flag(body, "stream"),
        usage=_flag(_object(body, "stream_options"), "include_usage"),
    )


def _messages(value: object) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list) or not value:
        raise bad("messages must be a list with at least one message", "messages")
    if len(value) > MAX_MESSAGES:
        raise bad(f"messages has {len(value)} messages, more than {MAX_MESSAGES}; send fewer", "messages")
    for number, message in enumerate(value):
        where = f"messages[{number}]"
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise bad(f"{where} must be an object whose role is one of {', '.join(_ROLES)}", where)
        content = message.get("content")
        if not (content is None or isinstance(content, (str, list))) or not all(
            isinstance(part, dict) and isinstance(part.get("type"), str) for part in _parts(message)
        ):
            raise bad(f"{where}: content must be a text or a list of parts, each with a type", where)
        if content is None and message["role"] != "assistant":
            raise bad(f"{where} has no content", where)
    return tuple(value)


def _parts(message: Mapping[str, Any]) -> list[Any]:
    content = message.get("content")
    return content if isinstance(content, list) else []


def _query(messages: Sequence[Mapping[str, Any]], fields: Mapping[str, Any]) -> Query:
    """Return the user's last message as the query; the others, and all fields, only cost tokens. Raises ApiError."""
    roles, texts = [message["role"] for message in messages], texts_of(messages)[0]
    last = max((n for n, role in enumerate(roles) if role == "user"), default=None)
    if last is None:
        raise bad("messages has no user message to answer", "messages")
    system = [text for role, text in zip(roles, texts, strict=True) if role in _SYSTEM]
    history = tuple(
        ("assistant" if role == "assistant" else "user", text)
        for n, (role, text) in enumerate(zip(roles, texts, strict=True))
        if n != last and role not in _SYSTEM
    )
    return Query(
        texts[last],
        system="\n".join(system) if system else None,
        history=history,
        attached=attached_strings(messages, fields),
    )


def _needs(messages: Sequence[Mapping[str, Any]], fields: Mapping[str, Any]) -> tuple[str, ...]:
    form, modes = fields.get("response_format"), fields.get("modalities") or []
    if not isinstance(modes, list):
        raise bad("modalities must be a list", "modalities")
    tools = any(fields.get(name) for name in _TOOLS) or any(
        message["role"] in ("tool", "function") or message.get("tool_calls") for message in messages
    )
    json_ = form is not None and (not isinstance(form, dict) or form.get("type", "text") != "text")
    found = {"tools": tools, "json": json_, "audio": bool(fields.get("audio") or "audio" in modes)}
    parts = {_PARTS[part["type"]]: True for message in messages for part in _parts(message) if part["type"] in _PARTS}
    return tuple(name for name, needed in (found | parts).items() if needed)


def _options(given: Mapping[str, Any], *, show: bool) -> RequestOptions:
    settings: dict[str, Any] = {}
    for name, value in given.items():
        if name not in _OPTIONS:
            raise bad(f"unknown field {OURS}.{name}{suggestion(name, _OPTIONS)}; known fields: {', '.join(_OPTIONS)}")
        if name in REQUEST_SETTINGS and value is not None:
            try:
                settings[name] = CHECKS[name](name, value)
            except UsageError as error:
                raise bad(str(error), f"{OURS}.{name}") from error
    exclude = given.get("exclude") or ()
    models = (exclude,) if isinstance(exclude, str) else exclude
    if not isinstance(models, (list, tuple)) or not all(isinstance(one, str) for one in models):
        raise bad("exclude must be a model's id or a list of them", f"{OURS}.exclude")
    if _PROFILE in given:
        settings["profile"] = _name(given, _PROFILE)
    return RequestOptions(settings, tuple(models), show or _flag(given, "decision"), _name(given, _LISTED_AS))


def _name(given: Mapping[str, Any], name: str) -> str | None:
    value = _typed(given, name, str, "a text")
    if value is None or (value.strip() and value.isprintable() and len(value) <= _LONGEST_NAME):
        return value
    raise bad(f"{OURS}.{name} must be text on one line, not blank and not too long", f"{OURS}.{name}")


def _typed(body: Mapping[str, Any], name: str, kind: type[Value], must: str) -> Value | None:
    value = body.get(name)
    if value is None or isinstance(value, kind):
        return value
    raise bad(f"{name} must be {must}", name)


def _object(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return _typed(body, name, dict, "an object") or {}


def _flag(body: Mapping[str, Any], name: str) -> bool:
    return bool(_typed(body, name, bool, "true or false"))


def _whole(text: str) -> int:
    try:
        return whole_number(text)
    except ValueError as error:
        raise bad(str(error)) from error


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise bad(f"{text[:40]} is out of range; send a smaller number")
    return number


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
