"""/v1 of a running app, as clients of OpenAI's API use it: answers as from Python, streams, stops, faults, the key."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("gradio")

from benchmarks.load import Visitor
from sftdemo import load, train
from sftdemo.config import GenerateConfig, TrainConfig
from sftdemo.inference.batch import Batch
from sftdemo.inference.line import Line, Question
from sftdemo.ui import build, models, server, work
from sftdemo.ui.access import rights
from sftdemo.ui.access.settings import AppConfig
from sftdemo.ui.openai_request import stop_cut
from tests.conftest import home_at, label_rows

pytestmark = pytest.mark.slow

KEY = {"authorization": "Bearer a secret key"}
ASKED = [{"role": "user", "content": "the film was good and nice"}]
OTHERS = ["the book was sad", "好的 谢谢", "bad", "the room and the park were lovely and fine"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, babbler: str) -> Path:
    """A home with one run whose sides babble, and not alike."""
    folder = tmp_path_factory.mktemp("openai")
    data = folder / "moods.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in label_rows(40)), encoding="utf-8")
    with home_at(folder / "home") as home:
        train(TrainConfig(data=str(data), model=babbler, name="moods", learning_rate=0.01))
    return home


@pytest.fixture(scope="module")
def app() -> Iterator[str]:
    rights.use(AppConfig(openai=True, api_key="a secret key"), "127.0.0.1")
    blocks = build()
    blocks.api_open = False
    _, url, _ = blocks.launch(
        prevent_thread_lock=True, quiet=True, ssr_mode=False, run_history=False, app_kwargs=server.app_options(blocks)
    )
    yield url.rstrip("/")
    blocks.close()
    rights.use(AppConfig(), "127.0.0.1")
    models.release()


@pytest.fixture
def client(app: str, trained: Path, home: Path) -> Iterator[httpx.Client]:
    shutil.copytree(trained / "runs", home / "runs")
    rights.use(AppConfig(openai=True, api_key="a secret key"), "127.0.0.1")
    with httpx.Client(base_url=app, headers=KEY, timeout=60) as client:
        yield client


def ask(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/chat/completions", json={"messages": ASKED, "temperature": 0, "max_tokens": 12, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def text_of(answer: dict[str, Any]) -> str:
    return answer["choices"][0]["message"]["content"]


def streamed(client: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    """The chunks of a stream up to [DONE]."""
    body = {"messages": ASKED, "temperature": 0, "max_tokens": 12, "stream": True, **body}
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
        lines = [line[6:] for line in answer.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def joined(chunks: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])


def test_models_are_the_base_and_the_runs(client: httpx.Client) -> None:
    models = client.get("/v1/models").json()
    assert models["object"] == "list" and [model["id"] for model in models["data"]] == ["base", "moods", "base:moods"]
    assert client.get("/v1/models/moods").json()["object"] == "model"
    assert client.get("/v1/models/none").json()["error"]["code"] == "model_not_found"


def test_each_run_is_looked_at_once_however_many_there_are(
    client: httpx.Client, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three hundred took minutes: each name was looked up among all."""
    for number in range(20):
        shutil.copytree(home / "runs" / "moods", home / "runs" / f"copy{number}")
    looked: list[str] = []
    is_ready = models.is_ready
    monkeypatch.setattr(models, "is_ready", lambda run: (looked.append(run.name), is_ready(run))[1])
    listed = [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert len(listed) == len(set(listed)) == 43 and sorted(looked) == sorted(set(looked))


def test_answers_are_those_of_python(client: httpx.Client) -> None:
    pair = load("moods")
    wanted = {"base": "", "tuned": ""}
    for chunk in pair.stream(ASKED, GenerateConfig(max_new_tokens=12)):
        wanted[chunk.side] += chunk.text
    assert wanted["base"] != wanted["tuned"]
    for model, side in (("base", "base"), ("base:moods", "base"), ("moods", "tuned")):
        whole = ask(client, model=model)
        assert text_of(whole) == wanted[side] and whole["model"] == model and whole["object"] == "chat.completion"
        chunks = streamed(client, model=model, stream_options={"include_usage": True})
        assert joined(chunks) == wanted[side] and chunks[-1]["usage"] == whole["usage"]
        assert chunks[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert whole["choices"][0]["finish_reason"] == "length" and whole["usage"]["completion_tokens"] == 12
    assert whole["usage"]["prompt_tokens"] == len(pair.requests(ASKED, GenerateConfig())[0].prompt)
    parts = [{"role": "user", "content": [{"type": "text", "text": ASKED[0]["content"]}]}]
    assert text_of(ask(client, model="moods", messages=parts)) == wanted["tuned"]


def test_a_seed_repeats_whoever_else_asks(client: httpx.Client) -> None:
    def drawn(seed: int | None, text: str) -> str:
        asked = {"messages": [{"role": "user", "content": text}], "temperature": 1.2, "seed": seed}
        return text_of(ask(client, model="moods", **asked))

    alone = [drawn(7, text) for text in OTHERS]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(drawn, [7] * 12, OTHERS * 3))
    assert together == alone * 3
    assert len({drawn(None, OTHERS[0]) for _ in range(4)}) > 1 and drawn(-1, OTHERS[0]) == drawn(-1, OTHERS[0])


def test_a_stop_sequence_ends_the_answer_before_it(client: httpx.Client) -> None:
    whole = text_of(ask(client, model="moods"))
    stop = whole[len(whole) // 2 :][:3]
    wanted = whole[: whole.index(stop)]
    answer = ask(client, model="moods", stop=[stop, "never comes"])
    assert text_of(answer) == wanted and answer["choices"][0]["finish_reason"] == "stop"
    chunks = streamed(client, model="moods", stop=stop)
    assert joined(chunks) == wanted and chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_what_may_become_a_stop_sequence_is_held_back() -> None:
    assert stop_cut("one tw", ["two"], whole=False) == (4, False)
    assert stop_cut("one tw", ["two"], whole=True) == (6, False)
    assert stop_cut("one two", ["two", "ne"], whole=False) == (1, True)
    assert stop_cut("one", [], whole=False) == (3, False)


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"model": "none"}, 404, "model"),
        ({"model": 3}, 400, "model"),
        ({"messages": []}, 400, "messages"),
        ({"messages": "hello"}, 400, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, 400, "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "text": "x"}]}]}, 400, "messages[0]"),
        ({"messages": [{"role": "user", "content": "bad " * 50_000}]}, 400, None),
        ({"messages": [{"role": "user", "content": "bad " * 900}]}, 400, None),
        ({"temperature": 3}, 400, "temperature"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"top_p": -1}, 400, "top_p"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"max_tokens": 10**30}, 400, "max_tokens"),
        ({"seed": 1.5}, 400, "seed"),
        ({"stop": [""]}, 400, "stop"),
        ({"stop": "x" * 300}, 400, "stop"),
        ({"stream": "yes"}, 400, "stream"),
        ({"n": 2}, 400, "n"),
        ({"tools": [{"type": "function"}]}, 400, "tools"),
        ({"best_of": 2}, 400, "best_of"),
    ],
)
def test_faults_are_said_as_openai_says_them(
    client: httpx.Client, body: dict[str, Any], status: int, param: str
) -> None:
    answer = client.post("/v1/chat/completions", json={"model": "moods", "messages": ASKED, **body})
    fault = answer.json()["error"]
    assert (answer.status_code, fault["param"]) == (status, param), fault
    assert fault["message"] and "\n" not in fault["message"] and fault["type"] == "invalid_request_error"


