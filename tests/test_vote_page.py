"""The vote's public endpoints on the running app: blind, once, and for whoever the rater is."""

from __future__ import annotations

import importlib.util
import json
import re
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("gradio")

from sftdemo.errors import UserError
from sftdemo.ui import build
from sftdemo.ui.parts.preference import headline
from sftdemo.ui.parts.preference import verdict as evidence
from sftdemo.ui.tabs import ballot
from sftdemo.ui.tabs.vote_results import metric_agreement, ranking, raters, reasons, trust
from sftdemo.ui.texts import say
from sftdemo.votes import Store, Totals
from tests.test_votes import EVALUATION, events, make_run, vote_for

pytestmark = pytest.mark.slow

FIELDS = {"done", "ballot", "position", "total", "prompt", "answer_a", "answer_b"}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    blocks = build()
    blocks.queue(api_open=False)
    _, url, _ = blocks.launch(
        server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, ssr_mode=False, run_history=False
    )
    yield url
    blocks.close()


@pytest.fixture(scope="module")
def client(url: str) -> Any:
    from gradio_client import Client

    return Client(url, verbose=False)


def test_nothing_tells_the_sides_before_the_vote(url: str, client: Any) -> None:
    run = make_run(6)
    pages = [urllib.request.urlopen(url + path).read().decode() for path in ("", "config", f"rate?run={run.name}")]
    assert not any(re.search(r"word \d|say word", page, re.I) for page in pages)
    seen: dict[str, str] = {}
    for rater in ("ann", "bob"):
        for _ in range(3):
            reply = client.predict(run.name, rater, api_name="/vote_next")
            assert reply.keys() == FIELDS
            assert reply == client.predict(run.name, rater, api_name="/vote_next"), "a reload tells nothing new"
            assert not re.search(r"base|tuned|side|\brow\b|held-out", json.dumps(reply))
            assert re.fullmatch(r"[0-9a-f]{32}", reply["ballot"]) and reply["ballot"] not in seen
            seen[reply["ballot"]] = reply["prompt"][0]["content"]
            client.predict(reply["ballot"], "tie", rater, api_name="/vote")
    assert len(set(seen.values())) == 6  # spread: nobody was asked what another had answered


def test_a_direct_second_post_changes_nothing(client: Any) -> None:
    run, store = make_run(3), Store()
    token = client.predict(run.name, "ann", api_name="/vote_next")["ballot"]
    first = client.predict(token, "a", "ann", "clearer", api_name="/vote")
    assert first.keys() == {"base_side", "choice", "winner"}
    before = [tuple(event) for event in events(store)]
    with ThreadPoolExecutor(4) as pool:
        replies = list(
            pool.map(lambda c: client.predict(token, c, "ann", "", api_name="/vote"), ["b", "tie", "a", "bad"])
        )
    assert replies == [first] * 4 and [tuple(event) for event in events(store)] == before
    assert store.export(run, "jsonl").count('"reason": "clearer"') == 1


def test_two_clients_vote_at_once_on_the_same_evaluation(url: str) -> None:
    from gradio_client import Client

    run = make_run(3)

    def vote_on_all(rater: str) -> int:
        client, votes = Client(url, verbose=False), 0
        while not (reply := client.predict(run.name, rater, api_name="/vote_next"))["done"]:
            client.predict(reply["ballot"], "a", rater, api_name="/vote")
            votes += 1
        return votes

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(vote_on_all, ["ann", "bob"])) == [3, 3]
    totals = Store().totals(run, EVALUATION)
    assert (totals.n, totals.raters, totals.base + totals.tuned) == (6, 2, 6)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("{token}", "a", "bob"), "not given to 'bob'"),
        (("made-up", "a", "ann"), "'made-up' was not given"),
        (("{token}", "best", "ann"), "'best' is no choice"),
        (("{token}", "a", "@ann"), "'@ann' is the name of an account"),
    ],
)
def test_a_wrong_post_is_refused_in_words(client: Any, arguments: tuple[str, ...], says: str) -> None:
    token = client.predict(make_run(3).name, "ann", api_name="/vote_next")["ballot"]
    with pytest.raises(Exception, match=says):
        client.predict(*(argument.format(token=token) for argument in arguments), "", api_name="/vote")
    assert events(Store()) == []


