"""JSON answers: valid, exact, and counted field by field and entity by entity."""

from __future__ import annotations

import json
from html import unescape
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftdemo.evaluation import json_metrics, outputs_table, row_statistics
from sftdemo.evaluation.json_metrics import Slot, are_json, json_scores, parsed, parsed_leniently, slots
from sftdemo.evaluation.scorecard import score_outputs
from sftdemo.evaluation.scoring import score
from sftdemo.ui.parts import scores as score_views
from sftdemo.ui.tabs import outputs as outputs_view
from sftdemo.ui.texts import TEXTS

ORDER = '{"order": {"item": "pears", "count": 2}, "for": "Kim"}'
PEOPLE = '[{"text": "Kim", "label": "PER"}, {"text": "Oslo", "label": "LOC"}]'


def scores(answer: str, reference: str) -> dict[str, Any]:
    return json_scores(predictions=[answer], references=[[reference]])


# What is JSON


@pytest.mark.parametrize(
    ("text", "strict", "lenient"),
    [
        (ORDER, True, True),
        (f"\n {ORDER} \n", True, True),
        ("[]", True, True),
        (f"```json\n{ORDER}\n```", False, True),
        ("Here it is:\n```\n[1, 2]\n```\nAll right?", False, True),
        (f"The order: {ORDER} as you asked.", False, True),
        (f'{ORDER}\n{{"order": null}}', False, True),
        ("Use {name} here: " + ORDER, False, True),
        ("As [1] says: " + ORDER, False, True),
        (ORDER[:-3], False, False),  # broken off: what is inside isn't the whole
        ('{"a": {"b": 1}, "c": ', False, False),
        ('{a: {"b": 1}}', False, False),
        ("{'a': 1}", False, False),
        ('{"a": 1,}', False, False),
        ('{"a": NaN}', False, False),
        ('"text"', False, False),
        ("42", False, False),
        ("", False, False),
        ("[" * 100_000, False, False),
        ('{"a":' * 90 + "1" + "}" * 90, True, True),
        ('{"a":' * 300 + "1" + "}" * 300, False, False),
        ("Here: " + '{"a":' * 300 + "1" + "}" * 300, False, False),
        ('{"a": 1e99999999999999999999}', False, False),
    ],
)
def test_json_is_found_where_it_is(text: str, strict: bool, lenient: bool) -> None:
    assert (parsed(text) is not None, parsed_leniently(text) is not None) == (strict, lenient)


def test_only_references_that_are_all_json_are_scored_so() -> None:
    assert are_json([[ORDER], [PEOPLE], ["[]"]])
    for references in ([[ORDER], ["none"]], [["[]"], ["{}"]], [["7"]], [['"a"']], [[ORDER, "no"]], []):
        assert not are_json(references)


# Scores by hand


@pytest.mark.parametrize(
    "answer",
    [
        '{"for":"Kim","order":{"count":2,"item":"pears"}}',
        '{"order": {"item": " pears ", "count": 2.0}, "for": "Kim"}',
        '{"order": {"item": "pears", "count": 2e0}, "for": "\\u004bim"}',
    ],
)
def test_writing_does_not_matter(answer: str) -> None:
    found = scores(answer, ORDER)
    assert (found["json_exact"], found["field_f1"], found["json_valid"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ('{"a": "2"}', '{"a": 2}'),
        ('{"a": true}', '{"a": 1}'),
        ('{"a": null}', "{}"),
        ('{"a": [1, 2]}', '{"a": [2, 1]}'),
        ('{"a": "KIM"}', '{"a": "Kim"}'),
        ('{"a": 9007199254740993}', '{"a": 9007199254740992}'),
        ('{"a": []}', '{"a": {}}'),
    ],
)
def test_values_do(answer: str, reference: str) -> None:
    assert scores(answer, reference)["json_exact"] == 0


def test_fields_by_hand() -> None:
    """Right: order.item. Otherwise: order.count (one invented, one missing). Missing: for. Invented: vat."""
    found = scores('{"order": {"item": "pears", "count": 3}, "vat": 1}', ORDER)
    assert found["field_f1"] == pytest.approx(2 * 1 / (2 * 1 + 2 + 2)) and found["json_exact"] == 0
    assert found["fields"]["order.item"] == {"precision": 1, "recall": 1, "f1": 1, "support": 1}
    assert found["fields"]["for"] == {"precision": 0, "recall": 0, "f1": 0, "support": 1}
    assert found["fields"]["vat"]["support"] == 0 and "entity_f1" not in found


