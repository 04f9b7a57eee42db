"""A run onto the Hub: private, saved first, one line for each way it fails; against a stand-in that answers as the Hub does."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import DatasetCard, ModelCard, close_session, set_client_factory
from huggingface_hub.utils import get_session
from huggingface_hub.utils._http import default_client_factory

from sftdemo import runs
from sftdemo.config.push import PushConfig
from sftdemo.errors import UserError
from sftdemo.log import Reporter
from sftdemo.system import hub, hub_upload
from sftdemo.ui.texts.faults import in_words
from sftdemo.verbs import export as export_module
from sftdemo.verbs.push import DATA_CARD, push
from tests.hub_standin import TOKEN, HubServer, serving

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
OLD = ROOT / "tests" / "old"
EXPORTS = "sftdemo.verbs.push.export"


@pytest.fixture
def server(monkeypatch, tmp_path) -> Iterator[HubServer]:
    """The stand-in, asked from this process: a process of its own for each test would take seconds."""
    with serving() as running:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", running.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(hub_upload, "in_child", asked_here)
        yield running
        set_client_factory(default_client_factory)
        close_session()


def asked_here(asked, created, should_stop):
    before = ""
    for line in hub_upload.replies(asked):
        before = line.get("before", before)
        if line.get("created"):
            created()
        if should_stop():
            raise hub_upload.Stopped(before)
    return line


@pytest.fixture
def run(home, monkeypatch) -> runs.Run:
    """A run of an older version, whose export is its model folder and one weight file more."""
    shutil.copytree(OLD, home)

    def exported(run, to, reporter, config):
        shutil.copytree(run.model_path, to)
        (to / "README.md").write_text("")
        return export_module.Exported(to, "adapter" if config.format == "auto" else config.format, None)

    monkeypatch.setattr(EXPORTS, exported)
    return runs.named("old")


def test_a_model_is_pushed_private_with_card_and_data_card_and_without_rows(server, run):
    pushed = push(run, "me/moods", PushConfig(license="mit", data_license="cc-by-4.0"))
    assert (pushed.url, pushed.private, pushed.format) == (f"{server.url}/me/moods", True, "adapter")
    [(name, repository)] = server.repositories.items()
    assert name == "models/me/moods" and repository.private
    assert {"adapter_model.safetensors", "adapter_config.json", "README.md", DATA_CARD, "scores.png"} <= set(
        repository.files
    )
    weights = run.model_path / "adapter_model.safetensors"
    assert repository.files["adapter_model.safetensors"] == weights.read_bytes()
    card = ModelCard(repository.files["README.md"].decode())
    assert card.data.license == "mit" and 'from_pretrained("me/moods")' in card.text
    data_card = repository.files[DATA_CARD].decode()
    assert run.config()["data"]["sha256"] in data_card and "cc-by-4.0" in data_card and "| train | 25 |" in data_card
    assert "`messages` (40 rows)" in data_card and "not in this repository" in data_card
    rows = [example["messages"][0]["content"] for split in runs.SPLITS for example in run.examples(split)]
    assert not any(row in data.decode(errors="replace") for data in repository.files.values() for row in rows)
    assert str(run.path) not in str(repository.files) and TOKEN not in str(repository.files)
    assert run.pushes()["repositories"]["me/moods"]["url"] == pushed.url
    assert not (runs.home() / "pushes" / "old-auto").exists()


def test_others_may_train_while_it_is_sent(server, run, monkeypatch):
    held = []
    send = hub_upload.upload
    monkeypatch.setattr(hub_upload, "upload", lambda *args: held.append("sending") or send(*args))

    @contextlib.contextmanager
    def exporting():
        held.append("exporting")
        yield
        held.append("exported")

    push(run, "me/moods", while_exporting=exporting)
    assert held == ["exporting", "exported", "sending"]


def test_rows_go_along_only_where_that_is_asked(server, run):
    pushed = push(run, "me/moods", PushConfig(with_data=True))
    files = server.repositories["datasets/me/moods-data"].files
    assert pushed.data_url == f"{server.url}/datasets/me/moods-data"
    assert server.repositories["datasets/me/moods-data"].private
    card = DatasetCard(files["README.md"].decode())
    assert card.data.license == "unknown" and [s["split"] for s in card.data.configs[0]["data_files"]] == list(
        runs.SPLITS
    )
    train = [json.loads(line) for line in files["train.jsonl"].splitlines()]
    assert [row["messages"] for row in train] == [row["messages"] for row in run.examples("train")]
    assert "meta" not in train[0]
    model_card = ModelCard(server.repositories["models/me/moods"].files["README.md"].decode())
    assert model_card.data.datasets == ["me/moods-data"]


REFUSED = {
    "create 401": ("/api/repos/create", (401, "Invalid username or password."), "doesn't know the token"),
    "create 403": (
        "/api/repos/create",
        (403, "no rights to create"),
        r"may not write me/moods \(no rights to create\)",
    ),
    "card": ("/api/validate-yaml", (400, "x"), "refuses the card's metadata"),
    "upload 413": ("/storage/", (413, "Payload too large"), r"doesn't take that much \(Payload too large\)"),
    "commit 403": ("/commit/", (403, "Private repository storage limit reached"), "doesn't take that much"),
    "commit 413": ("/commit/", (413, "Entity too large"), "doesn't take that much"),
    "create 402": ("/api/repos/create", (402, "Payment required"), "doesn't take that much"),
    "create 500": ("/api/repos/create", (500, "Internal error"), r"has a fault of its own \(Internal error\)"),
    "create 429": ("/api/repos/create", (429, "Slow down"), "has a fault of its own"),
    "upload 503": ("/storage/", (503, "Unavailable"), "doesn't answer in time"),
    "tree 404": ("/tree/", (404, "Repository not found"), "may not write"),
}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Something to upload: a card and a file that is no text."""
    path = tmp_path / "export"
    path.mkdir()
    (path / "README.md").write_text("---\nlicense: mit\ntags:\n- sft\n---\n")
    (path / "model.safetensors").write_bytes(bytes(99))
    return path


