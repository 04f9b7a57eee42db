"""Which label an answer gives, to a lenient reader who knows the labels and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftdemo.evaluation.labels import parse_labels, parse_lenient

MOODS = ["positive", "negative", "neutral"]
SPAM = ["spam", "not spam"]
INTENTS = ["account_access", "billing", "other"]
LETTERS = ["A", "B", "C", "D"]
STARS = ["1", "2", "3", "4", "5"]
YES = ["yes", "no"]
ZH = ["正面", "负面"]


def given_by(text: str, labels: list[str]) -> str | None:
    return [*labels, None][parse_lenient([text], labels)[0]]


@pytest.mark.parametrize(
    ("labels", "text", "label"),
    [
        # punctuation and markup
        (MOODS, "Positive.", "positive"),
        (MOODS, "positive!!!", "positive"),
        (MOODS, "“positive”", "positive"),
        (MOODS, "**positive**", "positive"),
        (MOODS, "__positive__", "positive"),
        (MOODS, "_positive_", "positive"),
        (MOODS, "**Sentiment:** positive", "positive"),
        (MOODS, "`positive`", "positive"),
        (MOODS, "<b>positive</b>", "positive"),
        (MOODS, "<label>positive</label>", "positive"),
        (MOODS, "&quot;positive&quot;", "positive"),
        (MOODS, "```\npositive\n```", "positive"),
        (MOODS, '```json\n{\n  "sentiment": "positive"\n}\n```', "positive"),
        (MOODS, r"$\boxed{\text{positive}}$", "positive"),
        (MOODS, r"It was a good film, not a negative one. \boxed{positive}", "positive"),
        (MOODS, r"\boxed{positive} or \boxed{negative}", None),
        (MOODS, "ＰＯＳＩＴＩＶＥ", "positive"),
        (MOODS, "- positive", "positive"),
        (MOODS, "positive 😊", "positive"),
        # lead-ins
        (MOODS, "Label: positive", "positive"),
        (MOODS, "The sentiment is positive.", "positive"),
        (MOODS, "The sentiment of this review is **positive**.", "positive"),
        (MOODS, "Answer:\npositive", "positive"),
        (MOODS, "Here is the classification:\n\n**positive**", "positive"),
        (MOODS, "## Sentiment\npositive", "positive"),
        (MOODS, "Sure! The sentiment is positive.", "positive"),
        (["answer", "question"], "Answer: question", "question"),
        (["positive", "evident"], "The positive sentiment is evident.", None),
        (ZH, "答案：正面", "正面"),
        (ZH, "这条评论的情感是正面的。", "正面"),
        (ZH, "类别：负面", "负面"),
        (ZH, "非常正面", "正面"),
        # the first line, the first sentence
        (MOODS, "positive\n\nReview: Awful!\nSentiment: negative", "positive"),
        (MOODS, "positive\nThe acting is praised.", "positive"),
        (MOODS, "This is positive. The end of it has a negative remark, though.", "positive"),
        (MOODS, "Sure!\n\npositive", "positive"),
        (MOODS, "The reviewer talks of the acting.\nIt is positive.", None),
        # two labels
        (MOODS, "positive or negative", None),
        (MOODS, "positive/negative", None),
        (MOODS, "positive\nnegative\nneutral", None),
        (MOODS, "- positive\n- negative", None),
        (MOODS, "positive. Or negative.", None),
        (MOODS, "positive, positive", "positive"),
        (ZH, "正面或负面", None),
        # inside another word or label
        (MOODS, "positively", None),
        (MOODS, "It was received positively.", None),
        (MOODS, "non-positive", None),
        (SPAM, "This is not spam.", "not spam"),
        (SPAM, "not-spam", "not spam"),
        (SPAM, "This is spam.", "spam"),
        (["ham", "spam"], "hamster", None),
        (["C", "C++"], "The language is C++.", "C++"),
        (["C", "Java"], "The language is C++.", None),
        (["Java", "JavaScript"], "It's JavaScript.", "JavaScript"),
        (INTENTS, "account access", "account_access"),
        (INTENTS, "Account-Access", "account_access"),
        (["account", "billing"], "account_access", None),
        (["1", "2"], "1.5", None),
        (["0", "1"], "-1", None),
        (["-1", "0", "1"], "Score: -1", "-1"),
        (["-1", "0", "1"], "The score is 1.", "1"),
        # negated, asked
        (MOODS, "not positive", None),
        (MOODS, "It isn't really a positive review.", None),
        (MOODS, "The label is not positive.", None),
        (MOODS, "I don't think it is positive.", None),
        (MOODS, "positive, not negative", "positive"),
        (MOODS, "It's not positive, it's negative.", "negative"),
        (MOODS, "neither positive nor negative", None),
        (MOODS, "I'm not sure, but it is positive.", "positive"),
        (MOODS, "positive rather than negative", "positive"),
        (MOODS, "Is the sentiment of it positive?", None),
        (MOODS, "positive?", "positive"),
        (["spam", "ham"], "not spam", None),
        (ZH, "不是正面", None),
        (ZH, "不错，正面", "正面"),
        # letters, numbers and small words count where a sentence puts its answer
        (LETTERS, "A", "A"),
        (LETTERS, "(B)", "B"),
        (LETTERS, "B) because it is cold", "B"),
        (LETTERS, "The answer is C.", "C"),
        (LETTERS, "The correct option is D because of the cold.", "D"),
        (LETTERS, "A film that I liked", None),
        (LETTERS, "The answer is a matter of taste", None),
        (STARS, "4 stars", "4"),
        (STARS, "There are 3 reasons to like it", None),
        (STARS, "Rating: 4 stars", "4"),
        (STARS, "Rating: 4/5", None),
        (YES, "No, it isn't.", "no"),
        (YES, "There is no evidence of it.", None),
        (YES, "Yes. It's not a problem", "yes"),
        (INTENTS, "On the other hand it is about billing.", "billing"),
        # labels that differ in case, or are no words
        (["us", "US"], "The answer: US", "US"),
        (["👍", "👎"], "**👍**", "👍"),
        (["👍", "👎"], "Answer: 👍", "👍"),
        (["+", "-"], "- it is fine", None),
        (MOODS, "", None),
        (MOODS, "...", None),
        (MOODS, "I cannot tell.", None),
        (ZH, "这不是负面评论，而是正面评论。", "正面"),
        (ZH, "既不正面也不负面", None),
        (["垃圾邮件", "非垃圾邮件"], "这是非垃圾邮件", "非垃圾邮件"),
        (["긍정", "부정"], "감정은 긍정입니다.", "긍정"),
        (["긍정", "부정"], "긍정이 아닙니다.", None),
        (["긍정", "부정"], "긍정문", None),
        (MOODS, "It's more positive than negative.", "positive"),
        (MOODS, "Sentiment -> positive (0.98)", "positive"),
        (MOODS, "I would classify this as positive.", "positive"),
        (MOODS, "mostly positive, with negative parts", None),
        (MOODS, "positive<|im_end|>", "positive"),
        (LETTERS, "The answer is: (A) Paris", "A"),
        (LETTERS, "A. Paris", "A"),
        (LETTERS, r"$\boxed{\textbf{(A)}}$", "A"),
        (["Acme (UK)", "Acme"], "It is Acme (UK).", "Acme (UK)"),
        (["n/a", "ok"], "N/A.", "n/a"),
        (["แมว", "หมา"], "คำตอบคือแมว", "แมว"),
    ],
)
def test_a_label_is_taken_as_a_reader_would(labels: list[str], text: str, label: str | None) -> None:
    assert given_by(text, labels) == label


WORDS = st.text(st.characters(categories=("L", "N", "P", "Zs", "So")), min_size=1, max_size=12).filter(str.strip)
LABELS = st.lists(WORDS, min_size=1, max_size=5, unique=True)
PARTS = st.sampled_from(["not ", "The label is ", "**", "\n", ". ", " or ", "```", "<b>", "\\boxed{", "}", "?", "、"])


@pytest.mark.slow
@given(LABELS, st.data())
@settings(max_examples=300, deadline=None)
def test_what_is_right_to_the_letter_stays_right(labels: list[str], data: st.DataObject) -> None:
    """Lenient is never under strict, on any row, whatever the labels and the text are."""
    text = data.draw(st.lists(st.one_of(PARTS, st.sampled_from(labels), WORDS), max_size=5).map("".join))
    strict, lenient = parse_labels([text], labels)[0], parse_lenient([text], labels)[0]
    assert 0 <= lenient <= len(labels)
    assert strict in (len(labels), lenient)


@given(
    st.sampled_from(MOODS), st.sampled_from(["{}.", "**{}**", "Label: {}", "<i>{}</i>", "'{}'", "The answer is {}!"])
)
def test_form_is_taken_away(label: str, form: str) -> None:
    assert given_by(form.format(label), MOODS) == label and given_by(form.format(label).upper(), MOODS) == label


@pytest.mark.parametrize("syllable", ["nice", "ss", "ffi", "ǰ", "no ", "label of ", "好", "<b", "*a", "("])
def test_an_answer_that_repeats_itself_is_read_at_once(syllable: str) -> None:
    """A small model that babbles: "nicenicenice…" once took a time that grew with every letter."""
    assert given_by(syllable * 400, MOODS) is None
    assert given_by(f"The label of {syllable * 400} is not positive", MOODS) in (None, *MOODS)