def test_entities_by_hand() -> None:
    """Kim is right; Oslo has another label: as entities 1 right, 1 invented, 1 missing; as fields 3 of 4."""
    found = scores('[{"label": "ORG", "text": "Oslo"}, {"text": "Kim", "label": "PER"}]', PEOPLE)
    assert found["entity_f1"] == pytest.approx(0.5) and found["field_f1"] == pytest.approx(0.75)
    assert {name: one["f1"] for name, one in found["entities"].items()} == {"PER": 1, "LOC": 0, "ORG": 0}
    assert found["json_exact"] == 0
    assert scores('{"text": "Kim", "label": "PER"}', PEOPLE)["entity_f1"] == pytest.approx(2 / 3)  # a list of one
    twice = scores('[{"text": "Kim", "label": "PER"}, {"text": "Kim", "label": "PER"}]', PEOPLE)
    assert twice["entity_f1"] == pytest.approx(0.5)
    lists = scores('{"tags": ["b", "a", "c"]}', '{"tags": ["a", "b"]}')
    assert lists["entity_f1"] == pytest.approx(2 * 2 / (2 * 2 + 1)) == lists["entities"]["tags"]["f1"]


def test_counts_are_summed_over_rows_and_no_answer_misses_all() -> None:
    """3 fields right of 3, 0 of 3: F1 is 6 / (6 + 3), not the mean of rows, which is a half."""
    found = json_scores(predictions=[ORDER, "I can't."], references=[[ORDER], [ORDER]])
    assert found["field_f1"] == pytest.approx(2 / 3)
    assert (found["json_valid"], found["json_exact"]) == (0.5, 0.5)
    nothing = json_scores(predictions=["[]", "[]", "no"], references=[["[]"], [PEOPLE], ["[]"]])
    assert nothing["entity_f1"] == 0 and nothing["json_exact"] == pytest.approx(1 / 3)
    empty, none = json_metrics.json_rows(["[]", "no"], [["[]"], ["[]"]])
    assert (empty.f1("entities"), none.f1("entities")) == (1, 0)


def test_the_nearest_reference_counts() -> None:
    found = json_scores(predictions=['{"a": 2}'], references=[['{"a": 1}', '{"a": 2}']])
    assert found["field_f1"] == found["json_exact"] == 1
    assert slots('{"a": 2}', ['{"a": 1, "b": 3}', '{"a": 1}']) == [Slot("wrong", "a", "1", "2")]


def test_f1_of_sums() -> None:
    rows = np.array([[3.0, 0, 0], [1, 2, 2], [0, 0, 0], [0, 1, 0]])
    assert row_statistics.micro_f1_scores(rows) == pytest.approx([1, 2 / 6, 1, 0])


# Whatever the answers are

VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.5, 1e30, "a", "b", ""])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abc"), inner, max_size=3)),
    max_leaves=8,
)
OBJECTS = st.one_of(st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3), st.lists(VALUES, max_size=3))


def reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reordered(item) for key, item in reversed(value.items())}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@given(OBJECTS, OBJECTS)
def test_invariants(one: Any, other: Any) -> None:
    reference, answer = json.dumps(one), json.dumps(other)
    found = scores(answer, reference)
    rates = [value for value in found.values() if isinstance(value, float)]
    assert all(0 <= value <= 1 for value in rates) and found["json_valid"] <= found["json_valid_lenient"]
    assert scores(json.dumps(reordered(other), indent=2), reference) == found
    fenced = scores(f"Here:\n```json\n{answer}\n```", reference)
    assert fenced == found | {"json_valid": 0}
    row = json_metrics.json_rows([answer], [[reference]])[0]
    assert not slots(answer, [reference]) or not row.exact
    same = scores(reference, reference)
    assert same["json_exact"] == same["field_f1"] == same.get("entity_f1", 1) == 1
    assert slots(reference, [reference]) == []


# Slot by slot


def test_slots() -> None:
    assert slots('{"order": {"item": "pears", "count": 3}, "vat": 1.5}', [ORDER]) == [
        Slot("wrong", "order.count", "2", "3"),
        Slot("missing", "for", "Kim"),
        Slot("invented", "vat", actual="1.5"),
    ]
    assert slots("I can't.", [ORDER]) == [Slot("invalid")]
    assert slots('[{"text": "Oslo", "label": "ORG"}]', [PEOPLE]) == [
        Slot("missing", "", '{"text": "Kim", "label": "PER"}'),
        Slot("wrong", "label", "LOC", "ORG"),
    ]
    assert slots('{"a": [1, 3]}', ['{"a": [1, 2]}']) == [Slot("missing", "a", "2"), Slot("invented", "a", actual="3")]
    assert [str(one) for one in slots('{"b": 1}', ['{"a": null}'])] == ["missing a (null)", "invented b (1)"]


