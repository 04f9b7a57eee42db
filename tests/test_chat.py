"""Chat: how a typed text is put, what is sent of a conversation, how it is drawn, kept, shared and exported."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

import gradio as gr
from starlette.applications import Starlette
from starlette.testclient import TestClient

from sftdemo import files
from sftdemo.data.conversion.wording import Wording, put_as, wordings_of
from sftdemo.errors import UserError
from sftdemo.ui.access import rights
from sftdemo.ui.access.settings import AppConfig
from sftdemo.ui.parts import html, word_diff
from sftdemo.ui.parts.page import Page
from sftdemo.ui.tabs import chat_files, chat_store, shared_chat, transcript
from sftdemo.ui.tabs.conversation import (
    BASE,
    MOST_TURNS,
    Answer,
    Conversation,
    Talk,
    Turn,
    as_messages,
    talk_with,
    talks_with,
)
from sftdemo.ui.tabs.kept_chats import KeptChats
from sftdemo.ui.tabs.transcript import View, past_and_now
from tests.test_tabs import request
from tests.test_ui import made_run

PAIR = "Are these alike: yes, no?\n\nSentence 1: {text}\nSentence 2: {pair}\nOne word."


@pytest.mark.parametrize(
    ("template", "text", "question"),
    [
        ("Classify {{x}}.\n\n{text}\nOne word.", "hi", "Classify {x}.\n\nhi\nOne word."),
        ("{text}", "hi", "hi"),
        ("Say something.", "hi", "hi"),
        ("", "hi", "hi"),
        ("Sum up.\n\n{title}\n\n{text}", "a\n\nb", "Sum up.\n\na\n\nb"),
        (PAIR, "hi", None),  # what the second would be isn't known
        (PAIR, "Sentence 1: a\nSentence 2: b", "Are these alike: yes, no?\n\nSentence 1: a\nSentence 2: b\nOne word."),
    ],
)
def test_a_typed_text_is_asked_as_the_rows_were(template: str, text: str, question: str | None) -> None:
    wordings = wordings_of({"data": {"instruction": template}})
    assert put_as(wordings, text) == question
    if question:
        assert put_as(wordings, question) == question, "once only"
        assert not wordings or wordings[0].taken_out(question) == text


def test_a_mixture_is_asked_as_the_part_that_was_chosen() -> None:
    parts = [{"name": "a", "instruction": "A: {text}"}, {"name": "b", "instruction": "B: {text}"}, {"name": "c"}]
    wordings = wordings_of({"data": {"instruction": "", "sources": parts}})
    assert [wording.source for wording in wordings] == ["a", "b"]
    assert put_as(wordings, "hi", "B: {text}") == "B: hi" and put_as(wordings, "hi", "other") is None
    assert put_as(wordings, "A: hi", "B: {text}") == "A: hi", "worded already"


def test_the_pattern_of_several_columns_is_told() -> None:
    assert wordings_of({"data": {"instruction": PAIR}})[0].pattern == "Sentence 1: …\nSentence 2: …"


def test_a_text_of_several_columns_is_matched_in_one_pass() -> None:
    """By a regular expression this one would take the server for years."""
    wording = Wording("Pick.\nA: {a}\nB: {{{b}}}\nC: {c}\nD: {d}")
    assert wording.put("A: " + "\nB: {" * 20_000 + "}\nC: " * 20_000) is None
    assert wording.put("A: 1\nB: {2}\nC: 3\nD: 4") == "Pick.\nA: 1\nB: {2}\nC: 3\nD: 4"
    for text in ("A: 1\nC: 3\nB: {2}\nD: 4", "A: 1\nB: {2\nC: 3\nD: 4", "B: {2}\nC: 3\nD: 4", "A: 1\nB: {}\nC: 3 D: 4"):
        assert wording.put(text) is None


def test_each_model_is_sent_its_own_questions_and_answers() -> None:
    first = Turn("hi", {"a": "A: hi"}, {BASE: Answer("x"), "a": Answer("<think>hm</think>y")})
    conversation = Conversation([first, Turn("so?", {"a": "A: so?"})], "Be brief.")
    assert [message["content"] for message in conversation.messages(BASE, "a")] == ["hi", "x", "so?"]
    sent = conversation.messages("a", "a")
    assert [message["content"] for message in sent] == ["A: hi", "y", "A: so?"] and sent[1]["reasoning_content"] == "hm"
    joined = [message["content"] for message in conversation.messages("late", "a")]
    assert joined == ["A: hi", "y", "so?"], "who joins later takes over what the first run has answered"
    assert [message["role"] for message in as_messages(conversation, BASE)] == ["system", "user", "assistant"]


def test_a_browser_keeps_a_conversation_a_run_and_few_of_them() -> None:
    talks: object = None
    for number in range(9):
        talks = talks_with(talks, f"r{number}", Talk(Conversation([Turn(str(number))])))
    assert talk_with(talks, "r8").now.turns[0].text == "8" and talk_with(talks, "r0").now.turns == []
    for strange in ({"r": 1}, {"r": {"now": {"turns": [{"text": 1}]}}}, {"r": {"now": {"turns": {}}}}):
        with pytest.raises(UserError, match="can't be read"):
            talk_with(strange, "r")


def test_words_that_differ_are_as_few_as_can_be_and_found_at_once() -> None:
    draw = random.Random(0)
    for _ in range(200):
        old, new = ([draw.choice("abc") for _ in range(draw.randrange(9))] for _ in range(2))
        pieces = list(word_diff.pieces(old, new))
        assert [word for _, a, b, *_ in pieces for word in old[a:b]] == old
        assert [word for *_, a, b in pieces for word in new[a:b]] == new
        equal = [(old[a:b], new[c:d]) for kind, a, b, c, d in pieces if kind == "equal"]
        longest = [[0] * (len(new) + 1) for _ in range(len(old) + 1)]
        for i, first in enumerate(old):
            for j, second in enumerate(new):
                longest[i + 1][j + 1] = (
                    longest[i][j] + 1 if first == second else max(longest[i][j + 1], longest[i + 1][j])
                )
        assert all(one == other for one, other in equal) and len(equal) == longest[-1][-1]
    # difflib compares these in a quarter of a minute.
    assert html.differences("a b " * 2_500, "b a a " * 1_700)


def test_a_transcript_shows_what_was_typed_and_tells_what_was_asked() -> None:
    answers = {BASE: Answer("the red cat", 3, 1.25, "length"), "a": Answer("the blue cat", 3, 1.25, "stop", right=True)}
    turn = Turn("<b>hi</b> ${x}", {"a": "A: hi"}, answers, "the blue cat")
    past, now = past_and_now(Conversation([turn, Turn("so?")]), View([BASE, "a"], "en"))
    for text in (
        "&lt;b&gt;hi&lt;/b&gt; &#36;&#123;x&#125;</div>",
        "Asked as in training",
        "A: hi",
        "Expected:",
        "tokens: 3 · 1.2\xa0s",
    ):
        assert text in past
    assert past.count("<mark>") == 2 and "<mark>red </mark>" in past and "✓" in past and ">cut<" in past
    assert "again:" not in past and "Not answered yet" in now
    live = past_and_now(Conversation([turn]), View([BASE, "a"], "en", streaming=True))[1]
    assert "<mark>" not in live and "data-pick" not in live


@pytest.mark.parametrize(("task", "marks"), [("chat", 2), ("classification", 0), ("tokens", 0)])
def test_labels_and_entities_have_no_marks_of_differences(home: Path, task: str, marks: int) -> None:
    """Marked as different, a text in which nothing was found would look as if all of it had been."""
    made_run(task, task=task)
    answers = {
        BASE: Answer("[Oslo](LOC) is far", finish_reason="stop"),
        task: Answer("Oslo is far", finish_reason="stop"),
    }
    drawn = past_and_now(Conversation([Turn("Oslo is far", {}, answers)]), View([BASE, task], "en"))[1]
    assert drawn.count("<mark>") == marks and "[Oslo](LOC)" in drawn.replace("<mark>", "").replace("</mark>", "")


def test_a_conversation_that_a_page_sends_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A post of megabytes costs no more than the latest turns, of which few are compared word by word."""
    answers = {BASE: Answer("a b " * 2_000, finish_reason="stop"), "r": Answer("b a " * 2_000, finish_reason="stop")}
    turns = [Turn(f"question {number}", {}, answers) for number in range(500)]
    sent = asdict(Talk(Conversation(turns), Conversation(turns)))
    talk = talk_with({"r": sent}, "r")
    assert talk.before == talk.now and 0 < len(talk.now.turns) < 100 and talk.now.turns[-1] == turns[-1]
    few = Conversation([Turn(str(number)) for number in range(500)])
    assert talk_with({"r": asdict(Talk(few))}, "r").now.turns == few.turns[-MOST_TURNS:]
    compared: list[str] = []
    differ = transcript.html.differences
    monkeypatch.setattr(transcript.html, "differences", lambda *both: (compared.append(both[0]), differ(*both))[1])
    past_and_now(talk.now, View([BASE, "r"], "en"))
    assert len(compared) == transcript.MARKED_TURNS
    assert few.up_to(MOST_TURNS + 1).is_full and not few.up_to(MOST_TURNS).is_full
    assert Conversation([Turn("x" * 600_000)]).is_full, "nothing is cut of what was asked"


