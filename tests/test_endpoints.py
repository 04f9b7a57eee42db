"""Every endpoint of the running app × owner, visitor, stranger: posted to directly, by number, by name, and route by route."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

pytest.importorskip("gradio")

from sftdemo.ui import build
from sftdemo.ui.access import guard, rights
from sftdemo.ui.access.settings import AppConfig
from tests.in_process import serving

PASSWORD = {"authorization": "Bearer secret"}
STRANGERS = ({"host": "evil.example"}, {"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"})
NOT_THERE = "/not/there"  # for every text: no endpoint finds a run, a model or data of that name
ALLOWANCES = {
    "default": {},
    "closed": {"visitors_chat": False, "visitors_vote": False},
    "open": {"visitors_evaluate": True, "visitors_train": True, "visitors_own_data": True},
}


@pytest.fixture(scope="module")
def blocks() -> Any:
    return build()


@pytest.fixture(scope="module")
def served(blocks: Any) -> Iterator[tuple[Any, str]]:
    with serving(blocks) as served:
        yield served


@pytest.fixture(params=ALLOWANCES)
def url(request: pytest.FixtureRequest, served: tuple[Any, str]) -> Iterator[str]:
    """The app as it is at a public address, with each way to allow visitors something."""
    rights.use(
        AppConfig(password="secret", visitor_waiting=10_000, all_waiting=10_000, **ALLOWANCES[request.param]), "::"
    )
    yield served[1]
    rights.use(AppConfig(), "127.0.0.1")


def visitors_may(action: rights.Action) -> bool:
    return action in rights.policy().open_to_visitors


def values(event: Any) -> list[str | None]:
    return [NOT_THERE if block.get_block_name() in ("textbox", "api") else None for block in event.inputs]


def outcomes(url: str, headers: dict[str, str], posts: dict[str, tuple[str, dict[str, Any]]]) -> dict[str, str]:
    """The error each of these posts (path and body, by any key) ends with, or ""; all in one session."""
    session = {"session_hash": f"s{abs(hash((*posts, *headers)))}"}
    with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        keys = {client.post(path, json=body | session).json()["event_id"]: key for key, (path, body) in posts.items()}
        ended = {}
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


@pytest.mark.slow
@pytest.mark.parametrize("url", ["default"], indirect=True)
def test_no_event_refuses_the_owner_or_fails_without_a_word(url: str, blocks: Any) -> None:
    errors = outcomes(url, PASSWORD, posts_of(blocks)[0])
    assert not {name: error for name, error in errors.items() if error in (*rights.REFUSED.values(), "None")}


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


def test_every_route_refuses_whom_it_must_and_nobody_else(url: str, served: tuple[Any, str]) -> None:
    listed = routes(served[0])
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
