"""The Data tab without a browser: what it draws is what `check --json` says; menus become settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import CHATML, make_tokenizer
from test_conversations import kind

pytest.importorskip("gradio")

from sftdemo.config import TrainConfig
from sftdemo.data.layouts.recognition import parse_columns
from sftdemo.errors import UserError
from sftdemo.ui import chosen_data
from sftdemo.ui.parts import charts
from sftdemo.ui.parts.page import Page
from sftdemo.ui.tabs import data as data_tab
from sftdemo.ui.tabs import data_views
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
    assert "1 rows need you" in shown and "choose under" in shown and value["split_sizes"] is None
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
    assert data_views.mapping(value, "en") == "" and "column" in data_views.fault_lists(value, "en")


def test_without_a_tokenizer_characters_are_shown(tweets):
    value = told(tweets, model="nobody/has-this")
    assert value["tokens"] is None and "Characters a row" in data_views.pictures(value, "en")
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
    assert data_tab.columns("text_label", menus, mapping) == expected
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


def test_one_click_reads_data_as_its_values_suggest(tmp_path):
    import gradio as gr

    path = tmp_path / "a.csv"
    path.write_text("Grund,Nachricht\n" + "".join(f"{'xy'[i % 2]},das ist Nachricht {i} hier\n" for i in range(8)))
    with gr.Blocks() as blocks:
        tab = data_tab.DataTab(Page(blocks, run=gr.State(""), data=gr.State({})))
    settings = {name: data_tab.default_of(name) for name in tab.settings}
    before, _ = tab.show({"data": str(path)}, 1, "en")
    assert before[tab.read_so]["visible"] and "text=Nachricht,label=Grund" in before[tab.read_so]["value"]
    after, _ = tab.read_as_suggested(None, before[tab.looked], 1, **settings)
    assert after[tab.looked]["mapping"] == {"text": "Nachricht", "label": "Grund"}
    assert not after[tab.read_so]["visible"] and "8 rows" in after[tab.verdict]
