"""The public endpoints: what a script may ask of the running app. Everything else on the page is private."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import gradio as gr

from sftdemo import runs
from sftdemo.config import kinds
from sftdemo.config.evaluate import EvaluateConfig
from sftdemo.config.generate import GenerateConfig
from sftdemo.errors import UsageError, UserError
from sftdemo.runs import voting
from sftdemo.ui import models
from sftdemo.ui.access import allowance, private, rights
from sftdemo.ui.parts import forms
from sftdemo.ui.parts.forms import EVALUATION_QUEUE, MODEL_QUEUE
from sftdemo.ui.parts.page import find_ready
from sftdemo.ui.tabs import ballot as ballots
from sftdemo.ui.tabs import evaluate as evaluate_tab
from sftdemo.votes import Store


async def compare(
    run: str, prompt: str, request: gr.Request, max_new_tokens: int = 256, temperature: float = 0.0, seed: int = 42
) -> dict[str, Any]:
    """Both answers to a prompt: {"base": str, "tuned": str, "tokens_per_s": {"base": float, "tuned": float}}."""
    _check_texts(prompt=prompt)
    settings = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
    config = forms.config(GenerateConfig, settings)
    if not prompt.strip():
        raise UsageError("The prompt is empty; give some text.")
    chosen = find_ready(run)
    if chosen.kind in kinds.LABELLING:
        return await labelled(chosen, prompt, config, request)
    served = await models.served(chosen.name)
    from sftdemo.verbs.compare import joined

    messages = [{"role": "user", "content": prompt}]
    with allowance.answering(rights.visitor(request), config, 2) as texts:
        events = served.events(messages, config, rights.asker(request))
        answers = joined(served.pair.names, [event async for event in events if hasattr(event, "side")])
        texts += [answers["base"], answers["tuned"]]
    return answers


async def labelled(run: runs.Run, prompt: str, config: GenerateConfig, request: gr.Request) -> dict[str, Any]:
    """The likeliest label of both sides with the probabilities of all, or the entities of the text."""
    from sftdemo.verbs.compare import labelled

    with allowance.answering(rights.visitor(request), config, 2):
        return await models.in_thread(lambda: labelled(run, prompt)) or {}


def evaluate(run: str, max_examples: int = evaluate_tab.FIRST_ROWS) -> dict[str, Any]:
    """Evaluate base and tuned on held-out rows and return the scores."""
    chosen = find_ready(run)
    config = forms.config(EvaluateConfig, {"max_examples": max_examples})
    *_, last = evaluate_tab.follow(chosen, config, evaluate_tab.held_out(chosen))
    return evaluate_tab.public_scores(last.scores or {})


def list_runs() -> list[dict[str, Any]]:
    """All runs, newest first, with state and main metric."""
    return [
        {key: _public(key, value) if isinstance(value, str) else value for key, value in runs.overview(run).items()}
        for run in runs.list_runs()
    ]


def _public(key: str, value: str) -> str:
    return private.setting(key, value) if key in private.NAMES_A_RUN else private.shown(value)


def vote_next(run: str, rater: str, request: gr.Request) -> dict[str, Any]:
    """The rater's next pair, without names: {"done", "ballot", "position", "total", "prompt", "answer_a", "answer_b"}."""
    chosen = find_ready(run)
    voting.check_kind(chosen)
    name = voting.open_contest(chosen)
    if not name:
        raise UserError("Run {name} has no evaluation yet; evaluate it first.", name=chosen.name)
    return ballots.public(Store().next_pair(chosen, name, ballots.rater_of(rater, request)))


def vote(ballot: str, choice: str, rater: str, request: gr.Request, reason: str = "") -> dict[str, Any]:
    """Store a vote (a, b, tie, bad or skip); the answer, which tells the sides, comes once it is on disk."""
    _check_texts(ballot=ballot, choice=choice, reason=reason)
    allowance.spend(rights.current(), "votes", 1)
    return asdict(Store().vote(ballot, choice, ballots.rater_of(rater, request), reason))


def _check_texts(**values: object) -> None:
    """Raise UsageError for what a script sends in the place of a text."""
    for name, value in values.items():
        if not isinstance(value, str):
            raise UsageError(
                "{name} is {value!r}; give a value of type {kind}.", name=name, value=repr(value)[:80], kind="str"
            )


def publish(endpoint: Callable[..., Any], name: str, needs: rights.Action, options: Mapping[str, Any]) -> None:
    """Make a function an endpoint of that name, for those who may do what it `needs`."""
    gr.api(forms.as_error(rights.guarded(endpoint, needs)), api_name=name, **options)


def build() -> None:
    """Publish the endpoints; questions are answered in one batch with the page's own."""
    light: dict[str, Any] = {"concurrency_limit": None}
    publish(compare, "compare", "chat", MODEL_QUEUE)
    publish(evaluate, "evaluate", "evaluate", EVALUATION_QUEUE)
    publish(list_runs, "runs", "look", light)
    publish(vote_next, "vote_next", "vote", light)
    publish(vote, "vote", "vote", light)