def test_a_card_of_json() -> None:
    asked = [{"role": "user", "content": "Extract."}]
    bad = "Sure: " + ORDER.replace("pears", "plums")
    rows = [
        {"row": k, "messages": asked, "label": None, "references": [ORDER], "base": bad, "tuned": ORDER}
        for k in range(32)
    ]
    found = score_outputs(rows, [], 1)
    assert (
        found["leading"] == "field_f1"
        and "Better: field F1 100.0 % on 32 rows, the base 66.7 % (+33 points" in found["summary"]["en"]
    )
    assert found["base"]["field_f1"] == pytest.approx(2 / 3) and found["difference"]["json_valid"]["delta"] == 1
    assert found["difference"]["json_exact"]["p"] == pytest.approx(2 / 2**32)  # McNemar: 32 better, none worse
    difference = found["difference"]["field_f1"]
    assert difference["delta"] == pytest.approx(1 / 3) and difference["p"] <= difference["p_holm"] < 0.05
    assert found["difference"]["json_valid_lenient"]["delta"] == 0
    assert found["fields"]["base"]["order.item"]["f1"] == 0 and found["fields"]["tuned"]["order.item"]["f1"] == 1
    assert json.loads(json.dumps(found)) == found
    lists = score_outputs([row | {"references": [PEOPLE], "tuned": PEOPLE} for row in rows], [], 1)
    assert lists["leading"] == "entity_f1" and lists["entities"]["tuned"]["PER"]["f1"] == 1
    assert "field_f1" not in score_outputs([row | {"references": ["x y z w"]} for row in rows], [], 1)["base"]


def test_score_has_the_figures_of_json() -> None:
    rows = [{"prediction": ORDER, "references": [ORDER]}, {"prediction": "no", "references": [PEOPLE]}]
    found = score(rows)
    assert found["json_valid"] == 0.5 and found["fields"]["for"]["f1"] == 1 and "json" in found["signatures"]
    alone = json_scores(predictions=[ORDER, "no"], references=[[ORDER], [PEOPLE]])
    assert {name: found[name] for name in alone.keys() - {"signature"}} == {
        name: alone[name] for name in alone.keys() - {"signature"}
    }
    assert "json_valid" not in score([{"prediction": ORDER, "references": ["text"]}])


def test_the_table_of_outputs_names_the_slots() -> None:
    row = {"row": 0, "messages": [{"role": "user", "content": "?"}], "references": [ORDER], "label": None}
    rows = [row | {"base": '<think>hm</think>{"for": "<Kim>", "vat": 1}', "tuned": ORDER}]
    assert outputs_table.metrics_for(rows)[:2] == ("field_f1", "json_exact")
    judged = outputs_table.judged(rows, "field_f1")
    assert judged[0]["mark"] == "better" and judged[0]["gain"] == 1 and judged[0]["slots"]["tuned"] == []
    assert [one.kind for one in judged[0]["slots"]["base"]] == ["missing", "wrong", "invented"]
    table = outputs_view.outputs_table(outputs_table.outputs_page(judged), "en", None)
    assert "missing: order · wrong: for · invented: vat" in table
    lists = {"references": ['[{"text": "May"}]'], "base": "[]", "tuned": '[{"text": "May"}]'}
    of_lists = outputs_table.outputs_page(outputs_table.judged([row | lists], "field_f1"))
    assert 'missing: {"text": "May"}' in unescape(outputs_view.outputs_table(of_lists, "en", None))
    opened = outputs_view.opened(judged[0], "zh")
    assert "缺少：" in opened and "Kim → &lt;Kim&gt;" in opened
    text = outputs_table.as_csv(judged)
    assert text.splitlines()[0].endswith("base_score,tuned_score,mark,cut,base_slots,tuned_slots")
    assert "wrong for: Kim → <Kim>" in text
    assert "base_slots" not in outputs_table.as_csv(
        outputs_table.judged([row | {"references": ["x"], "base": "a", "tuned": "b"}], "exact_match")
    )


def test_the_page_shows_each_field() -> None:
    found = score_outputs(
        [{"row": 0, "messages": [], "label": None, "references": [PEOPLE], "base": "no", "tuned": PEOPLE}], [], 1
    )
    for lang in TEXTS:
        shown = score_views.fields(found, lang)
        assert "PER" in shown and "100.0\xa0%" in shown and "0.0\xa0%" in shown
    assert score_views.fields({}, "en") == ""
    kinds = {"slot_missing", "slot_wrong", "slot_invented", "slot_invalid", "column_fields", "column_entities"}
    assert kinds <= TEXTS["en"].keys() & TEXTS["zh"].keys()
