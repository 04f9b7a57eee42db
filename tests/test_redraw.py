"""Another language on the page as it stands: the server's texts are drawn anew, and nothing that the user has is touched."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("gradio")

import gradio as gr

from sftdemo.errors import UserError
from sftdemo.ui.access.allowance import is_counted
from sftdemo.ui.parts import redraw, style
from sftdemo.ui.texts import label

pytestmark = pytest.mark.slow

# Drawn once at a click, and drawn anew by the next one: faults, what was done, and what would have to be asked again.
OF_A_CLICK = {
    "chat-fault", "chat-note", "compare-fault", "data-fault", "evaluate-fault", "export-fault", "import-fault", "import-view",
    "kept-fault", "kept-undo-note", "push-fault", "rate-fault", "results-fault", "rows-files", "runs-fault", "runs-undo-note",
    "train-fault", "vote-fault", "vote-said", "why-answer", "work-fault",
}  # fmt: skip


@pytest.fixture
def blocks(built_page: Any) -> Any:
    return built_page


def events_of(blocks: Any, triggers: set[int]) -> list[Any]:
    return [event for event in blocks.fns.values() if triggers & {number for number, _ in event.targets}]


def redraws_of(blocks: Any) -> tuple[list[Any], list[Any]]:
    """The events of a switch, and those that follow one which only counts it, see redraw_where."""
    at_once = events_of(blocks, {id for id, part in blocks.blocks.items() if part.elem_id == "language-switched"})
    counts = {part._id for event in at_once if event.name == "count_switch" for part in event.outputs}
    return at_once, events_of(blocks, counts)


def test_every_tab_is_given_its_name_at_a_switch(blocks: Any) -> None:
    """Those that were never opened, too: Gradio translates the others alone."""
    tabs = {number for number, part in blocks.blocks.items() if isinstance(part, gr.Tab)}
    assert len(tabs) > 6 and tabs <= {part._id for event in redraws_of(blocks)[0] for part in event.outputs}


def test_every_button_is_given_its_name_at_a_switch_but_those_that_say_what_is_the_case(blocks: Any) -> None:
    given = {part.elem_id for part in redraw.named(blocks)}
    assert given <= {part.elem_id for event in redraws_of(blocks)[0] for part in event.outputs}
    assert {"to-chat", "stop-evaluate", "row-close", "chat-send"} <= given and not given & set(redraw.STATED)


def test_a_page_is_drawn_in_another_language_at_once(blocks: Any) -> None:
    """By one event on each of the two pages: of a dozen, each comes when it comes."""
    names = [event.name for event in redraws_of(blocks)[0]]
    assert sorted(names) == ["count_switch", "count_switch", "draw_all", "draw_all"]


def test_every_text_of_the_page_has_a_handler_that_draws_it_anew(blocks: Any) -> None:
    switched, written = set(), {}
    at_once, later = redraws_of(blocks)
    redraws = at_once + later
    for event in blocks.fns.values():
        for part in event.outputs:
            if event in redraws:
                switched.add(part._id)
            elif isinstance(part, gr.HTML | gr.Markdown):
                written[part._id] = part
    assert switched
    left = {part.elem_id or part._id for number, part in written.items() if number not in switched}
    assert left <= OF_A_CLICK


def test_a_switch_of_the_language_is_never_refused_for_what_is_not_there(blocks: Any) -> None:
    at_once, later = redraws_of(blocks)
    assert not [event.name for event in at_once if is_counted(event)]
    assert [event.name for event in later] == ["compare", "compare"], "runs beside each other, and systems"
    for event in at_once:
        if event.name == "count_switch":
            count = inspect.unwrap(event.fn)
            assert count([], 1) == count(None, 1) == {} and count(["run"], 1) == {event.outputs[0]: 2}


def test_only_texts_are_taken_of_what_a_handler_draws() -> None:
    with gr.Blocks():
        sheet, go, name, menu, other = gr.HTML(), gr.Button(), gr.Textbox(), gr.Dropdown(), gr.State("")

    def draw() -> Any:
        yield {sheet: "old", other: "changed"}
        yield {
            sheet: "Neu",
            go: gr.update(value="Los", visible=False),
            name: "",
            menu: gr.update(choices=["x"], value="x"),
        }

    shown = redraw.texts_alone(draw, [sheet, go, name, menu])()
    assert shown == {
        sheet: gr.update(value="Neu"),
        go: gr.update(value="Los"),
        name: gr.skip(),
        menu: gr.update(choices=["x"]),
    }
    assert redraw.text_of(go, gr.update(value=label("stop_keep"))) == gr.skip(), "Gradio translates labels"


def refuse() -> dict[Any, Any]:
    raise UserError("There is no run {name!r}.", name="gone")


@pytest.mark.parametrize("handler", [refuse, lambda: None, dict])
def test_what_is_gone_stays_as_it_was_drawn(handler: Callable[..., Any]) -> None:
    with gr.Blocks():
        sheet = gr.HTML()
    assert redraw.texts_alone(handler, [sheet])() == {sheet: gr.skip()}


# What the head's script asks of a browser, and what it wrote as cookies.
BROWSER_JS = """
const cookies = [], listen = () => {}, top = {}, window = {top, addEventListener: listen};
if (!FRAMED) window.top = window;
const document = {set cookie(text) { cookies.push(text); }, documentElement: {}, addEventListener: listen};
const location = {protocol: PROTOCOL, href: "https://example.org/"}, addEventListener = listen, setInterval = listen, setTimeout = listen;
const stored = {"sftdemo-lang": "zh"}, localStorage = {getItem: (name) => stored[name]}, sessionStorage = {getItem: listen};
class MutationObserver { observe() {} }
Object.defineProperty(globalThis, "navigator", {value: {language: "en"}, configurable: true});
"""


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
@pytest.mark.parametrize("framed", [False, True])
@pytest.mark.parametrize("protocol", ["http:", "https:"])
def test_the_chosen_language_is_sent_from_a_frame_of_another_site(framed: bool, protocol: str) -> None:
    script = BROWSER_JS.replace("FRAMED", json.dumps(framed)).replace("PROTOCOL", json.dumps(protocol))
    script += style.HEAD.split("<script>")[1].split("</script>")[0] + "console.log(cookies.join());"
    ran = subprocess.run(["node", "-e", script], capture_output=True, text=True, timeout=60)
    assert ran.stdout.startswith("sftdemo_lang=zh;path=/;"), ran.stderr
    assert ("SameSite=None;Secure;Partitioned" in ran.stdout) == (framed and protocol == "https:")
    assert ("SameSite=Lax" in ran.stdout) != (framed and protocol == "https:")


def test_each_handler_gets_what_it_is_told_and_one_that_fails_takes_nothing_from_the_others() -> None:
    with gr.Blocks() as blocks:
        run, menu = gr.State("run"), gr.Dropdown(["x"], value="x")
        first, second, third, fourth = (gr.HTML(elem_id=f"part {number}") for number in range(4))
        page = SimpleNamespace(language_switched=redraw.language_switch(), redraws=[], blocks=blocks)

    def by_place(run: str, request: gr.Request, chosen: str) -> dict[Any, Any]:
        return {first: f"{run} {chosen} {request.cookies['sftdemo_lang']}"}

    def by_name(request: gr.Request, of: str) -> Iterator[dict[Any, Any]]:
        yield {second: of}

    def broken(run: str) -> dict[Any, Any]:
        raise ValueError(run)

    with blocks:
        redraw.redraw(page, by_place, [run, menu], [first])
        redraw.redraw(page, broken, [run], [fourth])
        redraw.redraw(page, by_name, {"of": menu}, [second])
        redraw.redraw(page, lambda: {third: "always"}, None, [third])
        redraw.redraw_all(page, {})
    (event,) = [event for event in blocks.fns.values() if event.name == "draw_all"]
    assert event.inputs == [run, menu]
    asked = SimpleNamespace(headers={}, cookies={"sftdemo_lang": "zh"})
    drawn = inspect.unwrap(event.fn)(asked, "run", "x")
    assert {part: text["value"] for part, text in drawn.items() if text != gr.skip()} == {
        first: "run x zh",
        second: "x",
        third: "always",
    }


def test_a_chat_is_drawn_anew_with_the_columns_that_are_chosen(blocks: Any) -> None:
    (drawn_by,) = [
        event
        for event in redraws_of(blocks)[0]
        if "chat-now" in {getattr(part, "elem_id", "") for part in event.outputs}
    ]
    assert "chat-beside" in {getattr(part, "elem_id", "") for part in drawn_by.inputs}