# Kept and shared


OWNER = rights.Visitor("owner", "o")
ANN, BOB = (rights.Visitor("visitor", key * 16, browser=True) for key in "ab")
TALK = Conversation([Turn("<img src=//evil/x>", {"r": "Q: ?"}, {BASE: Answer("```\n<b>no</b>"), "r": Answer("yes")})])


@pytest.fixture
def visitors_share() -> Iterator[None]:
    rights.use(AppConfig(password="secret", visitors_share=True, visitor_chats=2), "::")
    yield
    rights.use(AppConfig(), "127.0.0.1")


def test_a_kept_chat_is_its_keepers(visitors_share: None) -> None:
    kept = chat_store.keep(ANN, "  my\nchat ", ["r"], TALK)
    assert (kept.name, chat_store.find(ANN, kept.id).conversation) == ("my chat", TALK)
    assert chat_store.listed(BOB) == [] and chat_store.listed(OWNER) == []
    for visitor, chat_id in ((BOB, kept.id), (ANN, "../" + kept.id), (ANN, "\0" * 24), (ANN, "x" * 24), (ANN, "")):
        for act in (chat_store.find, chat_store.delete, chat_store.change):
            with pytest.raises(UserError, match="isn't kept here"):
                act(visitor, chat_id)
    assert chat_store.change(ANN, kept.id, name="other").name == chat_store.listed(ANN)[0].name == "other"
    assert chat_store.shared(kept.id) is None
    chat_store.change(ANN, kept.id, shared=True)
    assert chat_store.shared(kept.id).name == chat_store.listed(OWNER)[0].name == "other", "the owner may delete it"
    rights.use(AppConfig(password="secret"), "::")
    assert chat_store.shared(kept.id) is None, "nothing of visitors where they may not share"
    chat_store.delete(OWNER, kept.id)
    assert chat_store.listed(ANN) == []


