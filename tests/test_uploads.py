"""Uploads over HTTP: each visitor's own, in a quota, under a hash of its content, and gone in time."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

pytest.importorskip("gradio")

from sftdemo import runs
from sftdemo.config import TrainConfig
from sftdemo.errors import UserError
from sftdemo.ui import build, server
from sftdemo.ui.access import cookies, rights, sources, uploads
from sftdemo.ui.access.settings import AppConfig

pytestmark = pytest.mark.slow

CONTENT = b'{"text": "good", "label": "a"}\n' * 3
OPEN = {"password": "x", "visitors_own_data": True, "visitors_train": True}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        blocks = build()
        options = server.app_options(blocks)
        _, url, _ = blocks.launch(
            server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, ssr_mode=False, app_kwargs=options
        )
        yield url.rstrip("/")
        blocks.close()


@pytest.fixture(autouse=True)
def policy() -> Iterator[None]:
    rights.use(AppConfig(**OPEN), "0.0.0.0")
    yield
    rights.use(AppConfig(), "127.0.0.1")


def browser(url: str) -> httpx.Client:
    client = httpx.Client(base_url=url, timeout=60)
    client.get("/", headers={"accept": "text/html"})
    return client


def send(client: httpx.Client, *files: tuple[str, bytes]) -> httpx.Response:
    return client.post("/gradio_api/upload", files=[("files", file) for file in files])


def visitor_of(client: httpx.Client) -> rights.Visitor:
    cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    headers = [(b"host", b"127.0.0.1"), (b"cookie", cookie.encode())]
    scope = {"type": "http", "method": "POST", "client": ("127.0.0.1", 1), "headers": headers}
    return rights.visitor(SimpleNamespace(request=SimpleNamespace(scope=scope)))


def test_an_upload_is_its_visitors_alone(url: str) -> None:
    ann, bob = browser(url), browser(url)
    (path,) = send(ann, ("my list.jsonl", CONTENT)).json()
    assert Path(path).read_bytes() == CONTENT and re.fullmatch("[0-9a-f]{64}", Path(path).parent.name)
    assert Path(path).is_relative_to(uploads.folder_of(visitor_of(ann)))
    assert ann.get(f"/gradio_api/file={path}").content == CONTENT
    away = Path(path).relative_to(uploads.folder_of(visitor_of(ann)))
    around = f"{uploads.folder_of(visitor_of(bob))}/../{visitor_of(ann).key}/{away}"
    for client in (bob, httpx.Client(base_url=url, timeout=60)):
        for asked in (path, around, f"/{path}"):
            reply = client.get(f"/gradio_api/file={asked}")
            assert reply.status_code == 403 and CONTENT not in reply.content
    for source in (path, f"support_tickets + {path}", around):
        with pytest.raises(UserError, match="can't be chosen"):
            sources.check(TrainConfig(data=source), visitor_of(bob))
    sources.check(TrainConfig(data=path), visitor_of(ann))
    (other,) = send(bob, ("my list.jsonl", CONTENT)).json()
    assert other != path, "the same file of two visitors is two"


@pytest.mark.parametrize("size", [1, 300_000])
def test_a_part_that_is_no_file_is_one_line_and_nothing_stays(url: str, size: int) -> None:
    client = browser(url)
    parts = [("files", ("a.jsonl", CONTENT)), ("files", (None, b"x" * size))]
    reply = client.post("/gradio_api/upload", files=parts, headers={"accept-language": "zh"})
    assert reply.status_code == 400 and reply.json()["detail"] == "上传内容中有一部分不是文件；请只发送文件。"
    assert not [path for path in uploads.folder_of(visitor_of(client)).rglob("*") if path.is_file()]


def test_what_a_visitor_keeps_has_a_limit(url: str) -> None:
    rights.use(AppConfig(**OPEN, visitor_kept_files=2, visitor_kept_mb=1), "0.0.0.0")
    ann = browser(url)
    assert send(ann, ("a.jsonl", CONTENT)).status_code == 200
    reply = send(ann, ("b.jsonl", b"x" * 1_100_000))
    assert reply.status_code == 413 and "1\xa0MB" in reply.json()["detail"]
    reply = send(ann, *((f"{number}.jsonl", CONTENT) for number in range(3)))
    assert reply.status_code == 413 and "2 uploads" in reply.json()["detail"]
    assert send(ann, ("c.jsonl", CONTENT + b"\n")).status_code == 200
    assert send(ann, ("d.jsonl", CONTENT)).status_code == 413
    assert len([path for path in uploads.folder_of(visitor_of(ann)).rglob("*") if path.is_file()]) == 2
    body = (chunk for chunk in (b"--x\r\n", b"--x--\r\n"))
    reply = ann.post("/gradio_api/upload", content=body, headers={"content-type": "multipart/form-data; boundary=x"})
    assert reply.status_code == 411, "how much is coming isn't said"


def test_an_upload_stays_while_a_page_has_it_and_its_browser_is_known_after_a_restart(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = browser(url)
    (path,) = send(ann, ("a.jsonl", CONTENT)).json()
    visitor = visitor_of(ann)
    uploads.read_by(path, visitor, "before")
    uploads.leave(SimpleNamespace(session_hash="before"))
    uploads.read_by(path, visitor, "loaded again")
    uploads.sweep(time.time() + uploads.LEFT_S + 1)
    assert Path(path).exists()
    cookies._browser_key.cache_clear()  # as a new process has it
    monkeypatch.setattr(cookies, "_owner_key", b"another")
    assert visitor_of(ann) == visitor and visitor.browser and uploads.is_own(path, visitor_of(ann))
    key = runs.home() / "browsers.key"
    assert key.stat().st_mode & 0o777 == 0o600 and list(runs.home().glob(".browsers*")) == []
    uploads.leave(SimpleNamespace(session_hash="loaded again"))
    uploads.sweep(time.time() + uploads.LEFT_S + 1)
    assert not Path(path).exists()


def test_uploads_go_with_their_page_and_in_time(url: str) -> None:
    ann = browser(url)
    first, second, third = (send(ann, (f"{name}.jsonl", CONTENT)).json()[0] for name in "abc")
    visitor = visitor_of(ann)
    uploads.read_by(first, visitor, "page 1")
    uploads.read_by(second, visitor, "page 2")
    run = runs.create("busy", "", {"settings": {"data": second}})
    run.write_status("queued")
    for page in ("page 1", "page 2", "page 3"):
        uploads.leave(SimpleNamespace(session_hash=page))
    uploads.sweep()
    assert Path(first).exists(), "the page may be loaded again"
    uploads.sweep(time.time() + uploads.LEFT_S + 1)
    assert [Path(path).exists() for path in (first, second, third)] == [False, True, True], (
        "the second is being trained on"
    )
    uploads.sweep()
    assert Path(third).exists()
    uploads.sweep(time.time() + 25 * 3600)
    assert [Path(path).exists() for path in (second, third)] == [True, False]
    run.write_status("finished")
    uploads.sweep(time.time() + 25 * 3600)
    assert not os.listdir(uploads.folder())
