"""Whose a page is: sessions by cookie and address, how many are kept, and the key that signs the cookies."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

from sftdemo.ui.access import cookies, rights, sessions
from sftdemo.ui.access.settings import AppConfig


@pytest.fixture
def own_sessions(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Whether a session is a visitor's, of an app that knows none yet."""
    monkeypatch.setattr(sessions, "_holders", sessions.OrderedDict())
    rights.use(AppConfig(), "0.0.0.0")
    yield lambda session, sender: sessions.refusal(session, sender) is None
    rights.use(AppConfig(), "127.0.0.1")


HERE, THERE = "198.41.0.4", "198.41.0.5"


def browser(key: str, address: str = HERE, since: float = 0.0) -> rights.Visitor:
    return rights.Visitor("visitor", key, address=address, browser=True, since=since)


def test_sessions_are_forgotten_only_when_there_are_many(own_sessions: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MOST_KEPT", 3)
    ann, bob = browser("ann"), browser("bob")
    assert all(own_sessions(f"forgotten {number}", ann) for number in range(4))
    assert own_sessions("forgotten 0", bob) and not own_sessions("forgotten 3", bob)


def test_a_session_without_a_cookie_is_the_browsers_once_it_has_one(own_sessions: Any) -> None:
    """A restart voids a cookie while its page is open, and another tab of the browser brings a new one."""
    open_page, elsewhere = (rights.Visitor("visitor", rights.key_of(place), address=place) for place in (HERE, THERE))
    ann, bob = browser("ann"), browser("bob")
    assert own_sessions("page", open_page)
    assert not own_sessions("page", elsewhere) and not own_sessions("page", browser("eve", THERE))
    assert own_sessions("page", ann) and own_sessions("page", ann)
    assert not own_sessions("page", bob) and not own_sessions("page", open_page), "once"


def test_two_tabs_at_once_on_a_first_visit_are_one_browser(own_sessions: Any) -> None:
    """Each is opened without a cookie and gets one of its own; the browser keeps the later, for the earlier page, too."""
    now = time.time()
    first, second = browser("first", since=now - 2), browser("second", since=now - 1)
    assert own_sessions("page", first) and own_sessions("page", second) and own_sessions("page", first)
    for other in (browser("eve", THERE, now), browser("bob"), browser("later", since=now + 30)):
        assert not own_sessions("page", other)
    long_here, beside = (browser(key, since=now - 900) for key in ("long here", "beside"))
    assert own_sessions("another page", long_here) and not own_sessions("another page", beside)


def test_one_address_does_not_push_out_others_pages(own_sessions: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "PAGES_AN_HOUR", 3)
    assert all(own_sessions(f"page {number}", browser(f"new cookie {number}")) for number in range(3))
    assert sessions.refusal("one more", browser("ann")) == (429, sessions.TOO_MANY)
    assert own_sessions("page 0", browser("new cookie 0")) and own_sessions("elsewhere", browser("bob", THERE))
    assert own_sessions("the owner's", rights.Visitor("owner", "o", address=HERE))


def test_the_first_key_of_a_home_stays(tmp_path: Path) -> None:
    """Two apps that are started at once on one home sign with the same."""
    path = tmp_path / "browsers.key"
    for number, kept in ((b"1", b"1"), (b"2", b"1")):
        part = tmp_path / "part"
        part.write_bytes(number * cookies.KEY_BYTES)
        cookies._keep_first(part, path)
        assert path.read_bytes() == kept * cookies.KEY_BYTES and not part.exists()
    path.write_bytes(b"half")
    part.write_bytes(b"3" * cookies.KEY_BYTES)
    cookies._keep_first(part, path)
    assert path.read_bytes() == b"3" * cookies.KEY_BYTES
