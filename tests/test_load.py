"""Many visitors beside a training, over HTTP: no error, everybody is served alike, and what is light stays quick.

A few seconds in CI; `SFTDEMO_LOAD_SECONDS=600 pytest tests/test_load.py -n 0` for ten minutes. Speed is asked for on a machine
that does nothing else.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytest.importorskip("httpx")

from benchmarks.load import load
from sftdemo import train
from sftdemo.config import TrainConfig
from sftdemo.runs import active, named
from sftdemo.verbs import jobs
from tests.conftest import label_rows
from tests.test_browser import end, serve

pytestmark = pytest.mark.slow
SECONDS = float(os.environ.get("SFTDEMO_LOAD_SECONDS", 12))
CLIENTS = int(os.environ.get("SFTDEMO_LOAD_CLIENTS", 30))
LIGHT_P95_S = float(os.environ.get("SFTDEMO_LOAD_P95_S", "inf"))  # asked for on a quiet machine alone


@pytest.fixture
def app(home: Path, tiny: str, tmp_path: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The app with a run to talk to, beside a training that takes longer than the test."""
    data = tmp_path / "moods.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in label_rows(2000)), encoding="utf-8")
    train(TrainConfig(data=str(data), model=tiny, name="r", max_examples=32))
    url, process = serve(home)
    run = jobs.start(TrainConfig(data=str(data), model=tiny, name="long", epochs=100, batch_size=1))
    yield url, psutil.Process(process.pid)
    end(process)
    for run in active():
        os.kill(run.status()["pid"], signal.SIGKILL)


def test_many_visitors_beside_a_training(app: tuple[str, psutil.Process]) -> None:
    url, process = app
    asyncio.run(load(url, 5, 3))  # what is loaded once
    before = process.memory_info().rss
    report = asyncio.run(load(url, CLIENTS, SECONDS))
    print(json.dumps(report))
    assert report["errors"] == 0, report["first_errors"]
    served = report["chats_of_a_visitor"]
    assert served["least"] >= 1 and served["most"] <= 2 * served["least"] + 1
    assert named("long").status()["state"] == "running", "the training went on"
    grown = process.memory_info().rss - before
    assert grown < 300 * 2**20, f"{grown / 2**20:.0f} MiB more than before"
    assert report["light"]["p95"] < LIGHT_P95_S, report
