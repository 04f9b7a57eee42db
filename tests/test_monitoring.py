"""What operators read of a running app, over HTTP as their tools do."""

from __future__ import annotations

import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("gradio")

from prometheus_client.parser import text_string_to_metric_families

from sftdemo.ui import launch, models, server
from sftdemo.votes import Store
from tests.test_ui import made_run
from tests.test_votes import make_run, vote_for


def read(url: str, **headers: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture
def url(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(server, "warm", lambda: None)  # no model is asked here
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    app, _, _ = launch(port=port, prevent_thread_lock=True, quiet=True)
    yield f"http://127.0.0.1:{port}"
    app.blocks.close()


def values(text: str) -> dict[str, float]:
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {"".join([sample.name, *sample.labels.values()]): sample.value for sample in samples}


@pytest.mark.slow
def test_operators_see_that_it_answers_and_what_it_does(url: str) -> None:
    assert read(f"{url}/healthz") == (200, "ok\n")
    made_run("a")
    made_run("b", "failed")
    store = Store()
    vote_for(store, make_run(3), "tuned")
    status, text = read(f"{url}/metrics")
    measured = values(text)
    assert status == 200 and measured["process_resident_memory_bytes"] > 10**7
    assert measured["sftdemo_runsfinished"] == 1 and measured["sftdemo_runsfailed"] >= 1
    assert (measured["sftdemo_votes_total"], measured["sftdemo_queue_length"]) == (1, 0)
    assert {"sftdemo_questionsanswered", "sftdemo_questionswaiting", "sftdemo_tokens_total"} <= measured.keys()
    assert "gradio_config" in read(url)[1], "the page is where it was"


@pytest.mark.slow
def test_visitors_do_not_read_metrics(url: str) -> None:
    status, text = read(f"{url}/metrics", **{"X-Forwarded-For": "203.0.113.7"})
    assert status == 403 and "sftdemo_" not in text
    assert read(f"{url}/healthz", **{"X-Forwarded-For": "203.0.113.7"}) == (200, "ok\n")


def test_who_comes_while_libraries_are_loaded_is_told_nothing_unexpected(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module stands among the loaded ones as soon as its import begins."""
    for name in ("server", "labelling"):
        monkeypatch.setitem(sys.modules, f"sftdemo.inference.{name}", ModuleType(name))
    assert not models.is_loaded() and models.question_counts() == (0, 0, 0)
    models.release()
