"""The door of a running app: hosts, origins, routes, cookies, and the owner's sign-in."""

from __future__ import annotations

import base64
import gzip
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

pytest.importorskip("gradio")

import gradio as gr

from sftdemo.errors import UsageError
from sftdemo.log import LOG
from sftdemo.ui import launch
from sftdemo.ui.access import guard, payload, rights
from sftdemo.ui.access.settings import AppConfig
from sftdemo.ui.texts import i18n

pytestmark = pytest.mark.slow

OWNERS_ROUTE = "/gradio_api/token"  # 200 for the owner, 403 for everybody else
PASSWORD = "correct horse"
BROWSER = {"accept": "text/html"}
JSON = {"content-type": "application/json"}


@pytest.fixture
def url(running_app: tuple[object, str]) -> Iterator[str]:
    """The address; before and after each test, only its machine reaches the app."""
    rights.use(AppConfig(), "127.0.0.1")
    yield running_app[1]
    rights.use(AppConfig(), "127.0.0.1")


@pytest.fixture
def public(url: str) -> str:
    """The same app as one that listens beyond loopback, with a password."""
    rights.use(AppConfig(password=PASSWORD), "0.0.0.0")
    return url


def owns(url: str, **options: object) -> bool:
    status = httpx.get(url + OWNERS_ROUTE, **options).status_code  # type: ignore[arg-type]
    assert status in (200, 403)
    return status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "192.168.1.5", "", "a@127.0.0.1", "127.0.0.1/x", "127.0.0.1:x", "[::1"],
)
@pytest.mark.parametrize(
    "path", ["/", "/config", "/gradio_api/queue/data?session_hash=x", "/gradio_api/file=/etc/hosts"]
)
def test_other_hosts_get_nothing(url: str, host: str, path: str) -> None:
    reply = httpx.get(url + path, headers={"host": host})
    assert reply.status_code in (400, 403) and len(reply.content) < 500


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://127.0.0.1:1",
        "http://localhost.evil.example",
        "https://[evil",
        "https://[v1.x]:0",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_pages_of_other_sites_get_nothing(public: str, origin: str, method: str) -> None:
    for path in ("/gradio_api/queue/join", "/gradio_api/upload", "/config", "/login"):
        headers = {"origin": origin, "access-control-request-method": "POST"}
        reply = httpx.request(method, public + path, headers=headers)
        assert reply.status_code == 403
        assert not [name for name in reply.headers if name.startswith("access-control")]


def test_the_apps_own_page_may_post(url: str) -> None:
    reply = httpx.post(url + "/gradio_api/call/runs", json={"data": []}, headers={"origin": url})
    assert reply.status_code == 200 and "access-control-allow-origin" not in reply.headers


