"""The page as it is sent: made once for all who open it at an address, and nobody's own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("gradio")

from sftdemo.ui import served_page
from sftdemo.ui.served_page import ServedPage


def test_the_page_is_made_once_for_each_address_that_it_is_opened_by() -> None:
    """And is nobody's: what another proxy or a header says of the address stays with those who sent it."""
    made: list[str] = []
    asked: list[str] = []

    async def page(scope: dict, receive: object, send: Any) -> None:
        made.append(scope["path"])
        host = dict(scope["headers"])[b"host"].decode()
        assert scope["query_string"] == (b"page=rate" if "rate" in asked else b""), (
            "nobody's wishes are in what all get"
        )
        private = b"set-cookie" if scope["path"] == "/rate" else b"x-nothing"
        headers = [(b"content-type", b"text/html"), (private, b"one")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": f"<head>{len(made)} http://{host}/".encode()})

    served = ServedPage(page, "<script>")

    def ask(path: str = "/", query: str = "", session: object = None, **headers: str) -> bytes:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            message.get("headers", []).append((b"set-cookie", b"mine"))  # as the door does
            sent.append(message)

        raw = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
        scope = {"type": "http", "method": "GET", "path": path, "query_string": query.encode(), "headers": raw}
        asyncio.run(served({**scope, "session": session}, None, send))
        assert [name for name, _ in sent[0]["headers"]].count(b"set-cookie") == 1 + (path == "/rate")
        return sent[1]["body"]

    first = ask(host="a")
    assert first == b"<head><script>1 http://a/" == ask(host="a") == ask(query="run=r", host="a") == ask("//", host="a")
    others = [ask(host="b"), ask(host="a", x_forwarded_proto="https"), ask(host="a", x_forwarded_host="c:1")]
    assert [page.split()[1] for page in others] == [b"http://b/", b"https://a/", b"http://c:1/"]
    assert ask(host="a") == first
    assert ask(session={"oauth_info": 1}, host="a") != first
    for query in ("deep_link=x", "page=rate", "page=nonsense&page=rate", "__theme=dark"):
        assert ask(query=query, host="a") == first, query
    config = ask("/config", host="a")
    assert ask("/config", query="page=nonsense", host="a") == ask("/config", query="page=", host="a") == config
    asked.append("rate")
    assert ask("/config", query="page=rate", host="a") != config
    asked.clear()
    assert ask("/config", host="a") == config
    assert ask("/rate", host="a") != ask("/rate", host="a"), "a reply with a cookie is one visitor's"
    before = len(made)
    for number in range(2 * served_page.MOST_KEPT):
        for strange in (
            {"x_forwarded_proto": f"p{number}"},
            {"host": f"a:{number}"},
            {"x_forwarded_host": f"h:{number}"},
        ):
            ask(**{"host": "a"} | strange)
    assert len(served.kept) == served_page.MOST_KEPT and ask(host="a") == first
    assert len(made) == before, "whatever a stranger says of the address, the page is made no second time"