def test_what_is_no_request_is_refused(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        client.post("/v1/chat/completions", content=b"{").json()["error"]["message"] == "The request's body isn't JSON."
    )
    assert client.post("/v1/chat/completions", json=[1]).status_code == 400
    unfinished = b'{"model": "half \\ud83d"}'
    assert "isn't JSON" in client.post("/v1/chat/completions", content=unfinished).json()["error"]["message"]
    for told in (True, False):
        content = b" " * (5 * 2**20)
        answer = client.post("/v1/chat/completions", content=content if told else iter([content]))
        assert answer.status_code == 413 and answer.json()["error"]["type"] == "invalid_request_error"
    other = client.get("/v1/models", headers={"host": "evil.example"})
    assert other.status_code == 403 and "evil.example" in other.json()["error"]["message"]
    assert client.post("/v1/embeddings", json={}).json()["error"]["code"] == "unknown_url"
    for long in (
        client.post("/v1/chat/completions", json={"model": "x" * 1_000_000, "messages": ASKED}),
        client.get("/v1/models/" + "x" * 20_000),
        client.get("/v1/" + "x" * 20_000),
    ):
        assert long.status_code == 404 and len(long.text) < 1_000, "one plain line"
    monkeypatch.setattr("sftdemo.inference.line.MOST_WAITING", 0)
    busy = client.post("/v1/chat/completions", json={"model": "moods", "messages": ASKED})
    assert busy.status_code == 429 and busy.json()["error"]["type"] == "rate_limit_error"