def test_pages_load_from_here_alone_and_a_browser_gets_its_cookie_once(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with httpx.Client(base_url=url) as browser:
        reply = browser.get("/")
        rules = reply.headers["content-security-policy"]
        assert "default-src 'self'" in rules and "frame-ancestors 'self'" in rules and "http" not in rules
        assert reply.headers["x-content-type-options"] == "nosniff"
        cookie = reply.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and "Secure" not in cookie
        assert "set-cookie" not in browser.get("/").headers
        browser.cookies.set("sftdemo_visitor", cookie.partition("=")[2].replace("a", "b").partition(";")[0])
    secure = httpx.get(url, headers={"x-forwarded-proto": "https"}).headers["set-cookie"]
    assert "Secure" in secure
    monkeypatch.setenv("SPACE_ID", "me/demo")
    assert "https://huggingface.co" in guard.content_policy()


def test_a_made_up_cookie_is_none(url: str) -> None:
    for value in ("x", "a.9999999999.b", "..", "a.nan.b"):
        assert "set-cookie" in httpx.get(url, headers={"cookie": f"sftdemo_visitor={value}"}).headers


def test_routes_are_closed_to_visitors_unless_they_are_listed(public: str) -> None:
    closed = (
        "file=/etc/hosts",
        "proxy=https://x.hf.space/",
        "deep_link",
        "openapi.json",
        "custom_component/a/client/b/c",
    )
    for path in (
        *(guard.API + path for path in closed),
        "/monitoring",
        "/metrics",
        "/monitoring/summary",
        "/gradio_api//upload",
    ):
        assert httpx.get(public + path).status_code == 403, path
    for path in ("component_server", "process_recording", "vibe-edit", "stream/x", "upload", "upload/"):
        assert httpx.post(public + guard.API + path, json={}).status_code == 403, path
    for path in ("/", "/rate", "/config", "/gradio_api/info", "/login", "/healthz"):
        assert httpx.get(public + path).status_code == 200, path


# Signing in


@pytest.mark.parametrize(
    "click", [{"sec-fetch-site": "same-origin", "sec-fetch-mode": "navigate"}, {}], ids=["link", "button"]
)
def test_the_owner_signs_in_and_out(public: str, click: dict[str, str]) -> None:
    with httpx.Client(base_url=public) as browser:
        assert "password" in browser.get("/login", headers=BROWSER).text and not owns(public)
        wrong = browser.post("/login", data={"password": "wrong"}, headers=BROWSER)
        assert wrong.status_code == 401 and "isn&#x27;t the password" in wrong.text
        reply = browser.post("/login", data={"password": PASSWORD}, headers=BROWSER)
        assert reply.status_code == 303 and reply.headers["location"] == "./"
        assert "HttpOnly" in reply.headers["set-cookie"]
        assert browser.get(OWNERS_ROUTE).status_code == 200
        kept = dict(browser.cookies)
        for elsewhere in (
            {},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
            {"sec-fetch-site": "none"},
        ):
            asked = browser.get("/logout", headers=BROWSER | {"sec-fetch-mode": "navigate"} | elsewhere)
            assert asked.status_code == 200 and 'method="post" action="logout"' in asked.text
            assert browser.get(OWNERS_ROUTE).status_code == 200, "a link on another site signs nobody out"
        picture = browser.get("/logout", headers={"sec-fetch-site": "same-origin", "sec-fetch-mode": "no-cors"})
        assert picture.status_code == 200 and browser.get(OWNERS_ROUTE).status_code == 200
        posted = browser.post("/logout", headers={"origin": "https://evil.example"})
        assert posted.status_code == 403 and browser.get(OWNERS_ROUTE).status_code == 200
        left = browser.get("/logout", headers=click) if click else browser.post("/logout")
        assert left.status_code == 303 and browser.get(OWNERS_ROUTE).status_code == 403
    assert not owns(public, cookies=kept), "the cookie counts no more, whoever kept it"


def test_a_script_sends_the_password_or_signs_in(public: str) -> None:
    from gradio_client import Client
    from gradio_client.exceptions import AuthenticationError

    basic = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    for value, right in (
        (f"Bearer {PASSWORD}", True),
        (f"Basic {basic}", True),
        ("Bearer x", False),
        ("Basic %", False),
    ):
        assert owns(public, headers={"authorization": value}) is right, value
    client = Client(public, auth=("me", PASSWORD), verbose=False)
    assert client.predict(api_name="/runs") == [] and owns(public, cookies=client.cookies)
    with pytest.raises(AuthenticationError):
        Client(public, auth=("me", "wrong"), verbose=False)


def test_guesses_are_counted_by_address_and_the_right_one_comes_too_late(public: str) -> None:
    statuses = [httpx.post(public + "/login", data={"password": str(n)}).status_code for n in range(rights.GUESSES + 2)]
    assert statuses == [401] * rights.GUESSES + [429] * 2
    assert httpx.post(public + "/login", data={"password": PASSWORD}).status_code == 429
    assert not owns(public, headers={"authorization": f"Bearer {PASSWORD}"})
    elsewhere = {"x-forwarded-for": "198.41.0.4"}
    assert httpx.post(public + "/login", data={"password": PASSWORD}, headers=elsewhere).status_code == 200


def test_a_header_that_comes_with_each_request_is_one_guess(public: str) -> None:
    """A proxy's own login, say."""
    with httpx.Client(base_url=public) as client:
        for _ in range(3 * rights.GUESSES):
            assert client.get(OWNERS_ROUTE, headers={"authorization": "Bearer the proxy's"}).status_code == 403
    assert owns(public, headers={"authorization": f"Bearer {PASSWORD}"})


@pytest.mark.parametrize("told", [True, False])
def test_a_body_without_end_is_refused(url: str, told: bool) -> None:
    body = b'{"data": ["' + b"x" * guard.MOST_BYTES + b'"]}'
    content = body if told else iter([body[:100], body[100:]])
    for path in ("/gradio_api/call/compare", "/gradio_api/queue/join", "/gradio_api/cancel", "/login"):
        reply = httpx.post(url + path, content=content, headers={"content-type": "application/json"})
        assert reply.status_code in (413, 429) and len(reply.content) < 500
        content = body if told else iter([body[:100], body[100:]])


def test_a_session_is_its_first_visitors_alone(public: str) -> None:
    """Others neither put events into it, nor hear or stop what goes on in it, or end it by leaving."""
    ann, bob = (httpx.Client(base_url=public, timeout=60) for _ in range(2))
    page = ann.get("/config").json()
    bob.get("/config")
    runs = next(each["id"] for each in page["dependencies"] if each["api_name"] == "runs")
    body = {"fn_index": runs, "data": [], "session_hash": "anns"}
    assert ann.post("/gradio_api/queue/join", json=body).status_code == 200
    for method, path in (
        ("POST", "queue/join"),
        ("POST", "call/runs"),
        ("POST", "cancel"),
        ("GET", "queue/data?session_hash=anns"),
        ("GET", "queue/data?session_hash=x&session_hash=anns"),
        ("GET", "heartbeat/anns"),
        ("GET", "call/runs/anns"),
        ("GET", "call/v2/runs/anns"),
    ):
        reply = bob.request(method, f"/gradio_api/{path}", json={**body, "event_id": "1"})
        assert reply.status_code == 403 and "isn't yours" in reply.text, path
    with ann.stream("GET", "/gradio_api/queue/data", params={"session_hash": "anns"}) as stream:
        assert any("process_completed" in line for line in stream.iter_lines())
    assert bob.post("/gradio_api/queue/join", json={**body, "session_hash": "x" * 200}).status_code == 403
    refused = bob.post("/gradio_api/queue/join", json=body, headers={"accept-language": "zh"})
    assert refused.json()["detail"] == "该会话不属于你；请刷新页面。"
    filler = {**body, "event_id": "1" * guard.MOST_TO_CANCEL}
    assert "4 kB" in ann.post("/gradio_api/cancel", json=filler).json()["error"]
    assert ann.post("/gradio_api/cancel", json={**body, "event_id": "1"}).json() == {"success": True}


def test_two_tabs_of_a_new_browser_over_http(public: str) -> None:
    (earlier, page), (later, _) = (
        (reply.cookies, reply.json()) for reply in (httpx.get(public + "/config") for _ in "12")
    )
    assert earlier["sftdemo_visitor"] != later["sftdemo_visitor"]
    runs = next(each["id"] for each in page["dependencies"] if each["api_name"] == "runs")
    body = {"fn_index": runs, "data": [], "session_hash": "first tab"}
    for kind, last in (({}, 403), ({"sec-fetch-site": "same-origin"}, 200)):
        body["session_hash"] = f"first tab {last}"
        for cookie, status in ((earlier, 200), (later, last)):
            reply = httpx.post(f"{public}/gradio_api/queue/join", json=body, cookies=cookie, headers=kind)
            assert reply.status_code == status, "scripts are as many as they have cookies"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("queue/join", {"fn_index": 10**30, "data": [], "session_hash": "s"}, 404),
        ("queue/join", {"fn_index": -1, "data": [], "session_hash": "s"}, 404),
        ("queue/join", {"data": [], "session_hash": "s"}, 400),
        ("call/nothing", {"data": []}, 404),
        ("call/v2/nothing", {}, 400),
        ("call/v2/runs", {"unknown": 1}, 400),
        ("run/nothing", {"data": []}, 404),
    ],
)
def test_an_unknown_endpoint_is_one_line(public: str, path: str, body: Any, status: int) -> None:
    reply = httpx.post(f"{public}/gradio_api/{path}", json=body)
    assert reply.status_code == status and "Traceback" not in reply.text and len(reply.json()["detail"]) > 20


