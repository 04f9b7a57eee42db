"""A model behind an endpoint that doesn't behave: one line within bounds of time and size, and no answer paid for twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sftdemo import runs
from sftdemo.errors import UserError
from sftdemo.log import Reporter
from sftdemo.runs.partial import Partial
from sftdemo.systems import chat_completions
from sftdemo.systems.endpoint import Endpoint
from sftdemo.systems.system import Answers, KeptAnswer, Task
from tests.chat_service import ChatService, serving
from tests.listener import Listener

pytestmark = pytest.mark.slow

LONGEST = 40


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(chat_completions, "PAUSE_S", 0.0)
    monkeypatch.setenv(chat_completions.KEY, "secret-key")
    with serving() as address:
        yield address


def asked(
    model: str, address: str, n: int = 1, kept: Partial | None = None, reporter: Reporter | None = None
) -> Answers:
    rows = [{"messages": [{"role": "user", "content": f"a lovely day {k}"}]} for k in range(n)]
    task = Task(rows, [], [], {}, [], LONGEST, 8, 1, None, reporter or Listener(), kept=kept)
    return Endpoint(model, address).answer(task)


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ("down", "it answered 503: "),
        ("refused", "it answered 401: {\"error\": \"no: Bearer …"),
        ("moved", "it answered 307: http://127.0.0.1:9/elsewhere"),
        ("squeezed", r"it can't be reached \(DecodingError\)"),
        ("endless", "sends over 8 MB for one answer"),
        ("bomb", "sends over 8 MB for one answer"),
        *((model, "answers in another form than OpenAI's") for model in
          ("other", "nothing", "list", "numbers", "garbage", "nested", "events")),
    ],
)  # fmt: skip
def test_one_line_says_what_is_wrong(service: str, model: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem) as raised:
        asked(model, service)
    line = str(raised.value)
    assert "\n" not in line and len(line) < 600 and "secret-key" not in line
    assert len(ChatService.asked) == (chat_completions.TRIES if model in ("down", "squeezed") else 1)


@pytest.mark.parametrize("model", ["silent", "trickle"])
def test_an_answer_that_never_ends_is_waited_for_as_long_as_is_said(
    service: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_completions, "ANSWER_S", 0.2)
    with pytest.raises(UserError, match="no whole answer came within"):
        asked(model, service)
    assert len(ChatService.asked) == chat_completions.SILENT_TRIES


def test_a_stop_is_heard_while_an_endpoint_is_silent(service: str) -> None:
    with pytest.raises(UserError, match="Stopped while api:silent@"):
        asked("silent", service, reporter=Listener(most=0))


def test_in_chat_nobody_waits_for_an_answer_that_was_stopped(service: str) -> None:
    """It held one of the page's few threads until its time was over."""
    pytest.importorskip("gradio")
    from sftdemo.ui.tabs.chat_systems import unless

    question = [{"role": "user", "content": "a lovely day"}]

    async def answers() -> list[Any]:
        silent, fine = (Endpoint(model, service).ask(question, LONGEST) for model in ("silent", "fine"))
        return [await unless(lambda: bool(ChatService.asked), silent), await unless(lambda: False, fine)]

    stopped, answered = asyncio.run(answers())
    assert stopped is None and answered.text == "good"


@pytest.mark.parametrize(
    ("model", "text", "tokens"),
    [
        ("half", "good ?", {}),
        ("uncounted", "good", {}),
        ("calls", '{"name": "look", "arguments": {"at": "x"}}', {}),
        ("fine", "good", {"prompt_tokens": 7, "completion_tokens": 1}),
    ],
)
def test_what_can_be_read_is_read(service: str, model: str, text: str, tokens: dict[str, int]) -> None:
    answers = asked(model, service)
    assert answers.texts == [text] and answers.tokens == tokens


@pytest.mark.parametrize("model", ["wordy", "parts"])
def test_answers_beyond_the_limit_are_cut_and_counted(service: str, model: str) -> None:
    listener = Listener()
    [text] = asked(model, service, reporter=listener).texts
    assert len(text) <= chat_completions.TOKEN_CHARACTERS * LONGEST and text.startswith("good")
    assert any(f"end at the limit of {LONGEST} tokens: 1;" in note for note in listener.notes)


def test_answers_are_kept_as_they_come(service: str) -> None:
    run = runs.create("r", "", {})
    kept = Partial.of(run, "a system", KeptAnswer)
    ChatService.left = 12
    with pytest.raises(UserError, match="it answered 404"):
        asked("tired", service, 20, kept)
    done = len(kept.read())
    assert 12 - 4 < done <= 12, "those that were under way with the one that failed may be lost"
    with Path(kept.path).open("a", encoding="utf-8") as file:
        file.write('{"row": 0, "text')  # as a kill leaves it
    ChatService.asked, ChatService.left = [], 20
    answers = asked("tired", service, 20, kept)
    assert len(ChatService.asked) == 20 - done and answers.texts == ["good"] * 20
    assert answers.tokens == {"prompt_tokens": 140, "completion_tokens": 20}
    assert "secret-key" not in kept.path.read_text(encoding="utf-8")


@pytest.mark.parametrize("key", ["naïve", "a\nb"])
def test_a_key_that_no_header_can_hold_is_refused(service: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(chat_completions.KEY, key)
    with pytest.raises(UserError, match="SFTDEMO_ENDPOINT_KEY has characters that can't be sent"):
        asked("fine", service)
    monkeypatch.setenv(chat_completions.KEY, " secret-key\n")
    assert asked("fine", service).texts == ["good"]


def test_rows_are_answered_in_their_order(service: str) -> None:
    answers: Any = asked("fine", service, 9)
    assert len(answers.texts) == len(ChatService.asked) == 9 and answers.seconds > 0
    assert answers.about == {"model": "fine-2026", "system_fingerprint": "fp_7"}
