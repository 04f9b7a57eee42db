"""The Data tab without a browser: what it draws is what `check --json` says; menus become settings."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from conftest import CHATML, make_tokenizer
from test_conversations import kind

pytest.importorskip("gradio")

from sftdemo.config import TrainConfig
from sftdemo.data.layouts.recognition import parse_columns
from sftdemo.data.types import Preview
from sftdemo.errors import UserError
from sftdemo.ui import chosen_data
from sftdemo.ui.parts import charts
from sftdemo.ui.parts.page import Page
from sftdemo.ui.tabs import data as data_tab
from sftdemo.ui.tabs import data_columns, data_views
from sftdemo.ui.tabs.data_views import FEW_ROWS, HELD_OUT
from sftdemo.ui.texts import say
from sftdemo.verbs import check

ROWS = [
    {"tweet": f"<b>film</b> {i} was good, ask me{i}@mail.example", "mood": "ab"[i % 3 == 0], "who": f"u{i}"}
    for i in range(40)
]


@pytest.fixture
def tweets(tmp_path: Path) -> str:
    path = tmp_path / "tweets.jsonl"
    faulty = [*ROWS, {**ROWS[0], "mood": ""}, {**ROWS[1], "mood": "b"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in faulty), encoding="utf-8")
    return str(path)


def told(data: str, **settings) -> dict:
    return chosen_data.summarize(
        chosen_data.chosen_config({"data": data, "columns": "text=tweet,label=mood", **settings})
    )


def test_the_menu_of_the_answer_counts_labels_as_the_sentence_does(tmp_path):
    path = tmp_path / "guests.csv"
    verdicts = ["good", "bad", "mixed", "good "]
    lines = [f"the stay number {i} was long and fine,{verdicts[i % 4]},{('x', 'y', 'x ')[i % 3]}" for i in range(240)]
    path.write_text("\n".join(["comment,label,kind", *lines, "the last stay was strange,odd,y"]) + "\n")
    value, config = told(str(path), columns=None), TrainConfig(data=str(path))
    preview = chosen_data.dataset(config).preview
    named = dict(data_columns.choices(value, preview, ("comment", "label"), "en"))
    assert "label · 4 labels" in named and "kind · 2 labels" in named, named
    assert "4 labels" in data_views.mapping(value, "en") and "4 labels" in data_views.verdict(value, "en")


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_what_is_drawn_is_what_check_says(tweets, babbler, lang):
    settings = {"model": babbler, "on_fault": "drop", "clean": "html,personal,duplicates", "balance": "over"}
    assert chosen_data.have_tokenizer(babbler)
    value = told(tweets, **settings)
    config = TrainConfig(data=tweets, columns="text=tweet,label=mood", **settings)
    assert value == check.inspect(config)
    lists = data_views.fault_lists(value, lang)
    assert "<td>41</td><td>mood</td>" in lists and "mood" in data_views.mapping(value, lang)
    cleaned = data_views.cleaning(value, lang)
    assert "EMAIL" in cleaned and "<del>&lt;b&gt;film" in cleaned and "<b>film" not in cleaned
    drawn = data_views.pictures(value, lang)
    assert drawn.count("<rect") == len(value["token_histogram"]["counts"]) and 'class="bar after"' in drawn
    assert all(str(rows) in drawn for rows in value["split_sizes"].values())
    assert data_views.checks(value, lang).count("✓") == 5
    assert "1,024" in drawn and "✓" in data_views.verdict(value, lang)


def test_rows_at_fault_wait_for_a_choice(tweets):
    value = told(tweets)
    shown = data_views.verdict(value, "en")
    assert "rows with problems: 1" in shown and "leave those rows out" in shown and value["split_sizes"] is None
    assert "choose below" not in shown and "choose below" in data_views.verdict(value, "en", repairable=True)
    assert "<details open" in data_views.fault_lists(value, "en").replace(' class="fold faults"', "")
    assert "ready" in data_views.verdict(told(tweets, on_fault="drop"), "en")


def test_the_chinese_page_tells_faults_and_notes_in_chinese(tweets):
    value = told(tweets, on_fault="drop", clean="personal")
    assert "<td>mood</td><td>字段是空的。</td><td>请填写，或删除该行。</td>" in data_views.fault_lists(value, "zh")
    assert "<td>The field is empty.</td>" in data_views.fault_lists(value, "en")
    notes = data_views.verdict(value, "zh")
    assert "1 行有问题，已略过并列出。" in notes and "个人信息：这一步" in notes


def test_data_without_a_layout_is_not_read_as_anything(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    value = chosen_data.summarize(chosen_data.chosen_config({"data": str(tmp_path / "a.csv")}))
    assert data_views.mapping(value, "en") == "" and data_views.fault_lists(value, "en") == ""
    assert "which columns" in data_views.verdict(value, "en") and "哪一列" in data_views.verdict(value, "zh")


def test_without_a_tokenizer_characters_are_shown(tweets):
    value = told(tweets, model="nobody/has-this")
    assert value["tokens"] is None and "Characters per row" in data_views.pictures(value, "en")
    assert data_views.checks(value, "en") == ""
    assert "Show tokens" in data_tab.xray(
        chosen_data.chosen_config({"data": tweets, "model": "nobody/has-this"}), 1, "en"
    )


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_xray_marks_what_is_learned_and_the_neighbours(tweets, babbler, lang):
    chosen_data.have_tokenizer(babbler)
    config = chosen_data.chosen_config({"data": tweets, "columns": "text=tweet,label=mood", "model": babbler})
    shown = data_tab.xray(config, 2, lang)
    assert shown.count('class="sup"') == 2 * 8 and "neighbour" in shown and 'class="shared"' in shown
    assert "3, 4, 5" in shown and "&lt;" in shown and "<b>" not in shown
    missing = {"en": "no row 99; the data has rows 1 to 41", "zh": "没有第 99 行；数据共有 41 行"}
    assert missing[lang] in data_tab.xray(config, 99, lang)


def test_a_failing_template_is_told_with_its_reason(tmp_path):
    path, model = tmp_path / "bos.jsonl", str(tmp_path / "model")
    make_tokenizer("<|im_start|>" + CHATML).save_pretrained(model)
    (tmp_path / "model" / "config.json").write_text("{}")
    rows = [{"prompt": f"the film {i}", "completion": "b"} for i in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    chosen_data.have_tokenizer(model)
    value = chosen_data.summarize(chosen_data.chosen_config({"data": str(path), "model": model}))
    shown = data_views.checks(value, "en")
    assert "✕ one BOS at most" in shown and "two BOS tokens" in shown and "blocks this data" in shown
    assert len(value["faults"]) == 30
    for shown in (data_views.checks(value, "zh"), data_views.fault_lists(value, "zh")):
        assert "这一行以两个 BOS（&lt;|im_start|&gt;）开头" in shown and "two BOS tokens" not in shown
    assert "two BOS tokens" in data_tab.xray(chosen_data.chosen_config({"data": str(path), "model": model}), 1, "en")


@pytest.mark.parametrize(
    ("menus", "mapping", "expected"),
    [
        ({"text": "tweet", "label": "mood"}, {}, "text=tweet,label=mood"),
        ({"text": "tweet", "label": "mood"}, {"text": "tweet", "label": "mood"}, ""),
        ({"text": "a", "label": None, "source": "b"}, {"text": "c"}, "text=a"),
        ({"label": "x", "split": "s"}, {"label": "x"}, "label=x,split=s"),
        ({"text": 'say "a, b"', "label": "x=y"}, {}, '"text=say ""a, b""",label=x=y'),
    ],
)
def test_menus_become_the_setting_columns(menus, mapping, expected):
    assert data_columns.columns("text_label", menus, mapping) == expected
    named = {role: column for role, column in menus.items() if column}
    assert parse_columns(expected).items() <= named.items()


