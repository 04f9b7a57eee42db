"""What a client of OpenAI's API asks, read and checked: nothing that it asks is dropped without a word."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sftdemo.config.generate import GenerateConfig
from sftdemo.errors import UserError

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
MOST_MESSAGES = 1000
MOST_STOPS, MOST_STOP_LENGTH = 16, 256
DEFAULT_TOKENS = 1024  # where the client gives no limit
# Of no consequence for the answer.
IGNORED = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls")
# What is asked for with these values is what is done here.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}
READ = ("model", "messages", "temperature", "top_p", "max_tokens", "max_completion_tokens", "seed", "stop", "stream")


class ApiError(UserError):
    """A fault as OpenAI's clients read it."""

    def __init__(
        self, status: int, text: str, param: str | None = None, code: str | None = None, kind: str = ""
    ) -> None:
        super().__init__(text)
        self.status = status
        kind = kind or ("authentication_error" if status == 401 else "invalid_request_error")
        self.body = {"error": {"message": str(text), "type": kind, "param": param, "code": code}}


@dataclass(frozen=True)
class Wish:
    """One chat completion as it is asked for."""

    model: str
    messages: list[dict[str, str]]
    config: GenerateConfig
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool


def read_wish(body: Any) -> Wish:
    """The request, checked; raises ApiError with the parameter that is wrong."""
    if not isinstance(body, Mapping):
        raise ApiError(400, "The request isn't a JSON object.")
    values = {name: value for name, value in body.items() if value is not None and name not in IGNORED}
    for name, value in values.items():
        if name in NEUTRAL and value not in NEUTRAL[name]:
            raise ApiError(400, f"{name} = {str(value)[:80]} isn't served here.", name, "unsupported_parameter")
        if name not in (*NEUTRAL, *READ, "stream_options"):
            raise ApiError(400, f"{name[:80]!r} isn't known here.", name[:80], "unknown_parameter")
    model = values.get("model")
    if not isinstance(model, str) or not model:
        raise ApiError(400, "Give a model's name as model; /v1/models lists them.", "model")
    options = values.get("stream_options", {})
    if not isinstance(options, Mapping) or set(options) - {"include_usage", "include_obfuscation"}:
        raise ApiError(400, "stream_options takes include_usage alone.", "stream_options")
    return Wish(
        model,
        read_messages(values.get("messages")),
        read_config(values),
        read_stop(values.get("stop", [])),
        flag(values, "stream"),
        flag(options, "include_usage"),
    )


def flag(values: Mapping[str, Any], name: str) -> bool:
    value = values.get(name, False)
    if not isinstance(value, bool):
        raise ApiError(400, f"{name} is {str(value)[:80]!r}; give true or false.", name)
    return value


def read_messages(messages: Any) -> list[dict[str, str]]:
    if not isinstance(messages, list) or not messages:
        raise ApiError(400, "messages is a list of at least one message.", "messages")
    if len(messages) > MOST_MESSAGES:
        raise ApiError(400, f"There are {len(messages)} messages; {MOST_MESSAGES} are the most.", "messages")
    return [read_message(message, f"messages[{number}]") for number, message in enumerate(messages)]


def read_message(message: Any, where: str) -> dict[str, str]:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str) or message["role"] not in ROLES:
        raise ApiError(400, f"{where} needs a role: {', '.join(ROLES)}.", where)
    for name, value in message.items():
        if value and name not in ("role", "content", "name", "refusal"):
            raise ApiError(400, f"{where}.{str(name)[:80]} isn't served here.", where, "unsupported_parameter")
    content = message.get("content")
    if isinstance(content, list):  # parts of text
        are_texts = all(isinstance(part, Mapping) and part.get("type", "text") == "text" for part in content)
        texts = [part.get("text") for part in content] if are_texts else [None]
        if not all(isinstance(text, str) for text in texts):
            raise ApiError(400, f"{where}.content has parts that aren't text; only text is read here.", where)
        content = "".join(map(str, texts))
    if not isinstance(content, str):
        raise ApiError(400, f"{where}.content is no text.", where)
    return {"role": ROLES[message["role"]], "content": content}


def read_config(values: Mapping[str, Any]) -> GenerateConfig:
    """The settings of the answer, with OpenAI's defaults: temperature 1, and a new seed each time."""
    for name in ("temperature", "top_p"):
        number = values.get(name, 1)
        if not isinstance(number, int | float) or isinstance(number, bool) or abs(number) > 1e9:
            raise ApiError(400, f"{name} is {str(values[name])[:80]!r}; give a number.", name)
    for name in ("max_tokens", "max_completion_tokens", "seed"):
        if not isinstance(values.get(name, 1), int) or isinstance(values.get(name), bool):
            raise ApiError(400, f"{name} is {str(values[name])[:80]!r}; give a whole number.", name)
    limit = values.get("max_completion_tokens", values.get("max_tokens", DEFAULT_TOKENS))
    seed = values.get("seed")
    config = GenerateConfig(
        max_new_tokens=limit,
        temperature=float(values.get("temperature", 1)),
        top_p=max(float(values.get("top_p", 1)), 0.01) if values.get("top_p", 1) >= 0 else -1.0,
        seed=secrets.randbits(31) if seed is None else seed % 2**32,  # others give negative ones
    )
    try:
        return config.check()
    except UserError as error:
        param = next((name for name in ("max_new_tokens", "temperature", "top_p") if name in str(error)), None)
        raise ApiError(400, str(error), "max_tokens" if param == "max_new_tokens" else param) from None


def read_stop(stop: Any) -> tuple[str, ...]:
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(text, str) and text for text in stops):
        raise ApiError(400, "stop is a text or a list of texts that aren't empty.", "stop")
    if len(stops) > MOST_STOPS or max(map(len, stops), default=0) > MOST_STOP_LENGTH:
        text = f"stop takes no more than {MOST_STOPS} texts of {MOST_STOP_LENGTH} characters."
        raise ApiError(400, text, "stop")
    return tuple(stops)


def stop_cut(text: str, stops: Sequence[str], whole: bool) -> tuple[int, bool]:
    """How much of a text may be shown, and whether a stop sequence has ended it; `whole`: no more text comes."""
    ends = [place for stop in stops if (place := text.find(stop)) >= 0]
    if ends:
        return min(ends), True
    if whole:
        return len(text), False
    held = (size for stop in stops for size in range(len(stop) - 1, 0, -1) if text.endswith(stop[:size]))
    return len(text) - max(held, default=0), False