def test_the_chat_deleted_last_can_be_brought_back_for_an_hour(visitors_share: None) -> None:
    first, second = (chat_store.keep(ANN, name, ["r"], TALK) for name in ("first", "second"))
    chat_store.change(ANN, second.id, shared=True)
    for chat in (first, second):
        chat_store.delete(ANN, chat.id)
    assert chat_store.listed(ANN) == [] and chat_store.shared(second.id) is None and chat_store.of_visitors() == 0
    for visitor, chat_id in ((BOB, second.id), (OWNER, second.id), (ANN, first.id), (ANN, "*"), (ANN, "")):
        with pytest.raises(UserError, match="can't be brought back"):
            chat_store.restore(visitor, chat_id)
    chat_store.restore(ANN, second.id)
    assert [chat.name for chat in chat_store.listed(ANN)] == ["second"] and chat_store.shared(second.id)
    chat_store.delete(OWNER, second.id)
    with pytest.raises(UserError, match="can't be brought back"):
        chat_store.restore(ANN, second.id)
    chat_store.restore(OWNER, second.id)
    assert chat_store.find(ANN, second.id).name == "second", "it is its keeper's, as before"
    chat_store.delete(ANN, second.id)
    chat_store.sweep(time.time() + chat_store.UNDO_S - 60)
    chat_store.restore(ANN, second.id)
    chat_store.delete(ANN, second.id)
    chat_store.sweep(time.time() + chat_store.UNDO_S + 60)
    assert not list(chat_store.folder().glob("*/*.deleted"))


