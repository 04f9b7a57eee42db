"""Who may do what: the sender of a request by where it comes from, and what each may do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("gradio")

from gradio.context import LocalContext

from sftdemo import runs
from sftdemo.config import TrainConfig
from sftdemo.errors import UsageError, UserError
from sftdemo.ui.access import rights, sources
from sftdemo.ui.access.hosts import Hosts
from sftdemo.ui.access.settings import AppConfig


@pytest.fixture(autouse=True)
def policy() -> Iterator[None]:
    yield
    rights.use(AppConfig(), "127.0.0.1")


def sent(client: str = "127.0.0.1", host: str = "127.0.0.1:7860", method: str = "POST", **headers: str) -> Any:
    """A request as handlers get it."""
    raw = [("host", host), *((name.replace("_", "-"), value) for name, value in headers.items())]
    pairs = [(name.encode(), value.encode()) for name, value in raw]
    scope = {"type": "http", "method": method, "client": (client, 5000), "headers": pairs}
    return SimpleNamespace(request=SimpleNamespace(scope=scope))


@pytest.mark.parametrize(
    ("bound", "request_", "role"),
    [
        ("127.0.0.1", sent(), "owner"),
        ("127.0.0.1", sent(host="localhost:9000", origin="http://localhost:9000"), "owner"),
        ("::1", sent("::1", "[::1]:7860"), "owner"),
        ("127.0.0.1", sent(x_forwarded_for="203.0.113.9"), "visitor"),
        ("127.0.0.1", sent(forwarded="for=127.0.0.1"), "visitor"),
        ("127.0.0.1", sent(host="evil.example"), "stranger"),
        ("127.0.0.1", sent(host="192.168.1.5:7860"), "stranger"),
        ("127.0.0.1", sent(host="127.0.0.1.evil.example"), "stranger"),
        ("127.0.0.1", sent(host=""), "stranger"),
        ("127.0.0.1", sent(origin="https://evil.example"), "stranger"),
        ("127.0.0.1", sent(origin="http://127.0.0.1:3000"), "stranger"),
        ("127.0.0.1", sent(origin="null"), "stranger"),
        ("127.0.0.1", sent(sec_fetch_site="cross-site"), "stranger"),
        ("127.0.0.1", sent(method="GET", sec_fetch_site="cross-site", sec_fetch_mode="navigate"), "owner"),
        ("127.0.0.1", sent(x_forwarded_host="evil.example"), "stranger"),
        ("0.0.0.0", sent(), "visitor"),
        ("0.0.0.0", sent("192.168.1.9", "192.168.1.5:7860"), "visitor"),
        ("0.0.0.0", sent("192.168.1.9", "evil.example"), "stranger"),
    ],
)
def test_who_sent_it(bound: str, request_: Any, role: str) -> None:
    rights.use(AppConfig(), bound)
    assert rights.visitor(request_).role == role


UNTOLD = [[sent()], SimpleNamespace(), SimpleNamespace(request=None), SimpleNamespace(request=[sent()]), "owner", {}]


def test_what_does_not_tell_who_sent_it_is_nobodys() -> None:
    """As the list that Gradio makes of an event which says that it is several: it was the owner's, wherever the app stands."""
    handler = rights.guarded(rights.current, "look")
    for bound, alone in (("127.0.0.1", "owner"), ("0.0.0.0", "stranger")):
        rights.use(AppConfig(password="" if alone == "owner" else "a long one"), bound)
        for request in (*UNTOLD, *([None] if alone == "stranger" else [])):
            token = LocalContext.request.set(request)
            assert rights.visitor(request).role == rights.current().role == "stranger", request
            with pytest.raises(UserError, match="can't be used from here"):
                handler()
            LocalContext.request.reset(token)
        assert rights.visitor(None).role == rights.current().role == alone, "as a call from Python"


def test_what_the_app_does_by_itself_is_done_for_its_owner() -> None:
    """And a request within it is still its sender's."""
    rights.use(AppConfig(password="a long one"), "0.0.0.0")
    hidden = runs.annotate(runs.create("hidden", "", {"settings": {}}), seen=False)
    assert hidden["visitors"] == "hidden" and runs.list_runs() == []
    assert [run.name for run in rights.for_owner()(runs.list_runs)()] == ["hidden"] and runs.list_runs() == []
    for request in (sent(), *UNTOLD):
        token = LocalContext.request.set(request)
        assert rights.for_owner()(rights.current)().role == rights.visitor(request).role != "owner"
        LocalContext.request.reset(token)