def test_the_key_opens_it_and_nothing_else(client: httpx.Client) -> None:
    for headers in ({"authorization": ""}, {"authorization": "Bearer another"}, {"authorization": "Basic YTpi"}):
        for answer in (client.get("/v1/models", headers=headers), client.post("/v1/chat/completions", headers=headers)):
            assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key"
    rights.use(AppConfig(openai=True), "127.0.0.1")
    assert client.get("/v1/models", headers={"authorization": ""}).status_code == 200, "the owner, on this machine"
    proxied = {"authorization": "", "x-forwarded-for": "203.0.113.9"}
    assert client.get("/v1/models", headers=proxied).status_code == 401
    rights.use(AppConfig(openai=True, api_key="a secret key", password="p"), "127.0.0.1")
    for _ in range(30):  # the key is no guess at the password
        assert client.get("/v1/models").status_code == 200
    assert client.get("/gradio_api/token").status_code == 403
    signed_in = client.get("/gradio_api/token", headers={"authorization": "Bearer p"})
    assert signed_in.status_code == 200, "and no guess was counted"


@pytest.fixture
def questions(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Question]]:
    """What is asked in this test, answered slowly; called, it waits until nothing is asked any more."""
    ask(client, model="moods")
    engine = models._models().find([work.runs.named("moods")]).engine
    asked: list[Question] = []
    add, advance = Line.add, Batch.advance
    monkeypatch.setattr(Line, "add", lambda line, *question: (asked.append(question[0]), add(line, *question))[1])
    monkeypatch.setattr(Batch, "advance", lambda batch, *step: (time.sleep(0.05), advance(batch, *step))[1])

    def ended() -> list[Question]:
        deadline = time.monotonic() + 30
        while not engine.idle:
            assert time.monotonic() < deadline, "they still answer"
            time.sleep(0.01)
        return asked

    return ended


def test_a_client_that_hangs_up_leaves_the_batch(client: httpx.Client, questions: Callable[[], list[Question]]) -> None:
    body = {"model": "moods", "messages": ASKED, "max_tokens": 8192, "temperature": 0, "logit_bias": {}}
    with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as answer:
        next(answer.iter_lines())
    with pytest.raises(httpx.ReadTimeout):
        client.post("/v1/chat/completions", json=body, timeout=0.5)
    assert [question.rows[0].finish_reason for question in questions()] == ["stopped"] * 2


def test_a_page_that_is_closed_leaves_the_batch(client: httpx.Client, questions: Callable[[], list[Question]]) -> None:
    """Without a word: the connection is gone."""

    async def ask_and_close() -> None:
        async with httpx.AsyncClient(base_url=client.base_url, timeout=60) as http:
            page = Visitor(http, (await http.get("config")).json())
            opened, send = page.event(None, "load"), page.event("chat-send", "click")
            await page.do(opened, page.values(opened))
            fields = {"chat-input": ASKED[0]["content"], "GenerateConfig-max_new_tokens": 8192}
            shown = 0
            async for message in page.send(send, page.values(send, **fields), ""):
                assert message.get("success", True), message
                shown += message["msg"] == "process_generating"
                if shown == 3:
                    return

    asyncio.run(ask_and_close())
    (question,) = questions()
    assert {row.finish_reason for row in question.rows} == {"stopped"}


def test_it_is_off_unless_asked_for(built_page: Any) -> None:
    rights.use(AppConfig(), "127.0.0.1")
    assert not AppConfig().openai
    paths = {route.path for route in server.app_options(built_page)["routes"]}
    assert not [path for path in paths if path.startswith("/v1")]