@pytest.mark.parametrize(
    ("arguments", "endpoint", "chinese"),
    [
        (("gone", "ann"), "/vote_next", "没有运行 'gone'"),
        (("nobody's", "a", "ann", ""), "/vote", "选票 \"nobody's\" 不是发给 'ann' 的"),
        (("gone", "Hi", 32, 9.0, 42), "/compare", "“温度”的值是 9，不能大于 2。"),
        (("gone", 5), "/evaluate", "没有运行 'gone'"),
    ],
)
def test_what_is_refused_is_said_in_chinese_to_a_chinese_page(url, arguments, endpoint, chinese) -> None:
    from gradio_client import Client

    chinese_client = Client(url, verbose=False, headers={"cookie": "sftdemo_lang=zh"})
    with pytest.raises(Exception, match=re.escape(chinese)):
        chinese_client.predict(*arguments, api_name=endpoint)


# Who votes


def visitor(username: str | None = None, session: dict[str, Any] | None = None) -> SimpleNamespace:
    return SimpleNamespace(username=username, request=SimpleNamespace(scope={"session": session or {}}))


def test_an_account_goes_before_a_name_and_no_name_passes_for_one() -> None:
    known = {"oauth_info": {"expires_at": 2**40, "userinfo": {"preferred_username": "ada"}}}
    assert ballot.rater_of("ann", visitor()) == "ann"
    assert ballot.rater_of("ann", visitor(session=known)) == "@ada"
    assert ballot.rater_of("@bob", visitor("ada")) == "@ada"
    expired = {"oauth_info": known["oauth_info"] | {"expires_at": 1}}
    assert ballot.account(visitor(session=expired)) == ""
    for alike in (" @ada", "\u200b@ada", "\uff20ada", "\u3164@ada", "\ufe6bada", "\u2800\u0301@ada"):
        with pytest.raises(UserError, match="name of an account"):
            ballot.rater_of(alike, visitor())
    assert ballot.rater_of("ada@example.com", visitor()) == "ada@example.com"


@pytest.mark.skipif(importlib.util.find_spec("authlib") is not None, reason="the libraries to sign in are here")
def test_a_space_without_the_libraries_to_sign_in_still_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "me/demo")
    monkeypatch.setenv("OAUTH_CLIENT_ID", "x")
    assert build().expects_oauth is False


# Results


def totals(**values: Any) -> Totals:
    counts = dict.fromkeys(("base", "tie", "bad", "skip", "same"), 0) | {"tuned": 9, "raters": 1, "n": 9, "rows": 60}
    rates = {"win_rate": 1.0, "low": 0.7, "high": 1.0, "prompts": 9, "e_value": 51.2, "needed": 0}
    return Totals(**(counts | rates | values))


def test_the_verdict_says_enough_more_or_too_even() -> None:
    assert evidence(totals(), "en") == say("en", "votes_tuned", who="one rater", e="51")
    assert evidence(totals(win_rate=0.1, raters=3), "zh") == say("zh", "votes_base", who="3 位评审", e="51")
    assert evidence(totals(needed=None), "en") == say("en", "votes_even")
    assert evidence(totals(needed=12), "en") == say("en", "votes_more", n="12")
    assert "51 prompts are still undecided" in evidence(totals(needed=200), "en")


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_results_are_drawn_and_strangers_names_are_text(lang: str) -> None:
    store, run = Store(), make_run(14)
    assert say(lang, "votes_empty") in headline(store.totals(run), lang)
    for winner in ("tuned",) * 9 + ("base", "tie", "bad"):
        vote_for(store, run, winner, "<b>ann</b>")
    vote_for(store, run, "tie", "guest-ab12cd34")
    pair = store.next_pair(run, EVALUATION, "eve")
    assert pair
    store.vote(pair.ballot, "a", "eve", tags=["clear"], scales={"a": {"fluent": 4}, "b": {"fluent": 2}})
    report = store.report(run)
    shown = headline(report.totals, lang) + trust(report, lang) + raters(report, lang) + reasons(report, lang)
    shown += metric_agreement(report, lang) + ranking(store.ranking(run), run.name, lang)
    assert "<b>ann" not in shown and "&lt;b&gt;ann" in shown
    assert say(lang, "tag_clear") in shown and "4.0" in shown and say(lang, "metric_chrf") in shown
    assert say(lang, "rater_guest", name="ab12") in shown and shown.count(say(lang, "rater_exclude")) == 3
    store.exclude(run, "eve")
    assert say(lang, "rater_include") in raters(store.report(run), lang)
