"""Entities: tags and spans read into one form, where each stands, and their F1 as seqeval has it."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftdemo.data import read
from sftdemo.data.files.table import Row
from sftdemo.data.text.occurrences import is_edge, occurrences
from sftdemo.data.values import entities, tags
from sftdemo.data.values.tags import Span
from sftdemo.evaluation.scorecard import score_outputs
from sftdemo.evaluation.scoring import score

# (tokens, true tags, predicted tags)
SENTENCES = [
    ("Alice met Bob in Paris", "B-PER O B-PER O B-LOC", "B-PER O B-LOC O B-LOC"),
    ("May met May in May", "O O B-PER O O", "B-PER O B-PER O O"),
    ("Ann Lee spoke", "B-PER I-PER O", "I-PER I-PER O"),
    ("Bob Ann left", "B-PER B-PER O", "B-PER I-PER O"),
    ("张 三 在 北 京", "B-PER I-PER O B-LOC I-LOC", "B-PER I-PER O B-LOC I-LOC"),
    ("Nobody came", "O O", "B-PER O"),
    ("🎉 Bob 🎉", "O B-PER O", "O B-PER O"),
    ("Acme Paris Inc", "B-ORG I-ORG I-ORG", "B-ORG I-LOC I-ORG"),
]
# What seqeval 1.2.2 says of these: precision, recall, F1.
SEQEVAL = {"PER": (5 / 8, 5 / 8, 5 / 8), "LOC": (1 / 2, 1, 2 / 3), "ORG": (0, 0, 0)}
MICRO = (7 / 14, 7 / 11, 0.56)


def answers(which: int) -> list[str]:
    rows = [tags.spans(row[0].split(), row[which].split()) for row in SENTENCES]
    return [json.dumps(entities.written(text, spans), ensure_ascii=False) for text, spans in rows]


def test_entity_f1_is_seqevals_on_answers_as_they_are_written():
    truth, predicted = answers(1), answers(2)
    assert truth[1] == '[{"text": "May", "label": "PER", "nth": 2}]'
    assert predicted[1] == '[{"text": "May", "label": "PER"}, {"text": "May", "label": "PER"}]'
    result = score([{"prediction": own, "references": [true]} for own, true in zip(predicted, truth, strict=True)])
    assert (result["entity_precision"], result["entity_recall"], result["entity_f1"]) == pytest.approx(MICRO)
    by_kind = result["entities"]
    assert set(by_kind) == set(SEQEVAL)
    for kind, expected in SEQEVAL.items():
        assert [by_kind[kind][name] for name in ("precision", "recall", "f1")] == pytest.approx(expected)


def test_both_sides_of_an_evaluation_have_it_with_interval_and_test():
    rows = [
        {
            "row": number,
            "task": None,
            "messages": [{"role": "user", "content": text}],
            "references": [true],
            "label": None,
        }
        | {"base": "[]", "tuned": own}
        for number, (text, true, own) in enumerate(
            zip((row[0] for row in SENTENCES), answers(1), answers(2), strict=True)
        )
    ]
    scores = score_outputs(rows, [], 42)
    assert scores["leading"] == "entity_f1" and scores["tuned"]["entity_f1"] == pytest.approx(MICRO[2])
    assert scores["base"]["entity_f1"] == 0 == scores["base"]["entity_precision"] and {"low", "high", "p"} <= set(
        scores["difference"]["entity_f1"]
    )


SCHEMES = {
    "BIO": ("B-X I-X O B-X B-X", [(0, 2), (3, 4), (4, 5)]),
    "IOB1": ("I-X I-X O I-X B-X", [(0, 2), (3, 4), (4, 5)]),
    "BILOU": ("B-X L-X O U-X U-X", [(0, 2), (3, 4), (4, 5)]),
    "IOBES": ("B-X E-X O S-X S-X", [(0, 2), (3, 4), (4, 5)]),
    "BMES": ("B-X M-X E-X S-X o", [(0, 3), (3, 4)]),
    "labels alone": ("X X O Y _", [(0, 2), (3, 4)]),
}


@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme_of_tags_is_read(name):
    line, expected = SCHEMES[name]
    assert [(first, end) for first, end, _ in tags.chunks(line.split())] == expected
    assert tags.damaged([line.split()]) == ([], 0)


@pytest.mark.parametrize("tag", ["b-PER i-PER o", "B_PER I_PER O", "b_PER L_PER o", " b-PER E-PER o"])
def test_marks_in_lower_case_or_before_an_underscore_are_marks(tag, tmp_path):
    row = {"tokens": ["Al", "Bo", "sat"], "ner_tags": tag.rsplit(maxsplit=2)}
    lines = "\n\n".join("\n".join(map("\t".join, zip(row["tokens"], row["ner_tags"], strict=True))) for _ in range(3))
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(row)}\n" * 3)
    (tmp_path / "a.conll").write_text(lines)
    for file in ("a.jsonl", "a.conll"):
        answer = read(tmp_path / file).splits["train"][0]["messages"][-1]["content"]
        assert json.loads(answer) == [{"text": "Al Bo", "label": "PER"}]


def test_labels_alone_are_no_marks():
    assert tags.usual_spellings(["b_cell", "m_cell", "O"]) == tags.usual_spellings(["b-x", "i-x", "x"]) == {}
    assert tags.usual_spellings(["B-X", "i-X", "B-X "]) == {"i-X": "I-X"}


def test_damaged_tags_are_read_as_seqeval_reads_them_and_told(tmp_path):
    assert tags.damaged([["B-X", "O"], ["O", "I-X"], ["O", "L-X", "I-X"]]) == ([1, 2], 3)
    lines = ["B-PER I-PER O", "O I-PER I-PER", "B-PER O I-LOC"]
    text = "\n\n".join("\n".join(f"w{n}\t{tag}" for n, tag in enumerate(line.split())) for line in lines)
    (tmp_path / "a.conll").write_text(text + "\n")
    dataset = read(tmp_path / "a.conll")
    (warning,) = dataset.warnings
    assert warning.line == 5 and str(warning.problem).startswith("2 entities in 2 rows begin with a tag for the inside")
    listed = [json.loads(row["messages"][-1]["content"]) for row in dataset.splits["train"]]
    assert listed[1] == [{"text": "w1 w2", "label": "PER"}]
    assert listed[2] == [{"text": "w0", "label": "PER"}, {"text": "w2", "label": "LOC"}]


@pytest.mark.parametrize(
    ("text", "spans", "listed"),
    [
        ("BUS to US", [(7, 9)], [{}]),
        ("BUS to US", [(1, 3)], [{"nth": 2}]),
        ("US and US", [(0, 2), (7, 9)], [{}, {}]),
        ("US and US", [(7, 9)], [{"nth": 2}]),
        ("北京在北京", [(3, 5)], [{"nth": 2}]),
        ("👩‍👧 Bo 👩‍👧 Bo", [(11, 13)], [{"nth": 2}]),
        ("New York New York City", [(0, 8), (9, 22)], [{}, {}]),
        ("aaa", [(1, 3)], [{"nth": 2}]),
        ("nothing", [], []),
    ],
)
def test_an_entity_says_where_it_stands(text, spans, listed):
    spans = [Span(start, end, "X") for start, end in spans]
    written = entities.written(text, spans)
    more = [{name: entity[name] for name in entity if name == "nth"} for entity in written]
    assert more == listed and entities.placed(text, written) == (spans, [])


@pytest.mark.parametrize(
    ("nth", "answer"),
    [
        ({"nth": 2}, [{"text": "US", "label": "LOC", "nth": 2}]),
        ({"nth": None}, [{"text": "US", "label": "LOC"}]),
        ({"nth": 3}, [{"text": "US", "label": "LOC", "nth": 3}]),  # no mention: told where words are tagged
    ],
)
def test_a_listed_entity_keeps_the_mention_that_it_names(nth, answer):
    assert entities.read("US, not US", [{"text": "US", "label": "LOC", **nth}])[1] == answer


@pytest.mark.parametrize("nth", [0, -1, 1.5, True, "2", [2]])
def test_a_mention_that_is_no_count_is_a_fault(nth):
    with pytest.raises(entities.NotEntities, match="not a count from 1"):
        entities.read("US, not US", [{"text": "US", "label": "LOC", "nth": nth}])


@settings(max_examples=40)
@given(st.text("ab .北👍", max_size=12), st.data())
def test_any_spans_come_back(text, data):
    places = st.tuples(st.integers(0, len(text)), st.integers(0, len(text)), st.sampled_from("XY"))
    spans = {Span(*sorted(place[:2]), place[2]) for place in data.draw(st.lists(places)) if place[0] != place[1]}
    found, missing = entities.placed(text, json.loads(json.dumps(entities.written(text, spans))))
    assert set(found) == spans and not missing
    flat = [span for span, after in pairwise([*sorted(spans), None]) if after is None or after.start >= span.end]
    assert entities.overlapping(flat) is None or entities.overlapping(sorted(spans))


def test_overlaps_are_found_and_edges_of_words_known():
    nested = [Span(0, 8, "ORG"), Span(4, 8, "LOC")]
    assert entities.overlapping(nested) == (nested[0], nested[1]) and entities.overlapping([Span(0, 2, "X")]) is None
    assert [is_edge("a1-b 北京", place) for place in range(8)] == [True, False, True, True, True, True, True, True]
    assert occurrences("he the he", "he") == [0, 7, 4] and occurrences("x", "") == []


def test_numbers_of_tags_get_their_names(tmp_path):
    rows = [{"tokens": ["Bo", "sat"], "ner_tags": [1, 0], "label_names": ["O", "B-PER"]}] * 3
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert (
        read(tmp_path / "a.jsonl").splits["train"][0]["messages"][-1]["content"] == '[{"text": "Bo", "label": "PER"}]'
    )
    import pyarrow
    import pyarrow.parquet

    feature = {"feature": {"names": ["O", "B-PER"], "_type": "ClassLabel"}, "_type": "List"}
    kinds = {"info": {"features": {"ner_tags": feature, "tokens": {"feature": {"dtype": "string"}}}}}
    table = pyarrow.table({"tokens": [["Bo", "sat"]] * 3, "ner_tags": [[1, 0]] * 3})
    table = table.replace_schema_metadata({"huggingface": json.dumps(kinds)})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    dataset = read(tmp_path / "a.parquet")
    assert dataset.splits["train"][0]["messages"][-1]["content"] == '[{"text": "Bo", "label": "PER"}]'
    hidden = table.set_column(1, "ner_tags", pyarrow.array([[1, 0], [-1, -1], [1, -100]]))
    pyarrow.parquet.write_table(hidden.replace_schema_metadata(table.schema.metadata), tmp_path / "b.parquet")
    assert [fault.line for fault in read(tmp_path / "b.parquet").faults] == [2, 3]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([([0], ["joy", "sad"]), ([1, 0], ["joy", "sad"])], [["joy"], ["sad", "joy"]]),
        ([(1, ["joy", "sad"]), (0, ["joy", "sad"])], ["sad", "joy"]),
        ([(1, ["joy", "sad"]), ("joy", ["joy", "sad"])], ["sad", "joy"]),
        ([("sad", ["joy", "sad"]), ("joy", ["joy", "sad"])], None),
        ([([0], ["joy"]), ([1], ["sad"]), ([0], ["joy"])], None),
        ([([0], ["joy", "sad"]), ([2], ["joy", "sad"])], None),
        ([([0], ["joy", "sad"]), ([1], None)], None),
    ],
)
def test_numbers_are_named_alike_in_all_rows_or_not_at_all(labels, expected):
    rows = [
        Row("a", line, {"id": 0, "labels": own, "label_names": names}) for line, (own, names) in enumerate(labels, 1)
    ]
    result = tags.named(rows)
    assert result == rows if expected is None else [row.values["labels"] for row in result] == expected
    assert all(row.values["id"] == 0 for row in result)