def send(folder: Path, public: bool = False, ours: bool = True, created=lambda: None) -> dict[str, Any]:
    return hub_upload.upload(folder, "me/moods", "model", public, ours, created)


@pytest.mark.parametrize("case", REFUSED)
def test_each_refusal_is_one_line_and_the_next_attempt_goes_on(server, folder, monkeypatch, case):
    part, answer, says = REFUSED[case]
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between attempts
    server.refuse[part] = answer
    with pytest.raises(UserError, match=says) as refused:
        send(folder)
    assert "\n" not in str(refused.value) and TOKEN not in str(refused.value)
    server.refuse.clear()
    assert send(folder)["private"]
    repository = server.repositories["models/me/moods"]
    assert len(repository.commits) == 1 and repository.files["model.safetensors"] == bytes(99)


def test_a_host_that_falls_silent_is_given_up(server, folder, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    server.silent = {"/preupload/"}
    with pytest.raises(UserError, match="doesn't answer in time"):
        send(folder, created=lambda: setattr(get_session(), "timeout", 0.3))
    assert sum("preupload" in request for request in server.requests) <= hub_upload.MOST_ATTEMPTS
    monkeypatch.setattr(hub_upload, "READ_SECONDS", 0.1)
    server.silent = {"/api/repos/create"}
    with pytest.raises(UserError, match="doesn't answer in time"):
        send(folder)


def test_a_push_that_failed_is_kept_and_goes_on(server, run, monkeypatch):
    server.refuse["/commit/"] = (413, "Entity too large")
    kept = runs.home() / "pushes" / "old-auto"
    with pytest.raises(UserError, match="doesn't take that much") as refused:
        push(run, "me/moods")
    assert str(refused.value).endswith(f"is kept in {kept}; the same push sends it again.")
    assert (kept / "model" / "adapter_model.safetensors").is_file()
    assert run.pushes()["repositories"]["me/moods"]["commit"] == ""
    server.refuse.clear()
    monkeypatch.setattr(EXPORTS, lambda *_, **__: pytest.fail("exported twice"))
    assert push(run, "me/moods").private and not kept.exists()


def test_what_is_wrong_here_is_said_without_asking(server, run, monkeypatch):
    for name in ("moods", "", "me/", "me/a b", "../me/moods"):
        with pytest.raises(UserError, match="can't be a repository's name"):
            push(run, name)
    with pytest.raises(UserError, match="can't be a repository's name"):
        push(run, "me/" + "a" * 120)
    with pytest.raises(UserError, match="license is 'MIT, mostly'"):
        push(run, "me/moods", PushConfig(license="MIT, mostly"))
    monkeypatch.setattr(hub, "_owner_asks", lambda: False)
    with pytest.raises(UserError, match="Only the owner of this app may push"):
        push(run, "me/moods")
    assert server.requests == [] and not (runs.home() / "pushes").exists()


def test_without_token_or_network_nothing_is_asked(server, folder, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="There is no token for the Hub; set HF_TOKEN"):
        send(folder)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        send(folder)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(UserError, match="can't be reached"):
        send(folder)
    assert server.requests == []


def test_a_token_is_never_shown(server, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match="doesn't know the token"):
        send(folder)
    server.refuse["/api/repos/create"] = (403, "the token hf_wrong may not")
    with pytest.raises(UserError, match="the token … may not") as refused:
        send(folder)
    assert "hf_wrong" not in str(refused.value)


def test_names_that_others_have_are_left_alone_and_own_ones_hold_one_format(server, folder):
    send(folder)
    with pytest.raises(UserError, match="There is a repository me/moods already that wasn't made from this run"):
        send(folder, ours=False)
    repository = server.repositories["models/me/moods"]
    (folder / "model.safetensors").rename(folder / "merged.safetensors")
    send(folder)
    assert sorted(repository.files) == [".gitattributes", "README.md", "merged.safetensors"]
    sent = [
        ["file README.md", "lfsFile model.safetensors"],
        ["deletedFile model.safetensors", "lfsFile merged.safetensors"],
    ]
    assert [sorted(operations) for operations in repository.commits] == sent, "what is the same isn't sent again"
    send(folder)
    assert len(repository.commits) == 2


def test_nothing_is_sent_where_others_would_see_it(server, folder):
    assert not send(folder, public=True)["private"]
    (folder / "secret.txt").write_text("x")
    with pytest.raises(UserError, match="me/moods is public; push with --public"):
        send(folder)
    assert "secret.txt" not in server.repositories["models/me/moods"].files
    server.repositories["models/me/moods"].private = True
    assert send(folder, public=True)["private"], "the Hub's settings decide of what is there"


class Watched(Reporter):
    """Says stop once the requests that the Hub got fit to a pattern."""

    def __init__(self, server: HubServer, pattern: str) -> None:
        self.server, self.pattern = server, pattern

    def should_stop(self) -> bool:
        return bool(re.search(self.pattern, " ".join(self.server.requests)))


@pytest.mark.parametrize(
    ("stops_at", "states"),
    [
        ("$", None),
        ("GET", "me/moods-data isn't there, me/moods isn't there"),
        (
            r"create .*/commit/.*create .*/models/",
            "me/moods-data has all that was sent, me/moods is there, without any file",
        ),
        (r"/api/models/\S+/commit/", "me/moods-data has all that was sent, me/moods has all that was sent"),
    ],
)
def test_a_push_that_is_stopped_says_what_is_there(server, run, stops_at, states):
    with pytest.raises(UserError) as stopped:
        push(run, "me/moods", PushConfig(with_data=True), Watched(server, stops_at))
    text = str(stopped.value)
    if states is None:
        assert text == "Stopped; nothing was sent to the Hub." and server.requests == []
        return
    states = states.replace("me/moods-data", "datasets/me/moods-data")
    kept = f"The export is kept in {runs.home() / 'pushes' / 'old-auto'}; the same push sends it again."
    assert text == f"Stopped. On the Hub now: {states}. {kept}"
    assert push(run, "me/moods", PushConfig(with_data=True)).data_url, "what it made is this run's own"
    assert "已停止。Hub 上现在：" in in_words(stopped.value, "zh")


def test_a_stop_leaves_what_was_pushed_before(server, run):
    push(run, "me/moods")
    server.requests.clear()
    before = dict(server.repositories["models/me/moods"].files)
    run.model_path.joinpath("chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(UserError, match="On the Hub now: me/moods is as it was before"):
        push(run, "me/moods", reporter=Watched(server, "create .*GET"))
    assert server.repositories["models/me/moods"].files == before


PUSHES = (
    "import shutil, sys; from sftdemo.verbs import export as module, push\n"
    "def exported(run, to, reporter, config):\n"
    "    shutil.copytree(run.model_path, to); return module.Exported(to, 'adapter', None)\n"
    "push.export = exported\n"
    "from sftdemo import __main__; sys.argv[1:] = ['push', 'old', 'me/moods', '--json']; sys.exit(__main__.main())"
)


def test_the_command_pushes_from_a_process_of_its_own_which_ctrl_c_ends(home):
    shutil.copytree(OLD, home)
    with serving() as running:
        environment = {**os.environ, "HF_ENDPOINT": running.url, "HF_HUB_OFFLINE": "0", "HF_TOKEN": TOKEN}
        environment["PYTHONPATH"] = str(ROOT)
        options = {"env": environment, "cwd": ROOT, "text": True}
        running.silent = {"/commit/"}
        pushing = subprocess.Popen([sys.executable, "-c", PUSHES], stderr=subprocess.PIPE, **options)
        while not any("/commit/" in request for request in running.requests) and pushing.poll() is None:
            time.sleep(0.05)
        pushing.send_signal(signal.SIGINT)
        said = pushing.communicate(timeout=120)[1]
        assert pushing.returncode == 130 and "On the Hub now: me/moods is there, without any file." in said, said
        assert "Traceback" not in said and said.endswith("sftdemo: stopped.\n")
        running.silent = set()
        done = subprocess.run([sys.executable, "-c", PUSHES], capture_output=True, **options)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["url"] == f"{running.url}/me/moods"
        assert "adapter_model.safetensors" in running.repositories["models/me/moods"].files
        assert TOKEN not in done.stdout + done.stderr + said
