"""The handlers of the Data tab: samples, presets, data that can't be trained on, another row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")


from sftdemo.errors import UserError
from sftdemo.ui.parts.page import Page
from sftdemo.ui.tabs.data import DataTab
from sftdemo.ui.tabs.data_columns import EVERY_ROLE
from sftdemo.ui.tabs.train_plan import PRESETS
from sftdemo.ui.texts import say
from tests.test_tabs import last, pick, request


def form_of(tab: DataTab, **settings: Any) -> dict[str, Any]:
    values = {name: field.value for name, field in {**tab.page.preparing, **tab.settings}.items()}
    return values | {"clean": []} | settings


def test_the_first_sample_is_in_the_language_of_the_page(page: Page) -> None:
    chinese = request()
    chinese.cookies = {"sftdemo_lang": "zh"}
    tab = DataTab(page)
    for asked, name, alone in (
        (request(), "support_tickets", "No duplicate rows"),
        (chinese, "reviews_zh", "没有重复行"),
    ):
        shown = last(tab.open_page(asked))
        assert shown[page.data]["data"] == name and alone in shown[tab.statistics]
        assert shown[tab.cards].index(f'data-pick="{name}"') == shown[tab.cards].index("data-pick"), (
            "and its card is first"
        )


def test_presets_say_what_they_do() -> None:
    for lang, rows in (("en", "all rows"), ("zh", "全部行")):
        for name, preset in PRESETS.items():
            text = say(lang, f"preset_{name}")
            assert (str(preset["max_examples"]) if preset["max_examples"] else rows) in text
            assert say(lang, "epochs_n", n=f"{preset['epochs']:g}") in text


def test_a_sample_is_picked_and_handed_to_the_other_tabs(page: Page) -> None:
    tab = DataTab(page)
    preparing = {name: field.value for name, field in page.preparing.items()}
    shown = last(tab.pick_sample(pick("support_tickets"), request(), **preparing))
    assert shown[page.data]["data"] == shown[tab.looked]["data"] == "support_tickets"
    assert shown[tab.to_train]["interactive"] and shown[tab.row] == 1 and shown[tab.steps] == []
    with pytest.raises(UserError, match="no sample 'x'"):
        last(tab.pick_sample(pick("x"), request(), **preparing))
    assert last(tab.take_source(request(), None, **preparing)) == {}


def test_data_that_cannot_be_trained_on_leaves_the_choice_before(page: Page, tmp_path: Path) -> None:
    (tmp_path / "odd.jsonl").write_text(
        "".join(f'{{"utt": "number {i}", "mood": "{"ab"[i % 2]}"}}\n' for i in range(30))
    )
    tab = DataTab(page)
    preparing = {name: field.value for name, field in page.preparing.items()}
    shown = last(tab.take_source(request(), str(tmp_path / "odd.jsonl"), **preparing))
    assert "value" not in shown[page.data] and not shown[tab.to_train]["interactive"]
    menus = {f"role_{role}": None for role in EVERY_ROLE} | {"role_text": "utt", "role_label": "mood"}
    looked = shown[tab.looked] | {"layout": "text_label"}
    shown = last(tab.map_columns(request(), looked, 1, **form_of(tab, format="text_label"), **menus))
    assert shown[page.data]["columns"] == "text=utt,label=mood" and shown[tab.to_train]["interactive"]


def test_half_a_placeholder_is_said_without_a_toast(page: Page) -> None:
    tab = DataTab(page)
    looked = {"data": "support_tickets"}
    shown = last(tab.apply_wording(request(), looked, 1, **form_of(tab, instruction="What? {tex}")))
    assert "{tex}" in shown[tab.fault].replace("&#123;", "{").replace("&#125;", "}") and page.data not in shown
    shown = last(tab.apply_wording(request(), looked, 1, **form_of(tab, instruction="What? {text}")))
    assert "What? " in shown[tab.examples] and tab.fault not in shown


def test_another_row_is_looked_at_with_the_tokenizer_at_hand(page: Page, babbler: str) -> None:
    tab = DataTab(page)
    form = form_of(tab, model=babbler)
    *_, shown = tab.fetch_tokenizer(request(), {"data": "support_tickets"}, 2, **form)
    assert "X-ray of row 2" in shown[tab.xray] and not shown[tab.show_tokens]["visible"]
    assert "X-ray of row 3" in tab.look_at_row(request(), {"data": "support_tickets"}, 3, **form)[tab.xray]


def test_a_text_that_a_reload_puts_back_undoes_no_other_choice(page: Page) -> None:
    tab = DataTab(page)
    kept = {"data": "support_tickets", "on_fault": "drop", "test_size": "30", "instruction": "What? {text}"}
    looked = last(tab.show(kept, 1, "en"))[tab.looked]
    before = form_of(tab, on_fault="stop", test_size=None)  # what the browser sends for fields that aren't drawn yet
    for put_back in ({"system": "", "instruction": None}, {"system": "", "instruction": "What? {text}"}):
        assert not last(tab.apply_wording(request(), looked, 1, **before | put_back))
    shown = last(tab.apply_wording(request(), looked, 1, **before | {"system": "", "instruction": ""}))
    assert shown[page.data]["data"] == "support_tickets"  # the instruction was taken out
