"""Every endpoint of the running app × owner, visitor, stranger: posted to directly, by number, by name, and route by route."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("gradio")

from sftdemo.log import LOG
from sftdemo.ui.access import guard, rights, sessions
from sftdemo.ui.access.settings import AppConfig
from tests.test_ui import add_evaluation, made_run

pytestmark = pytest.mark.slow

PASSWORD = {"authorization": "Bearer secret"}
STRANGERS = ({"host": "evil.example"}, {"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"})
NOT_THERE = "/not/there"  # for every text: no endpoint finds a run, a model or data of that name
ALLOWANCES = {
    "default": {},
    "closed": {"visitors_chat": False, "visitors_vote": False},
    "open": {"visitors_evaluate": True, "visitors_train": True, "visitors_own_data": True},
}


@pytest.fixture
def blocks(built_page: Any) -> Any:
    return built_page


@pytest.fixture(params=ALLOWANCES)
def url(request: pytest.FixtureRequest, running_app: tuple[Any, str]) -> Iterator[str]:
    """The app as it is at a public address, with each way to allow visitors something."""
    sessions._holders.clear()  # those of other visitors, in the test before
    rights.use(
        AppConfig(password="secret", visitor_waiting=10_000, all_waiting=10_000, **ALLOWANCES[request.param]), "::"
    )
    yield running_app[1]
    rights.use(AppConfig(), "127.0.0.1")


def visitors_may(action: rights.Action) -> bool:
    return action in rights.policy().open_to_visitors


def values(event: Any) -> list[str | None]:
    return [NOT_THERE if block.get_block_name() in ("textbox", "api") else None for block in event.inputs]


def outcomes(
    url: str, headers: dict[str, str], posts: dict[str, tuple[str, dict[str, Any]]], session_hash: str = ""
) -> dict[str, str]:
    """The error each of these posts (path and body, by any key) ends with, or ""; all in one session."""
    session = {"session_hash": session_hash or f"s{abs(hash((*posts, *headers)))}"}
    with httpx.Client(base_url=url, headers={"content-type": "application/json"} | headers, timeout=60) as client:
        keys, ended = {}, {}
        for key, (path, body) in posts.items():
            reply = client.post(path, content=json.dumps(body | session)).json()  # NaN, which httpx writes for nobody
            if "event_id" in reply:
                keys[reply["event_id"]] = key
            else:
                ended[key] = str(reply["detail"])
        with client.stream("GET", "/gradio_api/queue/data", params=session) as stream:
            for line in stream.iter_lines():
                message = json.loads(line.removeprefix("data:")) if line else {}
                if message.get("msg") == "process_completed":
                    ended[keys[message["event_id"]]] = "" if message["success"] else str(message["output"]["error"])
                if len(ended) == len(posts):
                    return ended
    raise AssertionError(f"no end of {set(posts) - set(ended)}")


def posts_of(
    blocks: Any, by_name: bool = False
) -> tuple[dict[str, tuple[str, dict[str, Any]]], dict[str, rights.Action]]:
    """A post to each event by its number, or by its name; and what the event needs."""
    posts: dict[str, tuple[str, dict[str, Any]]] = {}
    needs = {}
    for number, event in blocks.fns.items():
        if event.fn is None or any(trigger == "unload" for _, trigger in event.targets):
            continue
        way, body = (f"call/{event.api_name}", {}) if by_name else ("queue/join", {"fn_index": number})
        posts[event.api_name] = (guard.API + way, {"data": values(event)} | body)
        needs[event.api_name] = event.fn.needs
    return posts, needs


@pytest.mark.parametrize(
    ("url", "by_name"),
    [
        ("default", False),
        *(pytest.param(name, False, marks=pytest.mark.slow) for name in ALLOWANCES if name != "default"),
        pytest.param("default", True, marks=pytest.mark.slow),
    ],
    indirect=["url"],
)
def test_every_event_refuses_whom_it_must_and_nobody_else(url: str, blocks: Any, by_name: bool) -> None:
    posts, needs = posts_of(blocks, by_name)
    assert set(rights.ACTIONS) == set(needs.values()) and len(posts) > 90
    errors = outcomes(url, {}, posts)
    wrong = [
        f"{name}: {error!r}"
        for name, error in errors.items()
        if (error == rights.REFUSED[needs[name]]) is visitors_may(needs[name])
    ]
    assert not wrong
    queue = blocks._queue
    assert len(queue.event_analytics) == 1 and not queue.cached_event_analytics_summary["functions"], (
        "no sums of events"
    )


@pytest.mark.parametrize("url", ["default"], indirect=True)
def test_no_event_refuses_the_owner_or_fails_without_a_word(url: str, blocks: Any) -> None:
    errors = outcomes(url, PASSWORD, posts_of(blocks)[0])
    assert not {name: error for name, error in errors.items() if error in (*rights.REFUSED.values(), "None")}


@pytest.mark.parametrize("url", ["default"], indirect=True)
def test_values_of_another_kind_are_one_line_each(url: str, blocks: Any) -> None:
    """Whether a handler meets them, or a component that can't show what it comes to."""
    public = ("compare", "vote_next", "vote")
    names = [*public, *(event.api_name for event in blocks.fns.values() if event.api_name.startswith("lambda"))]
    numbers = {event.api_name: number for number, event in blocks.fns.items()}
    posts = {}
    for name in names:
        inputs = len(blocks.fns[numbers[name]].inputs)
        data = {"compare": ["r", {"a": 1}, 8, 0, 1]}.get(name, [{"a": 1}] * inputs)
        posts[name] = (guard.API + "queue/join", {"data": data, "fn_index": numbers[name]})
    errors = outcomes(url, {}, posts)
    assert all(
        "give a value of type" in errors[name] or "must be text" in errors[name] or "can't be" in errors[name]
        for name in public
    ), errors
    assert not [name for name, error in errors.items() if error == "None" or "\n" in error]


ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**400,
    1e308,
    float("nan"),
    float("-inf"),
    "",
    "x" * 100_000,
    "../../../etc/passwd",
    "{name!r}{0.__class__}{{ 1/0 }}\x00\x1b[31m\u202e<img src=x>",
    ["r", "r", "", None, 5, "../x"],
    [[[["deep"]]], {"a": {"b": [None, 1.5]}}],
    {"now": {"turns": [{"text": "x", "answers": {"": {"seconds": float("nan"), "tokens": 10**300}}}]}},
    {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}, "url": "http://127.0.0.1:1/"},
    {"open": {"now": {"turns": [{"text": "x", "answers": {"": {"seconds": 1e308, "tokens": -(10**30)}}}]}}},
)
LOADS_MODELS = ("chat", "share", "manage", "evaluate", "train")  # what needs these is posted to in a slow test,
# and so is what these handle, who read data or compute
SLOW_HANDLERS = (
    "DataTab",
    "RowsView",
    "Editing",
    "RowLeads",
    "TrainTab.follow_form",
    "ReportButton",
    "ComparePanel",
    "VoteResults",
)


