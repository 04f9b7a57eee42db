"""Downloads from the Hub are bounded in bytes and time, and use the owner's token for nobody else; against a stand-in server."""

from __future__ import annotations

import contextvars
import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest

from sftdemo.data import hub as data_hub
from sftdemo.errors import UserError
from sftdemo.model import download
from sftdemo.runs import Run
from sftdemo.system import hub
from sftdemo.ui.job import Job

pytestmark = pytest.mark.slow

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Standin:
    """Answers as the Hub does for one repository, `me/thing`; a test says where it lies, stalls or leads elsewhere."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.announced = {name: len(data) for name, data in files.items()}
        self.stalled: set[str] = set()
        self.endless: set[str] = set()
        self.redirected: dict[str, str] = {}
        self.tokens: list[str | None] = []
        self.paths: list[str] = []
        self.stop = threading.Event()
        standin = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                standin.answer(self, send=False)

            def do_GET(self) -> None:
                standin.answer(self, send=True)

            def log_message(self, *args: object) -> None:
                """Tests print nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler, send: bool) -> None:
        path = request.path.split("?")[0]
        self.tokens.append(request.headers.get("Authorization"))
        self.paths.append(path)
        name = path.rsplit("/", 1)[1]
        if path.startswith("/api/"):
            files = [{"rfilename": name, "size": size} for name, size in self.announced.items()]
            self.send(request, json.dumps({"id": "me/thing", "sha": COMMIT, "siblings": files}).encode(), send)
        elif name in self.redirected and "/resolve/" in path:
            request.send_response(302)
            request.send_header("Location", self.redirected[name])
            self.about(request, name, 0)
            request.end_headers()
        elif "/resolve/" in path and name in self.files:
            self.send(request, self.files[name], send, name)
        else:
            request.send_error(404)

    def about(self, request: BaseHTTPRequestHandler, name: str, size: int) -> None:
        request.send_header("ETag", f'"{name}"')
        request.send_header("X-Repo-Commit", COMMIT)
        request.send_header("Content-Length", str(size))

    def send(self, request: BaseHTTPRequestHandler, data: bytes, send: bool, name: str = "") -> None:
        request.send_response(200)
        if name in self.endless:
            request.send_header("ETag", f'"{name}"')
            request.send_header("X-Repo-Commit", COMMIT)
        else:
            self.about(request, name, len(data))
        request.end_headers()
        if not send:
            return
        try:
            if name in self.stalled:
                request.wfile.write(data[: len(data) // 2])
                self.stop.wait(60)
            while name in self.endless and not self.stop.is_set():
                request.wfile.write(bytes(2**20))
            request.wfile.write(data)
        except OSError:
            return


@pytest.fixture
def standin(tiny, monkeypatch, tmp_path) -> Iterator[Standin]:
    hub_server = Standin({path.name: path.read_bytes() for path in Path(tiny).iterdir()})
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub_server.url)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for name, value in {
        "HF_ENDPOINT": hub_server.url,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_TOKEN": "hf_of_the_owner",
    }.items():
        monkeypatch.setenv(name, value)
    yield hub_server
    hub_server.stop.set()
    hub_server.server.shutdown()
    hub_server.server.server_close()


def refused(match: str) -> str:
    """What is said when the stand-in's model can't be had; nothing of it is left."""
    with pytest.raises(UserError, match=match) as fault:
        download.find("me/thing")
    assert "\n" not in str(fault.value)
    models = Path(os.environ["SFTDEMO_HOME"]) / "models"
    assert not models.exists() or not list(models.iterdir())
    return str(fault.value)


def test_only_what_a_model_needs_is_fetched(standin):
    standin.files |= {"onnx.bin": b"x", "consolidated.safetensors": b"x", "README.md": b"x"}
    standin.announced |= {"onnx.bin": 10**12, "consolidated.safetensors": 10**12, "original/model.safetensors": 10**12}
    folder, origin = download.find("me/thing")
    assert origin == "Hub" and not {"onnx.bin", "consolidated.safetensors", "README.md"} & {
        p.name for p in folder.iterdir()
    }


def test_a_model_that_is_too_large_is_refused_by_its_list(standin):
    standin.announced["model.safetensors"] = 10**12
    refused("has 1000 GB, more than the 60 GB")
    assert not any("resolve" in path for path in standin.paths)


def test_a_model_larger_than_the_disk_is_refused_by_its_list(standin, monkeypatch):
    monkeypatch.setattr(download, "MOST_BYTES", 10**18)
    standin.announced["model.safetensors"] = 10**17
    refused("MB are free")


def test_a_file_without_a_size_is_refused(standin):
    standin.announced["model.safetensors"] = None
    refused("doesn't say how large")


def test_a_file_of_another_size_is_refused(standin):
    standin.announced["model.safetensors"] += 1
    refused("gave another model.safetensors")


def test_a_file_without_an_end_is_cut_off(standin, monkeypatch):
    monkeypatch.setattr(hub, "SPARE_BYTES", 2**22)
    standin.endless.add("model.safetensors")
    refused("did not give|larger than")


def test_a_download_that_stands_still_is_given_up(standin, monkeypatch):
    monkeypatch.setattr(hub, "STALL_SECONDS", 3)
    standin.stalled.add("model.safetensors")
    start = time.monotonic()
    refused("nothing has come for 3 seconds")
    assert time.monotonic() - start < 40


def test_a_deadline_ends_a_download_that_goes_on(standin, monkeypatch):
    monkeypatch.setattr(hub, "TOTAL_SECONDS", 2)
    standin.stalled.add("config.json")
    refused("takes longer than")


def test_a_redirection_in_circles_ends(standin, monkeypatch):
    monkeypatch.setattr(hub, "STALL_SECONDS", 5)
    standin.redirected["model.safetensors"] = f"{standin.url}/me/thing/resolve/{COMMIT}/model.safetensors"
    refused("did not give")


def test_the_token_is_the_owners(standin, monkeypatch):
    download.find("me/thing")
    assert "Bearer hf_of_the_owner" in standin.tokens
    standin.tokens.clear()
    monkeypatch.setattr(hub, "_owner_asks", lambda: False)
    for path in (Path(os.environ["SFTDEMO_HOME"]) / "models" / "me--thing").iterdir():
        path.unlink()
    (Path(os.environ["SFTDEMO_HOME"]) / "models" / "me--thing").rmdir()
    download.find("me/thing")
    assert set(standin.tokens) == {None}


def test_a_child_for_a_visitor_has_no_token(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_owner")
    for owner in (True, False):
        monkeypatch.setattr(hub, "_owner_asks", lambda owner=owner: owner)
        assert ("HF_TOKEN" in hub.environment()) is owner
        assert ("HF_HUB_DISABLE_IMPLICIT_TOKEN" in hub.environment()) is not owner
        assert "HF_TOKEN" not in hub.visitors_environment()


@pytest.mark.parametrize("owner", [True, False])
def test_no_child_has_the_secrets_of_the_app(monkeypatch, owner):
    from sftdemo.ui.access.settings import SECRET, variable

    assert {variable(name) for name in SECRET} == set(hub.APP_SECRETS)
    for name in (*hub.APP_SECRETS, *hub.TOKENS):
        monkeypatch.setenv(name, "hidden")
    monkeypatch.setattr(hub, "_owner_asks", lambda: owner)
    assert not set(hub.APP_SECRETS) & set(hub.environment())
    assert "hidden" not in hub.without_secrets().values(), "what reads strangers' files has no secret at all"


def test_a_data_set_that_is_too_large_is_refused_by_its_list(standin):
    standin.announced = {"train.parquet": 10**12}
    with pytest.raises(UserError, match=r"has 1000 GB, more than the 5 GB .*name a subset or split"):
        data_hub.fetch("me/thing", None)
    assert not (Path(os.environ["SFTDEMO_HOME"]) / "hub").exists()


def test_a_data_set_that_stands_still_is_given_up(standin, monkeypatch):
    monkeypatch.setattr(hub, "STALL_SECONDS", 4)
    rows = b"".join(json.dumps({"text": "a" * 99, "label": "x"}).encode() + b"\n" for _ in range(999))
    standin.files = {"train.jsonl": rows}
    standin.announced = {"train.jsonl": len(rows)}
    standin.stalled.add("train.jsonl")
    with pytest.raises(UserError, match=r"'me/thing' can't be fetched") as fault:
        data_hub.fetch("me/thing", None)
    assert "\n" not in str(fault.value)


def test_work_in_a_thread_asks_as_whoever_began_it(monkeypatch):
    owner = contextvars.ContextVar("owner", default=True)
    monkeypatch.setattr(hub, "_owner_asks", owner.get)
    tokens = []

    class Look(Job):
        def _work(self) -> None:
            tokens.append(hub.token())

    def as_visitor() -> None:
        owner.set(False)
        tokens.append(hub.within(5, hub.token))
        (job := Look(Run(Path("r")))).start()
        job.thread.join()

    contextvars.Context().run(as_visitor)
    assert tokens == [False, False]


def test_within_gives_results_faults_and_up():
    assert hub.within(5, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        hub.within(5, lambda: 1 // 0)
    with pytest.raises(TimeoutError):
        hub.within(0.05, lambda: time.sleep(1))
