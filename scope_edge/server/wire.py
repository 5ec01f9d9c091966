"""Requests in OpenAI's wire format, read with distrust: what is ours is checked, the rest goes on to the model as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scope_edge.allowed import CHECKS
from scope_edge.checks import suggestion
from scope_edge.errors import UsageError
from scope_edge.executor.request import texts_of
from scope_edge.records import Query
from scope_edge.server.problems import bad
from scope_edge.whole import whole_body

AUTO = "auto"
OURS = "scope_edge"
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_SYSTEM = ("system", "developer")
_PARTS = {
    "image_url": "images",
    "input_image": "images",
    "input_audio": "audio",
    "file": "files",
    "input_file": "files",
}
_TOOLS = ("tools", "functions", "tool_calls", "function_call")
# What is decided here, and never sent on.
_KEPT = ("model", "messages", "prompt", "stream", "stream_options", OURS)
# What an answer could only seem to have: one choice comes back, its text alone.
_UNABLE = ("logprobs", "top_logprobs", "echo", "suffix", "best_of")
_SETTINGS = (
    "alpha",
    "max_tokens",
    "max_usd",
    "max_seconds",
    "local_only",
    "fallback",
    "policy",
    "verify",
    "top_k",
    "pool",
)
_WISHES = (*_SETTINGS, "exclude", "decision")
MOST_MESSAGES = 10_000
MOST_INPUTS = 2048


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a request asks of the decision. settings: checked values by name. show: the decision comes along."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()
    show: bool = False


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a request wants answered.

    Attributes:
        model: as it says. query: what the decision is about. messages: what is sent. fields: the other fields, likewise.
        needs: of the model, as in `ModelCard.supports`. stream, usage: how the answer is to come.
    """

    model: str
    query: Query
    messages: tuple[Mapping[str, Any], ...]
    fields: Mapping[str, Any]
    needs: tuple[str, ...]
    wishes: Wishes
    stream: bool = False
    usage: bool = False


def parse(raw: bytes) -> dict[str, Any]:
    """A JSON object. Raises Problem."""
    try:
        body = json.loads(raw, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise bad('the body is not JSON; send an object such as {"model": "auto", ...}') from error
    if not isinstance(body, dict):
        raise bad("the body must be a JSON object")
    # Half a character can only be spelled out.
    return dict(whole_body(body)) if b"\\ud" in raw.lower() else body


def read_chat(body: Mapping[str, Any], *, show: bool = False) -> Conversation:
    """A request for /v1/chat/completions. show: a header asks for the decision. Raises Problem."""
    messages = _messages(body.get("messages"))
    return _conversation(body, messages, show)


def read_completion(body: Mapping[str, Any], *, show: bool = False) -> Conversation:
    """A request for /v1/completions: its prompt is one message of the user's. Raises Problem."""
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        (prompt,) = prompt
    if not isinstance(prompt, str):
        raise bad("prompt must be one text; tokens and several prompts are not taken", "prompt")
    return _conversation(body, ({"role": "user", "content": prompt},), show)


def read_query(body: Mapping[str, Any]) -> tuple[str, Query, Wishes]:
    """A request for /v1/route: (model, query, wishes). The wishes may stand in the body itself. Raises Problem."""
    known = ("text", "system", "messages", "model", OURS, *_WISHES)
    for name in body:
        if name not in known:
            raise bad(f"{name} is nothing to route by{suggestion(name, known)}; what is: {', '.join(known)}", name)
    twice = [name for name in ("text", "system") if body.get(name) is not None]
    if body.get("messages") is not None and twice:
        raise bad(f"give messages or {' and '.join(twice)}, not both", twice[0])
    said = _query(_messages(body["messages"])) if body.get("messages") is not None else None
    query = said or Query(_text(body, "text") or "", system=_text(body, "system"))
    wishes = {name: body[name] for name in _WISHES if name in body}
    return model_of(body), query, _wishes({**_object(body, OURS), **wishes}, show=False)


def read_inputs(body: Mapping[str, Any]) -> tuple[str, tuple[str, ...], bool]:
    """A request for /v1/embeddings: (model, texts, whether vectors are wanted in base64). Raises Problem."""
    given = body.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(one, str) and one for one in texts):
        raise bad("input must be a text or a list of texts, none of them empty; tokens are not taken", "input")
    if len(texts) > MOST_INPUTS:
        raise bad(f"input has {len(texts)} texts, more than {MOST_INPUTS}; send fewer", "input")
    form = body.get("encoding_format")
    if form not in (None, "float", "base64"):
        raise bad('encoding_format must be "float" or "base64"', "encoding_format")
    return model_of(body), tuple(texts), form == "base64"