def odd_posts(blocks: Any, quick: bool) -> dict[str, tuple[str, dict[str, Any]]]:
    """A post to each event, or to each that takes no time, each of its values and what was clicked on another odd one."""
    posts: dict[str, tuple[str, dict[str, Any]]] = {}
    for number, event in blocks.fns.items():
        if event.fn is None or any(way == "unload" for _, way in event.targets):
            continue
        if quick and (event.fn.needs in LOADS_MODELS or event.fn.__qualname__.startswith(SLOW_HANDLERS)):
            continue
        first = number * 7
        data = [ODD[(first + place) % len(ODD)] for place in range(len(event.inputs))]
        body = {"fn_index": number, "data": data, "event_data": {"value": ODD[first % len(ODD)]}, "trigger_id": first}
        posts[event.api_name] = (guard.API + "queue/join", body)
    return posts


def opened(blocks: Any, quick: bool) -> dict[str, tuple[str, dict[str, Any]]]:
    """What a page sends as it is opened, so that its session has a run, and data."""
    return {
        event.api_name: (guard.API + "queue/join", {"fn_index": number, "data": [None] * len(event.inputs)})
        for number, event in blocks.fns.items()
        if event.fn and any(way == "load" for _, way in event.targets)
        if not (quick and event.fn.__qualname__.startswith(SLOW_HANDLERS))
    }