@pytest.fixture
def faults(caplog: pytest.LogCaptureFixture) -> Iterator[list[logging.LogRecord]]:
    """What the app and its server log as an error: a stranger would fill the disk with it."""
    loggers = [LOG, logging.getLogger("uvicorn.error")]
    for logger in loggers:
        logger.addHandler(caplog.handler)
    yield caplog.records
    for logger in loggers:
        logger.removeHandler(caplog.handler)


@pytest.mark.parametrize(
    "path",
    [
        "static/" + "a" * 300,
        "static/" + "a/" * 1500,
        "assets/é" + "é" * 130,
        "gradio_api/heartbeat/%00",
        "gradio_api/call/runs/%0a",
    ],
)
def test_a_path_that_nothing_can_have_is_one_line(public: str, path: str, faults: list[logging.LogRecord]) -> None:
    reply = httpx.get(f"{public}/{path}", headers={"accept-language": "zh"})
    assert reply.status_code == 404 and reply.json()["detail"] == "此地址下没有内容。"
    assert [record for record in faults if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("path", ["queue/data?session_hash=nobody", "call/runs/nothing", "call/v2/runs/nothing"])
def test_a_stream_of_nobodys_ends_without_a_traceback(public: str, path: str, faults: list[logging.LogRecord]) -> None:
    reply = httpx.get(f"{public}/gradio_api/{path}")
    assert "404: Not Found" in reply.text and len(reply.content) < 500
    assert [record for record in faults if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize(
    "body", ['{"data": {"x": NaN}}', '{"x": "\\ud800"}', json.dumps({"x": ["y"] * 300_000}), "[1]", '"x"', ""]
)
@pytest.mark.parametrize("path", ["queue/join", "call/compare", "cancel", "reset", "run/runs", "api/runs"])
def test_a_body_that_a_route_cannot_take_is_one_line(
    public: str, path: str, body: str, faults: list[logging.LogRecord]
) -> None:
    """FastAPI would send megabytes back, and break on what JSON can't have."""
    reply = httpx.post(f"{public}/gradio_api/{path}", content=body, headers=JSON)
    assert reply.status_code in (413, 422) and len(reply.content) < 500 and len(reply.json()["detail"]) > 20
    assert [record for record in faults if record.levelno >= logging.ERROR] == []


def test_a_session_has_a_plain_name(public: str) -> None:
    for session in ("\\ud800", "a\\nb", "\\u0000", "\\u202e"):
        body = f'{{"data": [], "session_hash": "{session}"}}'
        assert httpx.post(f"{public}/gradio_api/call/runs", content=body, headers=JSON).status_code == 403, session


def test_a_session_without_a_name_is_nobodys(public: str, faults: list[logging.LogRecord]) -> None:
    """Gradio took the event into its queue and lost whose it was."""
    body = {"fn_index": 0, "data": [], "session_hash": ""}
    assert httpx.post(f"{public}/gradio_api/queue/join", json=body).status_code == 403
    assert [record for record in faults if record.levelno >= logging.ERROR] == []


def test_an_event_that_says_it_is_several_is_still_its_visitors(running_app: tuple[Any, str], public: str) -> None:
    """Of a list of requests nobody could tell who sent them, and that was the owner."""
    asked: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        require = rights.require
        patch.setattr(rights, "require", lambda request, *of: (asked.append(rights.visitor(request).role), require(request, *of))[1])  # fmt: skip
        body = {"fn_index": 0, "data": [], "session_hash": "several", "batched": True}
        httpx.post(f"{public}/gradio_api/queue/join", json=body).raise_for_status()
        told = httpx.get(f"{public}/gradio_api/queue/data", params={"session_hash": "several"}).text
    assert "process_completed" in told and asked and set(asked) == {"visitor"}


@pytest.mark.parametrize(
    "value",
    [
        {"path": "http://127.0.0.1:1/secret", "meta": {"_type": payload.FILE}},
        {"r": {"now": [{"path": "/etc/hosts", "url": "http://127.0.0.1:1/", "meta": {"_type": payload.FILE}}]}},
        {"meta": {"_type": payload.FILE}},
        ["good", {"text": "half of it \ud83d"}],
        {"\udc00": 1},
        [1e308],
        float("-inf"),
    ],
)
def test_what_no_event_may_be_sent(value: object) -> None:
    """Gradio would fetch the address, or hand on a file; half a character can't be sent back."""
    sender = rights.Visitor("owner", "local")
    fits = {"path": "a run", "meta": {"now": "of that name"}, "text": "whole 😀", "n": [1.5, None]}
    for takes_files in (False, True):
        assert payload.are_fit([(fits, takes_files)], sender)
        assert not payload.are_fit([(fits, takes_files), (value, takes_files)], sender)


def test_what_does_not_fit_is_one_line_and_nothing_is_fetched(public: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    monkeypatch.setattr("gradio.processing_utils.save_url_to_cache", lambda url, *_: fetched.append(url))
    monkeypatch.setattr("gradio.processing_utils.async_ssrf_protected_download", lambda url, *_: fetched.append(url))
    client = httpx.Client(base_url=public, timeout=60)
    page = client.get("/config").json()
    ids = {part["id"]: part["props"].get("elem_id") for part in page["components"]}
    search = next(
        each
        for each in page["dependencies"]
        if each["backend_fn"] and any(ids.get(target) == "runs-search" for target, _ in each["targets"])
    )
    file = {"path": "http://8.8.8.8/x", "meta": {"_type": payload.FILE}}
    values = {part["id"]: part["props"].get("value") for part in page["components"]}
    held = [values[key] for key in search["inputs"]]
    # The last is what a field sends that changed.
    cases: list[tuple[Any, Any, bool]] = [(file, None, False), ("\ud800", None, False), ("x", file, False)]
    gone = ["gone" if ids[key] == "runs-order" else value for key, value in zip(search["inputs"], held, strict=True)]
    for number, (value, event_data, fits) in enumerate(
        [*cases, (gone, None, False), (held, "what it holds now", True)]
    ):
        data = value if isinstance(value, list) else [value] * len(held)
        language = {"accept-language": "zh-CN"} if value is gone else {}
        body = {"fn_index": search["id"], "data": data, "session_hash": f"misfit{number}"}
        sent = json.dumps({**body, "event_data": event_data}).encode()
        assert client.post("/gradio_api/queue/join", content=sent, headers=JSON | language).status_code == 200
        with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": f"misfit{number}"}) as stream:
            told = [json.loads(line[5:]) for line in stream.iter_lines() if line.startswith("data:")]
        (ended,) = [message for message in told if message["msg"] == "process_completed"]
        assert ended["success"] == fits, value
        said = "已不再提供" if value is gone else "doesn't fit this endpoint"
        assert fits or (said in ended["output"]["error"] and ended["output"]["title"] != "Error"), value
    assert fetched == []


def test_a_long_form_is_refused(public: str) -> None:
    assert httpx.post(public + "/login", content=b"password=" + b"x" * 10_000).status_code == 429


def test_listening_beyond_this_machine_without_an_owner_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for bound in ("0.0.0.0", "192.168.1.5", "::"):
        with pytest.raises(UsageError, match=r"SFTDEMO_PASSWORD.*SFTDEMO_OWNERS"):
            launch(host=bound)
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    with pytest.raises(UsageError, match=r"0\.0\.0\.0"):
        launch()


ACCOUNT = {"preferred_username": "alice", "sub": "7"}


@pytest.mark.parametrize(
    ("environment", "profile", "role"),
    [
        ({"SPACE_AUTHOR_NAME": "alice"}, ACCOUNT, "owner"),
        ({"SPACE_AUTHOR_NAME": "team", "SPACE_CREATOR_USER_ID": "7"}, ACCOUNT, "owner"),
        ({"SPACE_AUTHOR_NAME": "team", "SPACE_CREATOR_USER_ID": "8"}, ACCOUNT, "visitor"),
        ({"SPACE_AUTHOR_NAME": "alice", "SFTDEMO_OWNERS": "bob, carol"}, ACCOUNT, "visitor"),
        ({"SFTDEMO_OWNERS": "bob, alice"}, ACCOUNT, "owner"),
        ({"SFTDEMO_OWNERS": "alice"}, ACCOUNT | {"preferred_username": "Alice"}, "visitor"),
        ({"SFTDEMO_OWNERS": "alice"}, ACCOUNT | {"preferred_username": "alice\u200b"}, "visitor"),
        ({"SFTDEMO_OWNERS": "alice"}, ACCOUNT | {"preferred_username": "\uff41lice"}, "visitor"),
        ({"SFTDEMO_OWNERS": "alice"}, {}, "visitor"),
    ],
)
def test_accounts_that_own_a_space(monkeypatch, environment: dict, profile: dict, role: str) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    rights.use(AppConfig.from_environment(), "0.0.0.0")
    session = {"oauth_info": {"expires_at": 2**40, "userinfo": profile}} if profile else {}
    scope = {"type": "http", "headers": [(b"host", b"10.0.0.1")], "client": ("10.0.0.9", 1), "session": session}
    assert rights.classify(scope).role == role
    rights.use(AppConfig(), "127.0.0.1")


def test_the_page_shows_the_tabs_of_what_its_visitor_may(url: str) -> None:
    from sftdemo.ui.parts.page import header

    visitor = rights.Visitor("visitor", "ann")
    rights.use(AppConfig(password=PASSWORD), "0.0.0.0")
    assert "#tab-data-button,#tab-train-button{display:none}" in header("en", visitor)
    assert 'href="login"' in header("en", visitor) and 'href="logout"' in header("en", rights.Visitor("owner", "o"))
    rights.use(AppConfig(password=PASSWORD, visitors_own_data=True, visitors_chat=False), "0.0.0.0")
    assert "<style>#tab-chat-button{display:none}</style>" in header("en", visitor)
    rights.use(AppConfig(), "127.0.0.1")
    assert "href" not in header("en") and "style" not in header("en")


def test_a_link_with_a_slash_too_many_keeps_its_query(url: str) -> None:
    """Relative, so that it holds below a proxy's sub-path, too."""
    reply = httpx.get(url + "/rate/?run=a%20b", headers=BROWSER)
    assert (reply.status_code, reply.headers["location"]) == (308, "../rate?run=a%20b")
    reply = httpx.get(url + "/rate/?run=a%20b", headers=BROWSER, follow_redirects=True)
    assert reply.status_code == 200 and str(reply.url) == url + "/rate?run=a%20b"


def test_the_page_is_light_on_the_wire_and_has_each_translation_once(url: str) -> None:
    with httpx.stream("GET", url, headers={"accept-encoding": "gzip"}) as reply:
        assert reply.headers["content-encoding"] == "gzip" and "Accept-Encoding" in reply.headers["vary"]
        sent = b"".join(reply.iter_raw())
    assert len(sent) == int(reply.headers["content-length"]) < 120_000
    plain = httpx.get(url, headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers and "window.sftdemo" in plain.text
    assert gzip.decompress(sent).startswith(plain.content[:2000])
    assert i18n().translations.keys() == {"en", "zh-CN"}


def test_nobody_changes_the_page_that_others_get(public: str) -> None:
    """The first to ask after a start by what Gradio reads as another page."""
    host = {"x-forwarded-proto": "http, as of no other test"}
    rated = [httpx.get(f"{public}{path}?page=rate&deep_link=x", headers=host).text for path in ("/", "/config")]
    page, config = (httpx.get(public + path, headers=host) for path in ("/", "/config"))
    assert "tab-data" in page.text == rated[0] and "page" in config.json() and rated[1] != config.text
    assert len(config.json()["components"]) > 100 and "current_page" not in config.json()


def test_nobody_puts_an_address_into_what_others_are_told(public: str, running_app: tuple[Any, str]) -> None:
    """Gradio keeps its description of the endpoints, with commands for the address that was asked first."""
    for path, ask in (("info", httpx.get), ("call/v2/runs", httpx.post)):
        running_app[0].api_info = None
        ask(
            f"{public}/gradio_api/{path}",
            headers={"host": "198.41.0.4:81"},
            **({"json": {}} if ask is httpx.post else {}),
        )
        told = httpx.get(f"{public}/gradio_api/info").text
        assert "198.41.0.4" not in told and "address.invalid" not in told and public in told, path


def test_every_field_has_a_name(built_page: Any) -> None:
    fields = (gr.Radio, gr.Textbox, gr.Dropdown, gr.Checkbox, gr.CheckboxGroup, gr.Number, gr.Slider)
    shown = [block for block in built_page.blocks.values() if isinstance(block, fields)]
    assert len(shown) > 20 and [block.elem_id for block in shown if not block.label] == []
