"""Errors in the visitor's language: on the page and in the toast, of a training process, and of bugs."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

import gradio as gr
import httpx
from gradio.context import LocalContext
from gradio.state_holder import SessionState

from sftdemo import runs
from sftdemo.config import TrainConfig
from sftdemo.errors import Superseded, Text, UserError
from sftdemo.files import read_json, write_json
from sftdemo.runs.folder import MOST_ERROR
from sftdemo.ui.blocks import Blocks
from sftdemo.ui.parts import forms
from sftdemo.ui.texts.faults import in_words
from tests.in_process import owners_request, serving

HAN = re.compile("[\u4e00-\u9fff]")


@pytest.fixture(params=["zh", "en"])
def lang(request: pytest.FixtureRequest) -> Any:
    """The language of the page whose event is worked on."""
    token = LocalContext.request.set(owners_request(lang=request.param))
    yield request.param
    LocalContext.request.reset(token)


def wrong_setting() -> None:
    TrainConfig(data="x", learning_rate=7, epochs=0.0).check()


@pytest.mark.parametrize(
    ("handler", "chinese", "english"),
    [
        (lambda: runs.named("gone"), "没有运行 'gone'；名称见运行列表。", "There is no run 'gone'"),
        (
            wrong_setting,
            "“轮次”的值是 0，不能小于 0.001。“学习率”的值是 7，不能大于 1。",
            "“Learning rate” is 7; the most is 1.",
        ),
        (
            lambda: {}["/home/ann/secret"],
            "出现意外错误（KeyError），详情见日志。",
            "Something unexpected went wrong (KeyError)",
        ),
    ],
)
def test_an_error_is_said_in_the_language_of_the_page(lang, handler, chinese, english, caplog):
    place, expected = object(), {"zh": chinese, "en": english}[lang]
    with caplog.at_level(logging.ERROR, logger="sftdemo"):
        updates = forms.shown_errors(handler, place)()
        assert expected in next(updates)[place].replace("&#x27;", "'")
        with pytest.raises(gr.Error) as toast:
            next(updates)
    assert expected in toast.value.message.replace("&#x27;", "'") and "secret" not in toast.value.message
    assert ("secret" in caplog.text) == ("KeyError" in expected)  # the log has the whole of a bug
    with pytest.raises(gr.Error, match=re.escape(expected[:8])):
        forms.as_error(handler)()


def test_an_error_of_a_training_process_is_said_in_chinese_by_the_process_that_watches():
    run = runs.create("first", "unused", {"settings": {}})
    inner = Text("what fits: {ways}", ways="batch_size 4 (1 GiB)")
    bound = Text("{room} are free", room="2 GiB")
    error = UserError(
        "The training needs about {peak} at the peak, and {bound}; {remedy}; or close other programs.",
        peak="3 GiB", bound=bound, remedy=inner,
    )  # fmt: skip
    run.write_status("failed", error=error.text)
    written = read_json(run.path / "status.json")
    assert written["error"] == str(error) and written["error_key"] == error.text.key
    read = run.status()["error"]
    assert read == str(error)
    assert in_words(read, "zh") == (
        "训练峰值约需 3 GiB 内存，而可用的有 2 GiB；以下设置可行：batch_size 4 (1 GiB)，或关闭其他程序。"
    )


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"error_key": "{name!r} has no vote to take back."},
        {"error_key": "{rater!r} has no vote to take back.", "error_values": {}},
        {"error_key": "{name.__class__}", "error_values": {"name": "x"}},
        {
            "error_key": "{name} is {value!r}; the least is {low:g}.",
            "error_values": {"name": 1, "value": 2, "low": "x"},
        },
    ],
)
def test_a_status_of_an_older_or_a_damaged_run_still_opens(extra):
    run = runs.create("first", "unused", {"settings": {}})
    write_json(run.path / "status.json", {"state": "failed", "error": "KeyError: 'old'", **extra})
    assert run.status()["error"] == "KeyError: 'old'"
    assert in_words(run.status()["error"], "zh") == "KeyError: 'old'"


def test_a_process_that_ended_without_a_word_is_said_in_chinese():
    run = runs.create("first", "unused", {"settings": {}})
    run.write_status("running", pid=2**22 + 1)
    assert HAN.search(in_words(run.status()["error"], "zh"))


def test_a_handler_that_changes_nothing_leaves_its_one_output_as_it_is() -> None:
    with Blocks() as blocks:
        menu = gr.Dropdown(["a", "b"], value="a")
        gr.Button().click(dict, None, menu)
    (event,) = blocks.fns.values()
    (told,) = asyncio.run(blocks.postprocess_data(event, {}, None))
    assert told == gr.skip(), "and not the value {}, which the menu then sends with every event"


@pytest.mark.slow
def test_a_handler_is_called_once_and_a_fault_is_shown_before_its_toast() -> None:
    """Each further call costs as much as the first."""

    async def later() -> dict[Any, Any]:
        return {shown: "later"}

    def fails() -> dict[Any, Any]:
        raise UserError("Give another one.")

    def several() -> Iterator[dict[Any, Any]]:
        yield {shown: "1"}
        yield {shown: "2"}

    with Blocks() as blocks:
        shown, place = gr.Textbox(), gr.HTML()
        for handler in (lambda: {shown: "now"}, later, fails, several, lambda: several(), dict):
            forms.wire(gr.Button().click, handler, None, [shown], place)

    def heard(number: int) -> list[tuple[str, bool, Any]]:
        session = {"session_hash": f"s{number}"}
        httpx.post(f"{url}/gradio_api/queue/join", json={"data": [], "fn_index": number, **session}).raise_for_status()
        with httpx.stream("GET", f"{url}/gradio_api/queue/data", params=session, timeout=60) as stream:
            messages = [json.loads(line[5:]) for line in stream.iter_lines() if line.startswith("data:")]
        return [
            (message["msg"].removeprefix("process_"), message["success"], message["output"].get("data"))
            for message in messages
            if message["msg"] in ("process_generating", "process_completed")
        ]

    with serving(blocks) as (_, url):
        now, after, failed, *streams, nothing = (heard(number) for number in sorted(blocks.fns))
    assert now == [("completed", True, ["now", ""])] and after == [("completed", True, ["later", ""])]
    (first, _, data), last = failed
    assert first == "generating" and "Give another one." in data[1] and last == ("completed", False, None)
    for stream in streams:
        assert [kind for kind, *_ in stream] == ["generating", "generating", "completed"]
    assert nothing == [("completed", True, [{"__type__": "update"}, ""])]


def test_an_error_that_somebody_made_long_is_cut(home: Path) -> None:
    run = runs.create("r", "r", {})
    run.write_status("failed", error=Text("x" * 10**6))
    assert len(run.status()["error"]) == MOST_ERROR + 1


def test_a_generator_that_has_nothing_to_say_empties_nothing() -> None:
    import gradio as gr

    async def nothing_async(text: str) -> AsyncIterator[dict[Any, Any]]:
        for update in ():
            yield update

    def nothing(text: str) -> Iterator[dict[Any, Any]]:
        yield from ()

    def superseded(text: str) -> Iterator[dict[Any, Any]]:
        raise Superseded("other data")
        yield {}

    with gr.Blocks() as blocks:
        text, other, place = gr.Textbox("kept"), gr.Textbox("kept, too"), gr.HTML("")
        for handler, at in product((nothing, nothing_async, superseded), (place, None)):
            if handler is not superseded or at:
                forms.wire(text.change, handler, [text], [text, other], at)
    for event in blocks.fns.values():
        reply = asyncio.run(blocks.process_api(event, ["kept"], state=SessionState(blocks)))
        assert all(part and "value" not in part for part in reply["data"]), reply["data"]