def test_a_chat_is_deleted_and_brought_back_on_the_page() -> None:
    kept = chat_store.keep(rights.LOCAL, "<b>mine</b>", ["r"], TALK)
    with gr.Blocks() as blocks:
        panel = KeptChats(Page(blocks, gr.State(None)), gr.State({}), gr.State([]))
    gone = panel.delete_it(request(), kept.id)
    assert gone[panel.undo_row]["visible"] and "&lt;b&gt;mine" in gone[panel.undo_note] and not gone[panel.chosen]
    back = panel.take_back(request(), gone[panel.deleted])
    assert back[panel.chosen] == kept.id and not back[panel.undo_row]["visible"]


def test_keeping_and_renaming_chats_is_booked() -> None:
    rights.use(AppConfig(password="secret", visitor_chat_changes=3), "::")
    with pytest.raises(UserError, match="bytes"):
        chat_store.keep(ANN, "x", ["r"], Conversation([Turn("x" * 300_000)]))
    kept = chat_store.keep(ANN, "x", ["r"], TALK)
    chat_store.change(ANN, kept.id, name="y")
    chat_store.change(ANN, kept.id, shared=True)
    for change in (lambda: chat_store.change(ANN, kept.id, name="z"), lambda: chat_store.keep(ANN, "z", ["r"], TALK)):
        with pytest.raises(UserError, match="1 changes of kept chats, and a visitor has 3 an hour"):
            change()
    assert [chat.name for chat in chat_store.listed(ANN)] == ["y"]
    for _ in range(4):
        chat_store.keep(OWNER, "z", ["r"], TALK)
    rights.use(AppConfig(), "127.0.0.1")


def test_nothing_of_kept_chats_stays_in_memory(visitors_share: None) -> None:
    kept = chat_store.keep(ANN, "x", ["r"], TALK)
    before = files._text.cache_info().currsize
    for name in "abc":
        chat_store.change(ANN, kept.id, name=name)
    assert [chat.name for chat in chat_store.listed(ANN)] == ["c"]
    assert files._text.cache_info().currsize == before


def test_kept_chats_are_few_and_small(visitors_share: None) -> None:
    for problem, visitor, name, talk in (
        ("ask something first", ANN, "x", Conversation()),
        ("no cookies", rights.Visitor("visitor", "c"), "x", TALK),
        ("Give the chat a name", ANN, " \n", TALK),
        ("81 characters", ANN, "x" * 81, TALK),
        ("U\\+202E", ANN, "a\u202egnp.exe", TALK),
        ("bytes", ANN, "x", Conversation([Turn("x" * 300_000)])),
    ):
        with pytest.raises(UserError, match=problem):
            chat_store.keep(visitor, name, ["r"], talk)
    for _ in range(2):
        chat_store.keep(ANN, "x", ["r"], TALK)
    with pytest.raises(UserError, match="2 chats are kept"):
        chat_store.keep(ANN, "x", ["r"], TALK)
    damaged = chat_store.listed(ANN)[0]
    (chat_store.folder() / ANN.key / f"{damaged.id}.json").write_text("{", encoding="utf-8")
    assert len(chat_store.listed(ANN)) == 1
    with pytest.raises(UserError, match="damaged"):
        chat_store.find(ANN, damaged.id)


def visitor_at(address: str, number: int) -> rights.Visitor:
    return rights.Visitor("visitor", f"{address}-{number}", address=address, browser=True)


def test_new_cookies_keep_no_more_chats_than_an_address_may_and_the_owners_count_apart() -> None:
    rights.use(AppConfig(password="secret", visitor_chats=2, all_chats=20), "::")

    def kept(address: str) -> int:
        """How many chats fresh browsers at one address get to keep."""
        for number in range(30):
            try:
                chat_store.keep(visitor_at(address, number), "x", ["r"], TALK)
            except UserError as error:
                assert "export this one instead" in str(error)
                return number
        return 30

    for _ in range(25):
        chat_store.keep(OWNER, "mine", ["r"], TALK)
    assert [kept("198.41.0.4"), kept("203.0.113.9"), kept("203.0.113.10")] == [16, 4, 0]
    assert not any("198.41" in path.read_text() for path in chat_store.folder().glob("*/address"))
    with gr.Blocks() as blocks:
        panel = KeptChats(Page(blocks, gr.State(None)), gr.State({}), gr.State([]))
    sender = request()
    assert "Visitors keep 20 chats" in panel.listed(sender)[panel.about]
    assert panel.ask_to_clear(sender)[panel.sure]["visible"] and chat_store.of_visitors() == 20
    assert not panel.clear_visitors(sender)[panel.of_visitors]["visible"]
    assert chat_store.of_visitors() == 0 and len(chat_store.listed(OWNER)) == 25
    rights.use(AppConfig(), "127.0.0.1")


