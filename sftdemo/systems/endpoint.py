"""A model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftdemo.errors import Text, UserError
from sftdemo.systems.system import Answers, Row, Task

if TYPE_CHECKING:
    import httpx

KEY = "SFTDEMO_ENDPOINT_KEY"  # of the environment; the key is never saved or shown
CONNECT_S, ANSWER_S = 10.0, 120.0
AT_ONCE = 4  # requests, so that neither a small server nor a rate limit is overrun
TRIES = 4
PAUSE_S = 1.0  # before the second try; doubled before each further one
MOST_PAUSE_S = 30.0  # that a service may ask for
TRY_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}


@dataclass(frozen=True)
class Endpoint:
    """The model `model` of the service at `url`, such as http://127.0.0.1:8000/v1; temperature 0."""

    model: str
    url: str

    @property
    def name(self) -> str:
        return f"api:{self.model}@{self.url}"

    def check(self, task: Task) -> None:
        pass  # whether it answers shows when it is asked

    def identity(self) -> Any:
        return None

    def answer(self, task: Task) -> Answers:
        import httpx

        headers = {"authorization": f"Bearer {os.environ[KEY]}"} if os.environ.get(KEY) else {}
        texts: dict[int, str] = {}
        tokens: Counter[str] = Counter()
        began = time.perf_counter()
        with (
            httpx.Client(headers=headers, timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S)) as client,
            ThreadPoolExecutor(AT_ONCE) as pool,
        ):
            for first in range(0, len(task.rows), AT_ONCE):
                if task.reporter.should_stop():
                    raise UserError("Stopped while {name} answered; the evaluation itself is saved.", name=self.name)
                asked = task.rows[first : first + AT_ONCE]
                for place, (text, used) in enumerate(pool.map(lambda row: self._ask(client, row, task), asked), first):
                    texts[place] = text
                    tokens.update(used)
                task.reporter.answered(len(texts), len(task.rows))
        seconds = time.perf_counter() - began
        if cut := tokens.pop("cut", 0):
            task.reporter.info(
                Text(
                    "Answers of {name} that end at the limit of {limit} tokens: {n}; raise --max-new-tokens.",
                    name=self.name,
                    limit=task.longest,
                    n=cut,
                )
            )
        return Answers([texts[place] for place in range(len(task.rows))], seconds, tokens=dict(tokens))

    def _ask(self, client: httpx.Client, row: Row, task: Task) -> tuple[str, dict[str, int]]:
        """One answer and the tokens that it cost, after as many tries as it takes; UserError where it doesn't come."""
        import httpx

        messages = [_with_written_arguments(message) for message in row["messages"]]
        body = {"model": self.model, "messages": messages, "max_tokens": task.longest, "temperature": 0}
        if row.get("tools"):
            body["tools"] = row["tools"]
        pause = PAUSE_S
        for attempt in range(TRIES):
            wait = pause
            try:
                response = client.post(f"{self.url.rstrip('/')}/chat/completions", json=body)
            except httpx.TransportError as error:
                problem = Text("it can't be reached ({error})", error=type(error).__name__)
            else:
                if response.status_code == 200:
                    return self._read(response)
                problem = Text("it answered {status}: {text}", status=response.status_code, text=response.text[:200])
                if response.status_code not in TRY_AGAIN:
                    break
                wait = _asked_pause(response) or pause
            if attempt + 1 < TRIES:
                time.sleep(wait)
                pause *= 2
        raise UserError(
            "{name} doesn't answer: {problem}. Look at its address, its model and {key}; the evaluation itself is saved.",
            name=self.name,
            problem=problem,
            key=KEY,
        )

    def _read(self, response: httpx.Response) -> tuple[str, dict[str, int]]:
        try:
            value = response.json()
            choice, used = value["choices"][0], value.get("usage") or {}
            text = choice["message"].get("content") or ""
            if not isinstance(text, str):  # as parts
                text = "".join(part["text"] for part in text)
            counts = {name: int(used[name]) for name in ("prompt_tokens", "completion_tokens") if name in used}
            if choice.get("finish_reason") == "length":
                counts["cut"] = 1
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise UserError(
                "{name} answers in another form than OpenAI's chat completions: {text}",
                name=self.name,
                text=response.text[:200],
            ) from error
        return text.strip(), counts


def _with_written_arguments(message: Row) -> Row:
    """A turn with its calls' arguments as text, as OpenAI has them."""
    if not message.get("tool_calls"):
        return message
    calls = [
        call | {"function": call["function"] | {"arguments": _written(call["function"].get("arguments"))}}
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


def _written(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False)


def _asked_pause(response: httpx.Response) -> float | None:
    """Seconds that the service asks to wait, within bounds."""
    asked = response.headers.get("retry-after", "")
    return min(float(asked), MOST_PAUSE_S) if asked.isdecimal() else None