def model_of(body: Mapping[str, Any]) -> str:
    """The model that is named; "auto" where none is. Raises Problem."""
    model = AUTO if body.get("model") is None else body["model"]
    if not isinstance(model, str) or not model.strip() or len(model) > 300:
        raise bad('model must be a name, such as "auto"', "model")
    return model


def _conversation(body: Mapping[str, Any], messages: tuple[Mapping[str, Any], ...], show: bool) -> Conversation:
    if body.get("n") not in (None, 1):
        raise bad("one answer is given to a request; leave n out", "n", "unsupported_parameter")
    for name in _UNABLE:
        if body.get(name):
            raise bad(f"{name} is not supported; leave it out", name, "unsupported_parameter")
    options = _object(body, "stream_options")
    fields = {name: value for name, value in body.items() if name not in (*_KEPT, *_UNABLE, "n") and value is not None}
    for name in ("max_tokens", "max_completion_tokens"):
        if name in fields and not (type(fields[name]) is int and fields[name] >= 1):
            raise bad(f"{name} must be a whole number, at least 1", name)
    return Conversation(
        model=model_of(body),
        query=_query(messages),
        messages=messages,
        fields=fields,
        needs=_needs(messages, fields),
        wishes=_wishes(_object(body, OURS), show=show),
        stream=_flag(body, "stream"),
        usage=_flag(options, "include_usage"),
    )


def _messages(value: object) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list) or not value:
        raise bad("messages must be a list with at least one message", "messages")
    if len(value) > MOST_MESSAGES:
        raise bad(f"there are more than {MOST_MESSAGES} messages", "messages")
    for number, message in enumerate(value):
        where = f"messages[{number}]"
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise bad(f"{where} must be an object whose role is one of {', '.join(_ROLES)}", where)
        content = message.get("content")
        parts = content if isinstance(content, list) else []
        typed = all(isinstance(one, dict) and isinstance(one.get("type"), str) for one in parts)
        if not (content is None or isinstance(content, (str, list))) or not typed:
            raise bad(f"{where}: content must be a text or a list of parts, each with a type", where)
        if content is None and message["role"] != "assistant":
            raise bad(f"{where} has no content", where)
    return tuple(value)


def _query(messages: Sequence[Mapping[str, Any]]) -> Query:
    """What the decision is about: the user's latest words; all else costs tokens and is not what is asked."""
    texts, _ = texts_of(messages)
    last = max((n for n, message in enumerate(messages) if message["role"] == "user"), default=None)
    if last is None:
        raise bad("there is no message of the user's to answer", "messages")
    system = [text for text, message in zip(texts, messages, strict=True) if message["role"] in _SYSTEM]
    history = tuple(
        ("assistant" if message["role"] == "assistant" else "user", text)
        for n, (text, message) in enumerate(zip(texts, messages, strict=True))
        if n != last and message["role"] not in _SYSTEM
    )
    return Query(texts[last], system="\n".join(system) if system else None, history=history)


def _needs(messages: Sequence[Mapping[str, Any]], fields: Mapping[str, Any]) -> tuple[str, ...]:
    found: dict[str, bool] = {}
    if any(fields.get(name) for name in _TOOLS) or any(
        message["role"] in ("tool", "function") or message.get("tool_calls") for message in messages
    ):
        found["tools"] = True
    form = fields.get("response_format")
    if form is not None and (not isinstance(form, dict) or form.get("type", "text") != "text"):
        found["json"] = True
    modes = fields.get("modalities") or []
    if not isinstance(modes, list):
        raise bad("modalities must be a list", "modalities")
    if fields.get("audio") or "audio" in modes:
        found["audio"] = True
    for message in messages:
        parts = message.get("content")
        for part in parts if isinstance(parts, list) else ():
            if part["type"] in _PARTS:
                found[_PARTS[part["type"]]] = True
    return tuple(found)


def _wishes(given: Mapping[str, Any], *, show: bool) -> Wishes:
    settings = {}
    for name, value in given.items():
        if name not in _WISHES:
            raise bad(f"{OURS}.{name} cannot be asked for{suggestion(name, _WISHES)}; what can: {', '.join(_WISHES)}")
        if name in _SETTINGS and value is not None:
            try:
                settings[name] = CHECKS[name](name, value)
            except UsageError as error:
                raise bad(str(error), f"{OURS}.{name}") from error
    exclude = given.get("exclude") or ()
    models = (exclude,) if isinstance(exclude, str) else exclude
    if not isinstance(models, (list, tuple)) or not all(isinstance(one, str) for one in models):
        raise bad("exclude must be a model's id or a list of them", f"{OURS}.exclude")
    return Wishes(settings, tuple(models), show or _flag(given, "decision"))


def _object(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad(f"{name} must be an object", name)
    return value


def _text(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is None or isinstance(value, str):
        return value
    raise bad(f"{name} must be a text", name)


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise bad(f"{name} must be true or false", name)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