def test_visitors_chats_that_are_not_shared_go_by_age(visitors_share: None) -> None:
    kept, given = (chat_store.keep(ANN, name, ["r"], TALK) for name in ("kept", "given"))
    chat_store.change(ANN, given.id, shared=True)
    mine, old = chat_store.keep(OWNER, "mine", ["r"], TALK), chat_store.keep(BOB, "old", ["r"], TALK)
    chat_store.sweep(time.time() + 29 * chat_store.DAY_S)
    assert chat_store.find(ANN, kept.id) and chat_store.find(BOB, old.id)
    chat_store.sweep(time.time() + 31 * chat_store.DAY_S)
    assert [chat.id for chat in chat_store.listed(ANN)] == [given.id] and chat_store.find(OWNER, mine.id)
    assert chat_store.listed(BOB) == [] and {place.name for place in chat_store.folder().glob("*")} == {
        "owner",
        ANN.key,
    }


def test_a_kept_chat_has_no_more_runs_than_answer_beside_each_other() -> None:
    names = ["r", "r", *(f"run{number}" for number in range(500))]
    kept = chat_store.keep(OWNER, "x", names, TALK)
    path = next(chat_store.folder().glob(f"owner/{kept.id}.json"))
    assert json.loads(path.read_text())["run_names"] == ["r", "run0", "run1"]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"run_names": names}), encoding="utf-8")
    assert chat_store.find(OWNER, kept.id).run_names == chat_store.listed(OWNER)[0].run_names == kept.run_names


def test_a_shared_chat_is_drawn_once_and_off_the_servers_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = chat_store.keep(OWNER, "first", ["r"], TALK)
    chat_store.change(OWNER, kept.id, shared=True)
    drawn: list[bool] = []
    draw = shared_chat.past_and_now

    def traced(*arguments: Any) -> tuple[str, str]:
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            drawn.append(True)
            return draw(*arguments)
        drawn.append(False)
        return draw(*arguments)

    monkeypatch.setattr(shared_chat, "past_and_now", traced)
    client = TestClient(Starlette(routes=shared_chat.ROUTES))
    pages = [client.get(f"/shared/{kept.id}", headers={"accept-language": lang}).text for lang in ("en", "en", "zh")]
    assert drawn == [False, False] and pages[0] == pages[1] != pages[2], "once a language, in no coroutine"
    chat_store.change(OWNER, kept.id, name="second")
    assert "second" in client.get(f"/shared/{kept.id}").text
    chat_store.change(OWNER, kept.id, shared=False)
    assert client.get(f"/shared/{kept.id}").status_code == 404


def test_a_shared_chat_is_a_page_of_text() -> None:
    kept = chat_store.keep(OWNER, "<i>name</i>", ["r"], TALK)
    client = TestClient(Starlette(routes=shared_chat.ROUTES))
    for address in (f"/shared/{kept.id}", "/shared/nothing", "/shared/" + "x" * 24):
        assert client.get(address).status_code == 404
    chat_store.change(OWNER, kept.id, shared=True)
    page = client.get(f"/shared/{kept.id}", headers={"accept-language": "zh"})
    assert page.status_code == 200 and "default-src 'none'" in page.headers["content-security-policy"]
    assert "&lt;img src=//evil/x&gt;" in page.text and "&lt;i&gt;name" in page.text and "基础模型" in page.text
    body = page.text.partition("</style>")[2]
    assert not [tag for tag in ("<img", "<script", "<button", "data-pick", "<b>") if tag in body]


def test_a_conversation_is_exported_as_messages_and_to_read() -> None:
    name, lines = chat_files.exported(TALK, "jsonl", "a/b: c")
    rows = [json.loads(line) for line in lines.splitlines()]
    assert name == "a-b-c.jsonl" and [row["model"] for row in rows] == ["base", "r"]
    assert [message["content"] for message in rows[1]["messages"]] == ["Q: ?", "yes"]
    _, text = chat_files.exported(TALK, "md", "x")
    assert "````text\n```\n<b>no</b>\n````" in text, "no viewer draws it"
    with pytest.raises(UserError, match="no conversation to export"):
        chat_files.exported(Conversation(), "md", "x")
