"""Connections that send slowly, without end, or read nothing of what they asked for: each ends, and the page answers meanwhile."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

pytest.importorskip("gradio")

from sftdemo.ui.access import connections, guard, rights
from sftdemo.ui.access.settings import AppConfig

pytestmark = pytest.mark.slow
POSTS = ("queue/join", "call/runs", "run/runs", "api/runs", "cancel", "reset", "upload")


@pytest.fixture
def address(running_app: tuple[object, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    rights.use(AppConfig(visitors_own_data=True), "127.0.0.1")
    monkeypatch.setattr(guard, "SENDING_S", 1.0)
    monkeypatch.setattr(connections, "REQUEST_S", 2.0)
    monkeypatch.setattr(connections, "UNREAD_S", 2.0)
    url = httpx.URL(running_app[1])
    yield url.host, url.port or 80
    rights.use(AppConfig(), "127.0.0.1")


def head(path: str, address: tuple[str, int], *headers: str, method: str = "POST") -> bytes:
    host = f"host: {address[0]}:{address[1]}"
    return "\r\n".join((f"{method} {path} HTTP/1.1", host, *headers, "", "")).encode()


def heard(client: socket.socket, part: bytes, every: float = 0.2, most: float = 30) -> bytes:
    """What comes back until the app ends the connection, while a part is sent now and then."""
    client.settimeout(every)
    reply, begun = b"", time.monotonic()
    while time.monotonic() < begun + most:
        try:
            client.sendall(part)
            if not (got := client.recv(65536)):
                return reply
            reply += got
        except TimeoutError:
            continue
        except OSError:
            return reply
    raise AssertionError(f"open after {most} s: {reply[:200]!r}")


@pytest.mark.parametrize("route", POSTS)
@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_that_trickles_ends(address: tuple[str, int], route: str, chunked: bool) -> None:
    length = "transfer-encoding: chunked" if chunked else "content-length: 100000"
    kind = "multipart/form-data; boundary=b" if route == "upload" else "application/json"
    with socket.create_connection(address) as client:
        client.sendall(head(f"/gradio_api/{route}", address, length, f"content-type: {kind}"))
        if route == "upload" and not chunked:
            client.sendall(b'--b\r\nContent-Disposition: form-data; name="files"; filename="x.csv"\r\n\r\n')
        reply = heard(client, b"1\r\n \r\n" if chunked else b" ")
    # How large an upload is must be told ahead.
    status = b"411" if route == "upload" and chunked else b"408"
    assert reply.startswith(b"HTTP/1.1 " + status) and len(reply) < 2_000 and b"Traceback" not in reply, reply


def test_a_stream_that_is_asked_for_with_an_endless_body_ends(
    address: tuple[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR), socket.create_connection(address) as client:
        asked = head("/gradio_api/heartbeat/s1", address, "transfer-encoding: chunked", method="GET")
        client.sendall(asked)
        heard(client, b"1\r\n \r\n")
    assert not caplog.records


@pytest.mark.parametrize("route", POSTS)
def test_a_body_that_is_none_is_no_fault_of_ours(
    address: tuple[str, int], caplog: pytest.LogCaptureFixture, route: str
) -> None:
    with caplog.at_level(logging.ERROR), socket.create_connection(address) as client:
        client.sendall(head(f"/gradio_api/{route}", address, "transfer-encoding: chunked"))
        client.sendall(b"1\r\n \r\nno chunk\r\n")
        assert b"HTTP/1.1 4" in heard(client, b"")
        time.sleep(0.2)
    assert not caplog.records


@pytest.mark.parametrize("begin", [b"", b"GET / HTTP/1.1\r\nhost: x\r\nx: "])
def test_a_head_that_never_ends_ends(address: tuple[str, int], begin: bytes) -> None:
    with socket.create_connection(address) as client:
        client.sendall(begin)
        assert b"200 OK" not in heard(client, b"x" if begin else b"")


def test_what_is_never_read_ends(address: tuple[str, int]) -> None:
    """And whoever reads slowly gets all of it."""
    ask = head("/", address, method="GET")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(address)
        client.sendall(ask * 100)
        time.sleep(6)
        assert httpx.get(f"http://{address[0]}:{address[1]}/healthz").text == "ok\n"
        client.settimeout(20)
        got, more = 0, b"x"
        try:
            while more := client.recv(2**20):
                got += len(more)
        except ConnectionResetError:
            more = b""
        assert not more
    whole = len(httpx.get(f"http://{address[0]}:{address[1]}/", headers={"accept-encoding": "identity"}).content)
    assert got < 100 * whole