def files_in(home: Path) -> set[Path]:
    """All but what is read, and the votes file, which is made by who looks at the first pair."""
    return {path for path in home.rglob("*") if path.is_file() and "tmp" not in path.parts and "votes" not in path.name}


@pytest.mark.parametrize("url", ["open"], indirect=True)
@pytest.mark.parametrize(
    ("role", "quick"),
    [("visitor", True), *(pytest.param(role, False, marks=pytest.mark.slow) for role in ("visitor", "owner"))],
)
def test_odd_values_are_one_line_each_and_leave_nothing(
    url: str,
    blocks: Any,
    home: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    role: str,
    quick: bool,
) -> None:
    """Numbers for texts, null, NaN, lists, texts without end, other files: whatever a page's events are sent."""
    add_evaluation(made_run("open"))
    monkeypatch.setattr(LOG, "propagate", True)
    headers, session = PASSWORD if role == "owner" else {}, f"odd {role} {quick}"
    outcomes(url, headers, opened(blocks, quick), session)
    before = files_in(home)
    errors = outcomes(url, headers, odd_posts(blocks, quick), session)
    wrong = {
        name: error[:200]
        for name, error in errors.items()
        if error == "None" or "\n" in error or len(error) > 1000 or "unexpected" in error or str(home) in error
    }
    assert len(errors) > 40 and not wrong
    kept = {key: len(repr(value)) for key, value in blocks.state_holder.session_data[session].state_data.items()}
    assert sum(kept.values()) < 100_000, kept
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert role == "owner" or files_in(home) == before


@pytest.mark.parametrize("url", ["open"], indirect=True)
def test_strangers_reach_no_event(url: str, blocks: Any) -> None:
    posts, _ = posts_of(blocks)
    with httpx.Client(base_url=url, timeout=60) as client:
        for stranger in STRANGERS:
            assert {
                client.post(path, json=body, headers=PASSWORD | stranger).status_code for path, body in posts.values()
            } == {403}


@pytest.mark.parametrize("url", ["default"], indirect=True)
def test_queued_events_take_no_direct_posts(url: str, blocks: Any) -> None:
    with httpx.Client(base_url=url, headers=PASSWORD) as client:
        for event in blocks.fns.values():
            reply = client.post(f"/gradio_api/run/{event.api_name}", json={"data": values(event)})
            assert (reply.status_code == 404) if event.queue else (event.fn is None), event.api_name


def routes(app: Any) -> list[tuple[str, str]]:
    """(method, path) of all that the app serves, with something in the place of parameters."""
    found = []

    def walk(nodes: Any) -> None:
        for node in nodes:
            if inner := getattr(node, "original_router", None):
                walk(inner.routes)
                continue
            path = re.sub(r"\{\w+(:\w+)?\}", "1", node.path)
            found.extend((method, path) for method in sorted(node.methods or ()))

    walk(app.routes)
    return found


def test_every_route_refuses_whom_it_must_and_nobody_else(url: str, running_app: tuple[Any, str]) -> None:
    listed = routes(running_app[0])
    assert ("POST", "/gradio_api/upload") in listed and ("GET", "/login") in listed and len(listed) > 60
    wrong = []
    with httpx.Client(base_url=url, timeout=20) as client:
        for method, path in listed:
            if method == "GET" and re.search("heartbeat|queue/data|dev/reload|/1/1$", path):
                statuses = [open_status(client, path, headers) for headers in ({}, *STRANGERS)]
            else:
                statuses = [client.request(method, path, headers=headers).status_code for headers in ({}, *STRANGERS)]
            allowed = visitors_may(guard.needs(path))
            if (statuses[0] == 403) is allowed or set(statuses[1:]) != {403}:
                wrong.append(f"{method} {path}: {statuses}")
    assert not wrong


def open_status(client: httpx.Client, path: str, headers: dict[str, str]) -> int:
    """The status of a route that goes on for ever."""
    with client.stream("GET", path, params={"session_hash": "none"}, headers=headers) as reply:
        return reply.status_code
