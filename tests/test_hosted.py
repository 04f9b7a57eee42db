"""A hosted app: what SIGTERM saves, where runs and votes are kept, and what the page says where they are not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub.errors import EntryNotFoundError

from sftdemo import runs
from sftdemo.config import EvaluateConfig, TrainConfig
from sftdemo.errors import UserError
from sftdemo.training import resume
from sftdemo.ui import work
from sftdemo.ui.hosting import hub_backup, shutdown, storage
from sftdemo.ui.parts import page
from sftdemo.verbs import jobs

ROOT = Path(__file__).parents[1]
APP = """
import json, sys, threading, time
from sftdemo.config import EvaluateConfig, TrainConfig
from sftdemo.ui import launch
from sftdemo.verbs import jobs
def begin():
    for settings in json.loads(sys.argv[1]):
        jobs.start(TrainConfig.from_json(settings))
threading.Timer(2, begin).start()
launch(port=int(__import__("socket").create_server(("127.0.0.1", 0)).getsockname()[1]) + 7)
"""


def test_sigterm_waits_for_an_evaluation_that_keeps_its_rows(home, monkeypatch):
    run = runs.create("first", "unused", {"settings": {}})
    evaluation = work.Evaluation(run, EvaluateConfig(), 9)
    evaluation.thread = threading.Thread(target=evaluation.stop.wait, args=(30,), daemon=True)
    evaluation.thread.start()
    monkeypatch.setattr(work, "_evaluation", evaluation)
    shutdown.stop_work(20)
    assert not evaluation.active


class Hub:
    """As much of the Hub's API as a scheduler of commits needs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.created, self.commits, self.pool = folder, {}, 0, ThreadPoolExecutor(1)

    def create_repo(self, repo_id, private, repo_type, exist_ok):
        self.created = {"private": private, "repo_type": repo_type}
        return type("Url", (), {"repo_id": repo_id})

    def run_as_future(self, work):
        return self.pool.submit(work)

    def create_commit(self, repo_id, repo_type, operations, commit_message, revision):
        for operation in operations:
            with operation.as_file() as file:
                (self.folder / operation.path_in_repo).write_bytes(file.read())
        self.commits += 1

    def super_squash_history(self, **_):
        """The stand-in keeps no history."""

    def hf_hub_download(self, repo_id, name, repo_type, local_dir):
        if not (self.folder / name).exists():
            raise EntryNotFoundError("none yet")
        Path(local_dir).mkdir(parents=True)
        return shutil.copy(self.folder / name, local_dir)


@pytest.fixture
def repository(tmp_path) -> Hub:
    (tmp_path / "repository").mkdir()
    return Hub(tmp_path / "repository")


def test_a_restarted_space_has_its_runs_again(home, repository):
    run = runs.create("first", "unused", {"settings": {}})
    run.write_status("finished", step=9, total=9)
    keeper = hub_backup.start("me/kept", repository)
    keeper.finish(20)
    assert repository.created == {"private": True, "repo_type": "dataset"} and repository.commits == 1
    shutil.rmtree(home)
    hub_backup.start("me/kept", repository).finish(20)
    assert runs.named("first").status()["state"] == "finished"


def test_only_what_has_changed_is_committed(home, repository):
    keeper = hub_backup.HomeBackup("me/kept", repository, every=60)
    keeper.trigger().result()
    assert repository.commits == 0, "an empty home"
    run = runs.create("first", "unused", {"settings": {}})
    run.write_status("finished", step=9, total=9)
    for _ in range(3):
        keeper.trigger().result()
    assert repository.commits == 1
    run.write_status("stopped", step=9, total=9)
    keeper.finish(20)
    assert repository.commits == 2


def test_a_hub_that_refuses_is_one_line(home, repository):
    repository.create_repo = lambda **_: (_ for _ in ()).throw(ValueError("403\nForbidden"))
    with pytest.raises(UserError, match=r"'me/kept' can't be used .*403 Forbidden.*HF_TOKEN"):
        hub_backup.start("me/kept", repository)


def test_the_banner_says_what_would_be_lost(home, monkeypatch):
    assert page.banner("en") == ""
    monkeypatch.setenv("SPACE_ID", "me/space")
    monkeypatch.setattr(storage.os.path, "ismount", lambda folder: str(folder) == "/")
    assert "lost when this Space restarts" in page.banner("en") and "丢失" in page.banner("zh")
    monkeypatch.setattr(storage.os.path, "ismount", lambda folder: Path(folder) in (Path("/"), home.parent))
    assert page.banner("en") == ""
    monkeypatch.setattr(storage.os.path, "ismount", lambda folder: str(folder) == "/")
    assert not storage.is_lost_at_restart("me/kept")


def test_a_volume_is_used_where_there_is_one(monkeypatch, tmp_path):
    monkeypatch.setenv("SPACE_ID", "me/space")
    monkeypatch.delenv("SFTDEMO_HOME")
    monkeypatch.setattr(storage, "VOLUME", tmp_path)
    storage.use_volume()
    assert "SFTDEMO_HOME" not in os.environ, "no mount"
    monkeypatch.setattr(storage.os.path, "ismount", lambda folder: True)
    storage.use_volume()
    assert os.environ.pop("SFTDEMO_HOME") == str(tmp_path / "sftdemo")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 0)])
def test_the_app_ends_with_its_trainings_saved(home, labelled, tiny, number, status):
    """The whole app, as a container's end or Ctrl-C finds it: nothing trains on, and what trained or waited goes on later."""
    long = TrainConfig(data=labelled, model=tiny, name="long", epochs=100, batch_size=1)
    configs = [long.to_json(), {**long.to_json(), "name": "next"}]
    app = subprocess.Popen(
        [sys.executable, "-c", APP, json.dumps(configs)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 200
    while [run.name for run in runs.waiting()] != ["next"] or not (runs.named("long").status().get("step") or 0):
        assert time.monotonic() < deadline and app.poll() is None
        time.sleep(0.1)
    pids = [runs.named(name).status()["pid"] for name in ("long", "next")]
    time.sleep(1)  # a process that has just begun to wait doesn't hear signals yet
    app.send_signal(number)
    assert app.wait(60) == status
    assert [runs.process_start(pid) for pid in pids] == [None, None], "both are gone with the app"
    assert [run.name for run in runs.cut_off()] == ["long", "next"]
    assert runs.named("long").status()["state"] == "stopped" and runs.named("next").status()["cut_off"]
    assert jobs.can_resume(runs.named("long")) and resume.start(runs.named("long")).checkpoint.step > 0
