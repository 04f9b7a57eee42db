"""For operators: `GET /healthz` says that the app answers, `GET /metrics` what it is doing, as Prometheus reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    CollectorRegistry,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from sftdemo import runs
from sftdemo.ui import models, work
from sftdemo.ui.access import rights
from sftdemo.votes import Store


class AppCollector:
    """What the app is doing at the moment of a scrape; read from where it stands, so that nothing is counted twice."""

    def __init__(self, blocks: Any) -> None:
        self.blocks = blocks

    def collect(self) -> Iterator[Metric]:
        sessions = self.blocks.state_holder.session_data
        yield GaugeMetricFamily("sftdemo_sessions", "Browser sessions whose state is kept.", len(sessions))
        yield GaugeMetricFamily("sftdemo_queue_length", "Events that wait for their turn.", len(self.blocks._queue))
        states = GaugeMetricFamily("sftdemo_runs", "Runs by state.", labels=["state"])
        for state, count in Counter(run.state for run in runs.list_runs()).items():
            states.add_metric([state], count)
        yield states
        answered, waiting, tokens = models.question_counts()
        questions = GaugeMetricFamily("sftdemo_questions", "Questions to the models by state.", labels=["state"])
        questions.add_metric(["answered"], answered)
        questions.add_metric(["waiting"], waiting)
        yield questions
        yield CounterMetricFamily("sftdemo_tokens", "Tokens that were decoded for visitors.", tokens)
        evaluation = work.evaluation()
        running = int(bool(evaluation and evaluation.active))
        yield GaugeMetricFamily("sftdemo_evaluations_running", "Evaluations that run now.", running)
        yield CounterMetricFamily("sftdemo_votes", "Votes that were cast, those taken back included.", Store().cast())


def routes(blocks: Any) -> list[Route]:
    """The two routes; they come before Gradio's own, which take every other path for a page."""
    registry = CollectorRegistry()
    for collector in (AppCollector(blocks), PROCESS_COLLECTOR, PLATFORM_COLLECTOR):
        registry.register(collector)

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def metrics(request: Request) -> Response:
        if not rights.visitor(request).owner:
            return PlainTextResponse("Only the owner of this app may read its metrics.\n", 403)
        with rights.for_owner():
            text = await run_in_threadpool(generate_latest, registry)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    return [Route("/healthz", healthz), Route("/metrics", metrics)]