def test_no_data_is_a_plain_fault():
    with pytest.raises(UserError, match="No data is chosen"):
        chosen_data.chosen_config({"data": " "})


def test_training_sees_the_data_as_it_was_prepared(tweets):
    chosen = {"data": tweets, "columns": "text=tweet,label=mood", "on_fault": "drop", "balance": "over"}
    train = chosen_data.read(chosen).splits["train"]
    counts = {label: sum(row["label"] == label for row in train) for label in "ab"}
    assert counts["a"] == counts["b"] > 20
    assert sum(map(len, chosen_data.read({**chosen, "on_fault": "stop"}).splits.values())) == 41


def test_a_split_is_drawn_with_its_counts():
    shown = charts.split_bar({"train": 80, "validation": 0, "test": 1020})
    assert shown.count("<div class=") == 4 and "1,020" in shown and "validation" not in shown
    assert charts.label_bars({"a": 3, "<b>": 1}, after={"a": 3, "<b>": 3}).count("after") == 2


def test_the_xray_asks_for_thoughts_as_training_will(tmp_path):
    path, model = tmp_path / "a.jsonl", str(tmp_path / "model")
    kind("qwen3").save_pretrained(model)
    (tmp_path / "model" / "config.json").write_text("{}")
    rows = [{"prompt": f"the film {i}", "completion": "b"} for i in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    chosen_data.have_tokenizer(model)
    shown = {
        thinking: data_tab.xray(
            chosen_data.chosen_config({"data": str(path), "model": model, "thinking": thinking}), 1, "en"
        )
        for thinking in ("auto", "off")
    }
    assert shown["auto"] != shown["off"] and all("think" in text for text in shown.values())


@pytest.fixture
def tab():
    import gradio as gr

    with gr.Blocks() as blocks:
        yield data_tab.DataTab(Page(blocks, run=gr.State(""), data=gr.State({})))


def unset(tab: data_tab.DataTab) -> dict:
    return {name: data_tab.default_of(name) for name in tab.settings}


def odd_table(path: Path, good: int = 70) -> str:
    """Odd names, one label spelt otherwise and one empty cell."""
    lines = [f"Gastkommentar {i} zum Essen,{['gut', 'schlecht'][i % 2]},{i}" for i in range(good)]
    path.write_text("\n".join(["Kommentar vom Gast,Urteil,Nr", *lines, "noch ein Kommentar,Gut,1", "leer,,2"]) + "\n")
    return str(path)


def test_own_data_are_shown_guessed_confirmed_and_repaired_in_a_click_each(tab, tmp_path):
    path = odd_table(tmp_path / "a.csv")
    before, *_ = tab.show({"data": path}, 1, "en")
    assert before[tab.confirm]["visible"] and not before[tab.to_train]["visible"]
    prompt, answer = before[tab.prompt]["value"], before[tab.answer]["value"]
    assert (prompt, answer) == ("Kommentar vom Gast", "Urteil")
    assert ("Urteil · 3 labels", "Urteil") in before[tab.answer]["choices"]
    assert "Gastkommentar 0 zum Essen" in before[tab.preview] and "text_label" not in before[tab.verdict]
    assert before[tab.page.unready] == "a.csv"
    read, *_ = tab.pick_pair(None, before[tab.looked], 1, prompt, answer, **unset(tab))
    assert read[tab.repair]["visible"] and read[tab.leave_out]["visible"] and not read[tab.confirm]["visible"]
    assert "Answer: <b>Urteil</b>, 3 labels" in read[tab.mapping] and not read[tab.to_train]["interactive"]
    fixed, *_ = tab.repair_rows(None, read[tab.looked], 1, **unset(tab))
    assert (
        fixed[tab.page.unready] == ""
        and fixed[tab.to_train]["interactive"]
        and "71 rows, 2 labels, ready" in fixed[tab.verdict]
    )
    assert not fixed[tab.repair]["visible"] and fixed[tab.hold_out]["visible"] and "too few" in fixed[tab.few]
    settings = {**unset(tab), "on_fault": "fix"}
    held, *_ = tab.hold_more_out(None, fixed[tab.looked], 1, **settings)
    assert (
        held[tab.few] == "" and not held[tab.hold_out]["visible"] and held[tab.page.data]["test_size"] == str(HELD_OUT)
    )
    assert HELD_OUT > FEW_ROWS and all(str(HELD_OUT) in say(lang, "data_hold_out") for lang in ("en", "zh"))


def test_prompt_and_answer_stand_first_among_the_columns_of_the_first_rows():
    preview = Preview(["when", "verdict", "comment"], [(2, ["May", "good", "Nice."])], {})
    drawn = data_columns.table(preview, ("comment", "verdict"), "en")
    assert re.findall(r"<t[hd][^>]*>([^<]+)", drawn) == [
        *("Line", "comment · Prompt", "verdict · Answer", "when"),
        *("2", "Nice.", "good", "May"),
    ]


def test_columns_inside_objects_are_guessed_and_offered(tab, tmp_path):
    """As the command line suggests them; the object as a whole is not what anybody means."""
    rows = [
        {
            "id": f"review {i}",
            "meta": {"kind": "ab"[i % 2], "words": f"film number {i} was {['bad', 'good'][i % 2]} indeed"},
        }
        for i in range(60)
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    before, *_ = tab.show({"data": str(path)}, 1, "en")
    pair = before[tab.prompt]["value"], before[tab.answer]["value"]
    assert pair == ("meta.words", "meta.kind") and "film number 0" in before[tab.preview]
    read, *_ = tab.pick_pair(None, before[tab.looked], 1, *pair, **unset(tab))
    assert "Answer: <b>meta.kind</b>, 2 labels" in read[tab.mapping] and read[tab.to_train]["interactive"]
    assert {pair[0], "id"} <= {column for _, column in read[tab.prompt]["choices"]}
    again, *_ = tab.pick_pair(None, read[tab.looked], 1, "id", "meta.kind", **unset(tab))
    assert "Answer: <b>meta.kind</b>, 2 labels" in again[tab.mapping], "the answer's column is as it was"


def test_one_column_is_not_prompt_and_answer(tab):
    with pytest.raises(UserError, match="can't be both the prompt"):
        list(tab.pick_pair(None, {}, 1, "a", "a", **unset(tab)))


def test_too_few_rows_have_no_button_that_would_not_help(tab, tmp_path):
    path = tmp_path / "few.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"ask {i}", "completion": f"say {i}"}) + "\n" for i in range(40)))
    update, *_ = tab.show({"data": str(path)}, 1, "en")
    assert "by vote" in update[tab.few] and not update[tab.hold_out]["visible"]


def test_rows_of_few_groups_are_too_few(tab, tmp_path):
    """Their interval counts groups: sixty rows on six texts tell as much as six."""
    path = tmp_path / "a.jsonl"
    rows = [
        {
            "text": f"question {i} of {i // 10}",
            "label": "ab"[i % 2],
            "group": str(i // 10),
            "split": ["train", "test"][i % 20 > 9],
        }
        for i in range(120)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown, *_ = tab.show({"data": str(path)}, 1, "en")
    assert "60 test rows of 6 groups are too few" in shown[tab.few] and not shown[tab.hold_out]["visible"]
