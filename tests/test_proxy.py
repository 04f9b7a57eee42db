"""The app below a sub-path behind a proxy that ends TLS, as compose.yaml has it; the proxy is a stand-in that does what Caddy does."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

pytest.importorskip("gradio")

import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from tests.browser import end, free_port, serve

pytestmark = pytest.mark.slow
SITE, PREFIX, PASSWORD = "demo.example", "/sftdemo", "correct horse"


def proxy(upstream: str) -> Starlette:
    """Strips the prefix, passes Host on, adds X-Forwarded-*, and streams both ways."""
    client = httpx.AsyncClient(base_url=upstream, timeout=60)

    async def pass_on(request: Request) -> StreamingResponse:
        path = request.url.path.removeprefix(PREFIX) or "/"
        sent = {name: value for name, value in request.headers.items() if name != "connection"}
        sent |= {"x-forwarded-for": "203.0.113.7", "x-forwarded-proto": "https", "x-forwarded-host": sent["host"]}
        url = httpx.URL(path=path, query=request.url.query.encode())
        asked = client.build_request(request.method, url, headers=sent, content=await request.body())
        answer = await client.send(asked, stream=True)

        async def body() -> AsyncIterator[bytes]:
            async for part in answer.aiter_raw():
                yield part

        passed = StreamingResponse(body(), answer.status_code, background=BackgroundTask(answer.aclose))
        passed.raw_headers = [(name.lower(), value) for name, value in answer.headers.raw]
        return passed

    return Starlette(routes=[Route("/{path:path}", pass_on, methods=["GET", "POST", "HEAD"])])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of the site, as a browser that has typed its name."""
    front = free_port()
    settings = {
        "SFTDEMO_PASSWORD": PASSWORD,
        "SFTDEMO_ALLOWED_HOSTS": SITE,
        "GRADIO_ROOT_PATH": PREFIX,
        "GRADIO_SERVER_NAME": "0.0.0.0",
    }
    with pytest.MonkeyPatch.context() as environment:
        for name, value in settings.items():
            environment.setenv(name, value)
        url, app = serve(tmp_path_factory.mktemp("proxied"))
    server = uvicorn.Server(uvicorn.Config(proxy(url), port=front, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{front}", headers={"host": SITE}, timeout=60) as client:
            while not server.started:
                time.sleep(0.05)
            yield client
    finally:
        server.should_exit = True
        thread.join(20)
        end(app)


def test_the_page_and_all_it_loads_lie_below_the_sub_path(site: httpx.Client) -> None:
    page = site.get(f"{PREFIX}/")
    assert page.status_code == 200 and f'"root":"https://{SITE}{PREFIX}"' in page.text
    assert "secure" in page.headers["set-cookie"].lower()
    loaded = re.findall(r'(?:src|href)="([^"]+\.(?:js|css))"', page.text)
    assert loaded
    for address in loaded:
        path = re.sub(rf"^https://{re.escape(SITE)}", "", address)
        path = path if path.startswith("/") else f"{PREFIX}/{path.removeprefix('./')}"
        assert path.startswith(PREFIX) and site.get(path).status_code == 200, address


def test_events_stream_through_it(site: httpx.Client) -> None:
    api = f"{PREFIX}/gradio_api"
    asked = site.post(f"{api}/call/runs", json={"data": []}, headers={"origin": f"https://{SITE}"})
    assert asked.status_code == 200, asked.text
    with site.stream("GET", f"{api}/call/runs/{asked.json()['event_id']}") as stream:
        text = "".join(stream.iter_text())
    assert "event: complete" in text and "data: [[]]" in text


def test_the_owner_signs_in_and_others_are_visitors(site: httpx.Client) -> None:
    assert site.get(f"{PREFIX}/metrics").status_code == 403
    wrong = site.post(f"{PREFIX}/login", data={"password": "guess"})
    assert wrong.status_code == 401
    signed = site.post(f"{PREFIX}/login", data={"password": PASSWORD}, headers={"origin": f"https://{SITE}"})
    cookie = next(value for value in signed.headers.get_list("set-cookie") if "owner" in value)
    assert "Secure" in cookie and "HttpOnly" in cookie
    owner = {"cookie": cookie.split(";")[0]}
    assert "sftdemo_runs" in site.get(f"{PREFIX}/metrics", headers=owner).text


@pytest.mark.parametrize(
    "sent", [{"host": "evil.example"}, {"origin": "https://evil.example"}, {"origin": "null"}], ids=str
)
def test_other_hosts_and_sites_are_refused(site: httpx.Client, sent: dict[str, str]) -> None:
    refused = site.post(f"{PREFIX}/gradio_api/call/runs", json={"data": []}, headers=sent)
    assert refused.status_code == 403 and "access-control-allow-origin" not in refused.headers