@pytest.mark.parametrize("name", ["teacher", "from_run"])
def test_an_owner_over_the_network_names_runs_and_no_folders(name: str, tmp_path: Path) -> None:
    rights.use(AppConfig(password="a long one"), "0.0.0.0")
    run = runs.create("t", "", {"settings": {}})
    owner = rights.Visitor("owner", "k")
    sources.check(TrainConfig.from_json({"data": "support_tickets", name: "t"}), owner)
    with pytest.raises(UserError):
        sources.check(TrainConfig.from_json({"data": "support_tickets", name: str(run.path)}), owner)


def test_a_password_makes_everybody_sign_in() -> None:
    rights.use(AppConfig(password="a long one"), "127.0.0.1")
    assert rights.visitor(sent()).role == "visitor"


def test_settings_open_what_visitors_may(monkeypatch: pytest.MonkeyPatch) -> None:
    rights.use(AppConfig(visitors_vote=False, visitors_train=True), "0.0.0.0")
    allowed = {action for action in rights.ACTIONS if rights.visitor(sent()).may(action)}
    assert allowed == {"look", "chat", "train"}
    with pytest.raises(UserError, match="owner"):
        rights.require(sent(), "manage")
    monkeypatch.setenv("SFTDEMO_VISITORS_CHAT", "maybe")
    with pytest.raises(UsageError, match="SFTDEMO_VISITORS_CHAT is 'maybe'"):
        AppConfig.from_environment()
    monkeypatch.setenv("SFTDEMO_VISITORS_CHAT", "no")
    assert (
        not AppConfig.from_environment().visitors_chat and AppConfig.from_environment(visitors_chat=True).visitors_chat
    )


def test_a_proxys_client_is_counted_not_the_proxy() -> None:
    rights.use(AppConfig(password="a long one", proxies="10.0.0.1, 10.1.0.0/16"), "0.0.0.0")
    addresses = {
        rights.visitor(sent("10.0.0.1", x_forwarded_for=f"{made_up}, 198.41.0.4, 10.1.1.1")).address
        for made_up in ("8.8.8.8", "9.9.9.9")
    }
    assert addresses == {"198.41.0.4"}
    household = {rights.visitor(sent(f"2606:4700::{last}", "[::1]")).address for last in "12"}
    assert household == {"2606:4700::"}


@pytest.mark.parametrize("peer", ["10.0.0.2", "192.168.1.5", "198.41.0.4", "fd00::5"])
def test_nobody_but_a_named_proxy_says_who_asks(peer: str) -> None:
    rights.use(AppConfig(password="a long one", proxies="10.0.0.1"), "0.0.0.0")
    told = {"x_forwarded_for": "203.0.113.9", "x_forwarded_host": "evil.example", "x_forwarded_proto": "https"}
    request = sent(peer, **told).request
    assert rights.visitor(SimpleNamespace(request=request)).address == ("fd00::" if ":" in peer else peer)
    rights.policy().hosts.drop_made_up(request.scope)
    assert [name for name, _ in request.scope["headers"]] == [b"host"]
    for proxy in ("10.0.0.1", "127.0.0.1", "::ffff:10.0.0.1"):
        request = sent(proxy, **told).request
        rights.policy().hosts.drop_made_up(request.scope)
        assert len(request.scope["headers"]) == 4 and rights.policy().hosts.sender(request.scope) == "203.0.113.9"


def test_a_space_has_a_proxy_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    scope = sent("10.16.3.4", x_forwarded_for="8.8.8.8, 198.41.0.4, 10.16.1.1").request.scope
    assert Hosts("0.0.0.0", []).sender(scope) == "10.16.3.4"
    monkeypatch.setenv("SPACE_ID", "me/demo")
    assert Hosts("0.0.0.0", []).sender(scope) == "198.41.0.4"


def test_proxies_are_addresses() -> None:
    with pytest.raises(UsageError, match="names 'proxy:7860', which is no address"):
        rights.use(AppConfig(proxies="10.0.0.1,proxy:7860"), "0.0.0.0")


def test_names_allowed_beside_its_own() -> None:
    hosts = Hosts("127.0.0.1", ["sft.example.org"])
    assert hosts.knows("sft.example.org:443") and hosts.knows("SFT.example.org.")
    assert not hosts.knows("sft.example.org.evil.example") and not hosts.knows("sft.example.org@evil.example")


def test_every_event_says_what_it_needs(built_page: Any) -> None:
    for event in built_page.fns.values():
        if event.fn and event.fn.__name__ != "_check_login_status":
            assert event.fn.needs in rights.ACTIONS, event.fn
