"""Chat: how a typed text is put, what is sent of a conversation, and how it is drawn."""

from __future__ import annotations

import pytest

pytest.importorskip("gradio")

from sftdemo.data.conversion.wording import put_as, wordings_of
from sftdemo.errors import UserError
from sftdemo.ui.tabs.conversation import BASE, Answer, Conversation, Talk, Turn, as_messages, talk_with, talks_with
from sftdemo.ui.tabs.transcript import View, past_and_now

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


def test_a_transcript_shows_what_was_typed_and_tells_what_was_asked() -> None:
    answers = {BASE: Answer("the red cat", 3, 1.25, "length"), "a": Answer("the blue cat", 3, 1.25, "stop", right=True)}
    turn = Turn("<b>hi</b> ${x}", {"a": "A: hi"}, answers, "the blue cat")
    past, now = past_and_now(Conversation([turn, Turn("so?")]), View([BASE, "a"], "en"))
    for text in (
        "&lt;b&gt;hi&lt;/b&gt; &#36;&#123;x&#125;</div>",
        "Asked as in training",
        "A: hi",
        "Expected:",
        "tokens: 3 · 1.2 s",
    ):
        assert text in past
    assert past.count("<mark>") == 2 and "<mark>red </mark>" in past and "✓" in past and ">cut<" in past
    assert "again:" not in past and "Not answered yet" in now
    live = past_and_now(Conversation([turn]), View([BASE, "a"], "en", streaming=True))[1]
    assert "<mark>" not in live and "data-pick" not in live
