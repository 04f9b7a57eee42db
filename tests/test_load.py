"""Many visitors beside a training, over HTTP: no error, everybody is served alike, and what is light stays quick.

A few seconds in CI. For ten minutes, with a click every five seconds as of somebody who reads:
`SFTDEMO_LOAD_SECONDS=600 SFTDEMO_LOAD_PAUSE_S=5 SFTDEMO_LOAD_P95_S=0.3 SFTDEMO_NICENESS=10 pytest tests/test_load.py -n 0 -s`. Speed is
asked for on a machine that does nothing else.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("httpx")

from benchmarks.load import load
from sftdemo import evaluate, train
from sftdemo.config import EvaluateConfig, TrainConfig
from sftdemo.runs import active, named
from sftdemo.verbs import jobs
from sftdemo.votes import Store
from tests.browser import end, serve
from tests.conftest import label_rows
from tests.test_commands import wait_for_steps

pytestmark = pytest.mark.slow
SECONDS = float(os.environ.get("SFTDEMO_LOAD_SECONDS", 12))
PAUSE_S = float(os.environ.get("SFTDEMO_LOAD_PAUSE_S", 1))
CLIENTS = int(os.environ.get("SFTDEMO_LOAD_CLIENTS", 30))
LIGHT_P95_S = float(os.environ.get("SFTDEMO_LOAD_P95_S", "inf"))  # asked for on a quiet machine alone
MIB = 2**20
MOST_GROWN, MOST_CREEP = 300 * MIB, 64 * MIB  # since before the load; from the middle to the last third of a long one
LONG_S = 120.0


@pytest.fixture
def app(home: Path, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, psutil.Process]]:
    """The app with a run to talk to and to vote on, beside a training that takes longer than the test."""
    if SECONDS >= LONG_S:  # as it is on a machine of its own
        for name in ("OMP_NUM_THREADS", "SFTDEMO_COMPILED"):
            monkeypatch.delenv(name)
    data = tmp_path / "moods.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in label_rows(2000)), encoding="utf-8")
    train(TrainConfig(data=str(data), model=tiny, name="r", max_examples=32))
    evaluate("r", EvaluateConfig(max_examples=100))
    url, process = serve(home)
    run = jobs.start(TrainConfig(data=str(data), model=tiny, name="long", epochs=100, batch_size=1))
    wait_for_steps(run, 1)  # thirty clients at once would hold its loading up
    yield url, psutil.Process(process.pid)
    end(process)
    for run in active():
        os.kill(run.status()["pid"], signal.SIGKILL)


async def watched(work: Any, process: psutil.Process, every: float) -> tuple[dict[str, Any], list[int]]:
    """What the work comes to, and the app's memory in the meantime."""
    task, memory = asyncio.ensure_future(work), []
    while not (await asyncio.wait([task], timeout=every))[0]:
        memory.append(process.memory_info().rss)
    return task.result(), memory


def test_many_visitors_beside_a_training(app: tuple[str, psutil.Process]) -> None:
    url, process = app
    asyncio.run(load(url, 5, 3, run="r"))  # what is loaded once
    before, cast, begun = process.memory_info().rss, Store().cast(), named("long").status().get("step") or 0
    report, memory = asyncio.run(watched(load(url, CLIENTS, SECONDS, run="r", pause=PAUSE_S), process, SECONDS / 30))
    training = named("long").status()
    third = len(memory) // 3
    creep = statistics.median(memory[-third:]) - statistics.median(memory[third : 2 * third])
    report |= {
        "votes_stored": Store().cast() - cast,
        "training_steps": (training.get("step") or 0) - begun,
        "memory_mib": [round(size / MIB) for size in (before, memory[-1], max(memory))],
        "memory_creep_mib": round(creep / MIB, 1),
    }
    print("", *(f"{name:20} {json.dumps(value)}" for name, value in report.items()), sep="\n")
    assert report["errors"] == 0, report["first_errors"]
    served, is_long = report["chats_of_a_visitor"], report["seconds"] >= LONG_S
    assert report["chats_served"] == report["chats_asked"] and served["least"] >= 1
    assert served["most"] <= 2 * served["least"] + (not is_long)
    assert report["votes_stored"] == report["votes_acknowledged"] > 0, "no vote is lost, and none doubled"
    assert training["state"] == "running" and report["training_steps"] > 0, "the training went on"
    assert max(memory) - before < MOST_GROWN, report["memory_mib"]
    assert creep < MOST_CREEP or not is_long, report["memory_creep_mib"]
    assert report["light"]["p95"] < LIGHT_P95_S, report["light"]
