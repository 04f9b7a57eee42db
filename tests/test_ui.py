"""The web app without a browser: texts, forms, the logic behind the widgets, the endpoints."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import re
import string
from collections.abc import AsyncIterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("gradio")

from gradio import networking

from sftdemo import files, runs
from sftdemo.config import EvaluateConfig, GenerateConfig, TrainConfig
from sftdemo.config.read import CLEANING, ReadConfig
from sftdemo.data.sources import READABLE
from sftdemo.data.types import SPLITS
from sftdemo.encoding import encode
from sftdemo.errors import UsageError, UserError
from sftdemo.evaluation import outputs_table
from sftdemo.evaluation.registry import METRICS
from sftdemo.inference.engine import MOST_ANSWERED
from sftdemo.inference.line import MOST_WAITING
from sftdemo.ui import models, server, work
from sftdemo.ui.parts import charts, forms, html
from sftdemo.ui.parts.page import chip_text
from sftdemo.ui.tabs import (
    ballot,
    ballot_form,
    data_columns,
    data_views,
    exchange,
    runs_table,
    train_plan,
    vote_results,
)
from sftdemo.ui.tabs import evaluate as evaluate_tab
from sftdemo.ui.tabs import outputs as outputs_view
from sftdemo.ui.tabs import train as train_tab
from sftdemo.ui.tabs.conversation import Answer
from sftdemo.ui.texts import TEXTS, duration, en_settings, language, megabytes, say, unbroken
from sftdemo.ui.texts.faults import TEMPLATES, as_form
from sftdemo.votes import SCALES, TAGS, WINNERS, Store
from sftdemo.votes.hints import BOTH
from tests.in_process import owners_request

UI = Path(forms.__file__).parents[1]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_none_is_refused_in_words(value):
    with pytest.raises(UserError, match="max_new_tokens is"):
        forms.config(GenerateConfig, {"max_new_tokens": value})


def test_the_page_takes_every_file_and_leaves_it_to_the_reader_what_can_be_read(built_page: Any):
    (upload,) = [block for block in built_page.blocks.values() if getattr(block, "elem_id", "") == "upload"]
    assert upload.file_types is None, "Gradio would refuse others in a toast that goes"
    assert {".txt", ".ndjson", ".feather", ".xlsx", ".gz"} <= set(READABLE)


def request(**headers: str) -> SimpleNamespace:
    lang = headers.pop("cookie", "")
    return owners_request(headers={name.replace("_", "-"): value for name, value in headers.items()}, lang=lang)


def made_run(name: str = "made", state: str = "finished", **settings: object) -> runs.Run:
    """A run's folder as training and evaluation leave it, with two rows of answers."""
    config = TrainConfig(data="support_tickets", name=name, **settings)  # type: ignore[arg-type]
    data = {"name": "support_tickets", "sizes": {"train": 9, "validation": 1, "test": 2}, "labels": {"a": 1}}
    run = runs.create(name, name, {"settings": config.to_json(), "data": data})
    run.model_path.mkdir()
    run.write_status(state, step=4, total=4, tokens_per_s=100.0, seconds=61.0, eval_loss=0.42, first_eval_loss=2.31)
    for step in range(1, 5):
        run.append_metrics({"step": step, "loss": 3.0 / step})
    return run


def add_evaluation(run: runs.Run, name: str = "one") -> None:
    folder = run.path / "evaluations" / name
    ask = [{"role": "user", "content": "Which one?\n\nMy parcel is late."}]
    rows = [
        {
            "row": 0,
            "messages": ask,
            "references": ["delivery"],
            "label": "delivery",
            "base": "Hm.",
            "tuned": "delivery",
        },
        {"row": 1, "messages": ask, "references": ["billing"], "label": "billing", "base": "same", "tuned": "same"},
    ]
    files.write_jsonl(folder / "outputs.jsonl", rows)
    difference = {"accuracy": {"delta": 0.5, "low": 0.1, "high": 0.9, "p": 0.04}}
    scores = {
        "n": 2,
        "base": {"accuracy": 0.0},
        "tuned": {"accuracy": 0.5},
        "difference": difference,
        "leading": "accuracy",
    }
    files.write_json(folder / "scores.json", scores | {"outputs": str(folder / "outputs.jsonl"), "labels": []})


def test_a_busy_machine_has_its_app(built_page: Any) -> None:
    """Gradio ends the app where its own page doesn't answer within 3 s."""
    server.app_options(built_page)
    assert networking.url_ok("http://127.0.0.1:9/")


# Texts


def test_languages_have_the_same_keys_and_the_same_places() -> None:
    assert TEXTS["en"].keys() == TEXTS["zh"].keys()
    for key, text in TEXTS["en"].items():
        if key.startswith("help_"):
            continue  # help texts quote braces as data; they are never filled in
        names = [
            {name for _, name, _, _ in string.Formatter().parse(each) if name} for each in (text, TEXTS["zh"][key])
        ]
        assert names[0] == names[1], key


def test_every_key_in_the_code_exists() -> None:
    """Literal keys of say() and label(); keys put together from parts are met by the tests below."""
    for path in UI.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", "") not in ("say", "label"):
                continue
            key = node.args[1 if node.func.id == "say" else 0]  # type: ignore[attr-defined]
            if isinstance(key, ast.Constant):
                assert key.value in TEXTS["en"], f"{path.name}: {key.value}"


def test_keys_put_together_from_parts_exist() -> None:
    keys = {f"state_{state}" for state in (*runs.ACTIVE, "finished", "stopped", "failed")}
    keys |= {f"train_{state}" for state in runs.ACTIVE} | {f"preset_{name}" for name in train_plan.PRESETS}
    keys |= {f"metric_{m}" for m in METRICS} | {f"why_{m}" for m in METRICS}
    keys |= {f"role_{role}" for role in data_columns.EVERY_ROLE} | {f"clean_{step}" for step in CLEANING}
    keys |= {f"check_{name}" for name in encode.CHECKS} | {f"list_{kind}" for kind in data_views.LISTS}
    keys |= {f"long_{policy}" for policy in ("fits", "drop", "cut", "chunk")} | {f"split_{name}" for name in SPLITS}
    keys |= {f"filter_{name}" for name in outputs_table.FILTERS} | {f"vote_{choice}" for choice in ballot_form.BUTTONS}
    keys |= {f"vote_{both}" for both in BOTH} | {
        f"own_{winner}" for winner in (*WINNERS, "tie_short", "bad_short", "skip_short")
    }
    keys |= {f"voted_{winner}" for winner in ("base", "tuned", "tie", "bad", "skip")}
    keys |= {f"tag_{tag}" for tag in TAGS} | {f"mark_{side}_{scale}" for side in "ab" for scale in SCALES}
    keys |= {f"scale_{scale}" for scale in SCALES} | {f"source_{name}" for name in vote_results.SOURCES}
    keys |= {f"rater_{name}" for name in ("name", "votes", "tuned", "left", "again", "guest", "exclude", "include")}
    assert keys <= TEXTS["en"].keys()


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (request(accept_language="zh-CN,zh;q=0.9"), "zh"),
        (request(accept_language="en-US"), "en"),
        (request(accept_language="fr"), "en"),
        (request(accept_language="en-US", cookie="zh"), "zh"),
        (request(accept_language="zh-TW", cookie="en"), "en"),
        (request(cookie="../etc"), "en"),
        (None, "en"),
    ],
)
def test_language_is_the_chosen_one_or_the_browsers(asked: SimpleNamespace | None, expected: str) -> None:
    assert language(asked) == expected


def test_duration_is_no_finer_than_useful() -> None:
    spans = [duration("en", s).split("\xa0") for s in (5.2, 108, 1724, 7300)]
    assert spans == [["5", "s"], ["1", "min", "48", "s"], ["28", "min"], ["2", "h", "1", "min"]]


def test_no_number_is_parted_from_its_unit() -> None:
    """ "3 h 48" stood at the end of a line on a phone, "min" in the next."""
    units = "(?:%|h|min|ms|s|[kMG]i?B|小时|分钟|分|秒|毫秒)(?![A-Za-z])"
    of_faults = [
        as_form(text, lang) for pair in TEMPLATES.items() for lang, text in zip(("en", "zh"), pair, strict=True)
    ]
    texts = [*TEXTS["en"].values(), *TEXTS["zh"].values(), *of_faults, duration("zh", 13680), megabytes(3e6)]
    assert not [text for text in texts if re.search(rf"[\d}}] {units}", text)]
    assert duration("zh", 13680) == "3\xa0小时\xa048\xa0分"
    assert (duration("en", 7190), duration("en", 7200), duration("zh", 7200)) == (
        "1\xa0h\xa059\xa0min",
        "2\xa0h",
        "2\xa0小时",
    )


# Forms


@pytest.mark.parametrize("owner", [ReadConfig, TrainConfig, GenerateConfig, EvaluateConfig])
def test_every_setting_has_a_field_with_its_default_and_bounds(owner: type) -> None:
    for spec in fields(owner):
        made = forms.field(owner, spec.name)
        meta = spec.metadata
        if spec.default is not None:
            assert made.value == spec.default, spec.name
        if meta["choices"]:
            assert [value for _, value in made.choices] == list(meta["choices"])
        elif made.get_block_name() == "number":
            assert (made.minimum, made.maximum) == (meta["low"], meta["high"])
        assert made.label.key == f"set_{spec.name}"
        assert TEXTS["en"][made.info.key] == unbroken(en_settings.SETTINGS.get(made.info.key, meta["help"]))


def test_form_values_become_the_config_they_describe() -> None:
    given = {"data": " x.jsonl ", "columns": "", "epochs": 2, "batch_size": 4.0, "learning_rate": None, "name": None}
    assert forms.config(TrainConfig, given) == TrainConfig(data="x.jsonl", epochs=2.0, batch_size=4)


def test_numbers_that_may_be_empty_are_typed_as_text() -> None:
    assert forms.field(TrainConfig, "learning_rate").get_block_name() == "textbox"
    made = forms.config(TrainConfig, {"learning_rate": " 2e-4", "max_examples": "150"})
    assert (made.learning_rate, made.max_examples) == (2e-4, 150) and isinstance(made.max_examples, int)
    with pytest.raises(UsageError, match="max_examples is 'many'"):
        forms.config(TrainConfig, {"max_examples": "many"})


def test_every_wrong_setting_is_named() -> None:
    with pytest.raises(UsageError, match=r"epochs is -1.*batch_size is 2\.5"):
        forms.config(TrainConfig, {"epochs": -1, "batch_size": 2.5})


def test_presets_hold_settings_only() -> None:
    names = {spec.name for spec in fields(TrainConfig)}
    for values in train_plan.PRESETS.values():
        assert values.keys() <= names
        forms.config(TrainConfig, values)


def test_a_fault_is_said_on_the_page_and_in_a_toast() -> None:
    import gradio as gr

    def handler() -> dict[str, str]:
        raise UserError("no <b> here")

    said = forms.shown_errors(handler, "place")()
    assert "no &lt;b&gt; here" in next(said)["place"]
    with pytest.raises(gr.Error, match="no &lt;b> here"):
        next(said)
    assert list(forms.shown_errors(lambda: {"x": 1}, "place")()) == [{"place": "", "x": 1}]


# Pieces of HTML


# Charts


# The tabs' logic


def test_a_spreadsheet_runs_nothing() -> None:
    row = {"row": 0, "messages": [{"role": "user", "content": "=1+1"}], "references": ["x"], "base": "@a", "tuned": "b"}
    judged = outputs_table.judged([row | {"tuned_cut": True}], "exact_match")
    assert outputs_table.as_csv(judged).splitlines()[1] == "1,'=1+1,x,,'@a,b,0.0,0.0,both_wrong,tuned"


def test_coalesced_updates_lose_no_text() -> None:
    chunks = [
        SimpleNamespace(side=s, text=t, tokens=1, tokens_per_s=1.0, finish_reason=None)
        for s in ("base", "tuned")
        for t in "abc"
    ]
    both = exchange.Exchange({side: Answer() for side in ("base", "tuned")})

    async def events() -> AsyncIterator[SimpleNamespace]:
        for chunk in chunks:
            yield chunk

    async def last_update() -> exchange.Exchange:
        return [update async for update in exchange.coalesced(events(), both, every=60)][-1]

    last = asyncio.run(last_update())
    assert {side: answer.text for side, answer in last.answers.items()} == {"base": "abc", "tuned": "abc"}


def test_a_run_without_a_model_is_not_offered() -> None:
    made_run("good")
    made_run("empty", "stopped").model_path.rmdir()
    made_run("bad", "failed")
    assert models.newest_ready() == "good"


def test_estimate_uses_the_speed_that_was_measured() -> None:
    rows = [{"messages": [{"role": "user", "content": "x" * 350}]}] * 100
    config = TrainConfig(data="d")
    assert train_tab.measured_speed(config) is None
    made_run("short").write_status("stopped", step=2, total=40, tokens_per_s=1.0)
    assert train_tab.measured_speed(config) is None, "two steps tell nothing"
    made_run()
    assert train_tab.measured_speed(config) == 100.0
    for name, speed in (("alike", 110.0), ("beside-much-else", 9.0)):
        made_run(name).write_status("finished", step=40, total=40, tokens_per_s=speed)
    assert train_tab.measured_speed(config) == 100.0, "one that was slowed down doesn't tell"
    assert train_tab.estimate(config, rows, 100.0) == pytest.approx(100 * 135 / 100 + 12)


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("state", ["queued", "running", "stopping", "finished", "stopped", "failed"])
def test_every_state_of_a_run_is_drawn(lang: str, state: str) -> None:
    run = made_run(state=state)
    told = {"eval_loss": 0.42, "first_eval_loss": 2.31, "error": "why", "model_source": "local folder"}
    run.write_status(state, step=2, total=4, eta_s=30, seconds=61.0, **told)
    shown, source = train_tab.live(run, lang), say(lang, "source_local_folder")
    assert source not in shown.split("</div>")[0], "the headline is for what came out"
    assert (f'small">{source}<' in shown) == (state in ("finished", "stopped"))
    assert run.name in shown and "svg" in shown
    assert ("2.31 → 0.42" in shown) == (state in ("finished", "stopped"))
    assert ("why" in shown) == (state == "failed")


@pytest.mark.parametrize(
    ("lang", "of_these"), [("en", "Rows left out: 3. 2 of them: "), ("zh", "未使用的行：3。其中 2 行：")]
)
def test_a_run_tells_the_rows_that_it_hasnt_got(lang: str, of_these: str) -> None:
    run = made_run()
    config, tools = run.config(), "The model's chat template doesn't write tool calls; choose a model that knows tools."
    config["data"]["dropped"] = [{"line": 3, "problem": problem} for problem in ("no JSON", tools, tools)]
    files.write_json(run.path / "config.json", config)
    shown = train_tab.live(run, lang)
    assert of_these in shown and (html.esc(tools) in shown) == (lang == "en")


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_an_evaluation_is_drawn(lang: str) -> None:
    run = made_run()
    add_evaluation(run)
    scores, rows = run.scores("one"), outputs_table.judged(run.outputs("one"), "accuracy")
    assert "+50.0" in charts.score_rows(scores, lang)
    table = outputs_view.outputs_table(outputs_table.outputs_page(rows), lang, None)
    assert say(lang, "mark_better") in table and "My parcel is late." in table
    assert ">delivery</div>" in outputs_view.opened(rows[0], lang), "nothing in common with the base: no marks"
    assert [row["row"] for row in outputs_table.outputs_page(rows, filter="better").rows] == [0]
    assert say(lang, "metric_accuracy") in runs_table.runs_table([run], 25, "", lang)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_an_evaluation_that_runs_says_what_it_does(lang: str) -> None:
    one = work.Evaluation(made_run(), EvaluateConfig(), 40)
    assert say(lang, "evaluate_running") in evaluate_tab.progress(one, lang)
    one.answered(0, 40)
    one.prefilled(32)
    shown = evaluate_tab.progress(one, lang)
    assert say(lang, "evaluate_reading", n=32) in shown and "0 / 40" in shown
    one.answered(10, 40)
    shown = evaluate_tab.progress(one, lang)
    assert say(lang, "evaluate_running") in shown and "10 / 40" in shown
    one.stop.set()
    assert say(lang, "work_stopping") in evaluate_tab.progress(one, lang)


def test_the_progress_of_an_evaluation_is_told_while_its_thread_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read of it may be over at the next reading: the time left runs out, a stage ends."""
    stages = [{"name": "loading", "done": 1, "total": 2, "began": 0.0}]

    class Hasty(work.Evaluation):
        at = property(lambda self: stages.pop() if stages else None, lambda self, value: None)

    one, clock = Hasty(made_run(), EvaluateConfig(), 40), [0.0]
    assert "Loading the model" in evaluate_tab.progress(one, "en")
    monkeypatch.setattr(work.time, "monotonic", lambda: clock[0])
    one.answered(0, 40)
    clock[0] = 10.0
    one.answered(20, 40)
    later = iter([19.0])
    monkeypatch.setattr(work.time, "monotonic", lambda: next(later, 60.0))
    assert say("en", "work_left", t=duration("en", 1)) in evaluate_tab.progress(one, "en")


def test_the_time_left_of_an_evaluation_counts_reading_and_not_what_was_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(work.time, "monotonic", lambda: clock[0])
    one = work.Evaluation(made_run(), EvaluateConfig(), 40)
    one.answered(20, 40)
    assert (one.share, one.eta_s) == (0.5, None)
    clock[0] = 110.0
    one.prefilled(40)
    assert (one.share, one.eta_s) == (0.75, pytest.approx(10))
    clock[0] = 114.0
    assert one.eta_s == pytest.approx(6)
    one.answered(30, 40)
    assert (one.share, one.eta_s) == (0.875, pytest.approx(14 / 3))
    clock[0] = 130.0
    assert one.eta_s is None
    one.answered(40, 40)
    assert (one.share, one.eta_s) == (1, None)


def test_a_pair_to_vote_on_tells_no_names() -> None:
    run = made_run()
    add_evaluation(run)
    pair = ballot.public(Store().next_pair(run, "one", "me"))
    shown = ballot.cards(pair, {"cut_a": True, "both": "both_wrong"}, "en")
    assert say("en", "answer_cut") in shown and say("en", "vote_both_wrong") in shown
    assert not {"tuned", "base"} & set(shown.replace('"', " ").replace("-", " ").split())
    revealed = {"base_side": "a", "choice": "b", "winner": "tuned"}
    assert "base" in ballot.cards(pair, {}, "en", revealed)
    assert ballot.public(None) == {"done": True}


def test_names_of_runs_keep_the_end_that_tells_them_apart() -> None:
    names = [f"support_tickets-lora-1128-1{second:03}" for second in range(100)]
    for length in (8, 22, 30):
        short = [html.cut_name(name, length) for name in names]
        assert {len(name) for name in short} == {length} and len(set(short)) == len(names)
    assert html.cut_name("short", 5) == "short"
    assert "1128-1042" in chip_text("en", names[42])


def test_names_that_differ_only_in_their_middle_are_told_apart_where_they_stand_together() -> None:
    names = [f"customer-tickets-from-the-shop-{rank}-epochs-2-final-1129-104205" for rank in ("r8", "r16", "r32")]
    for length in (18, 28, 44):
        short = html.cut_names([*names, "other"], length)
        assert len(set(short)) == 4 and max(map(len, short)) <= length and short[-1] == "other"
        assert all(rank in name for rank, name in zip(("r8", "r16", "r32"), short, strict=False))
    assert html.cut_names(names[:1] * 2, 18) == [html.cut_name(names[0], 18)] * 2


def test_many_blank_lines_take_one_and_stay_in_the_text() -> None:
    drawn = html.blank_lines(html.esc("a\n\nb" + "\n \n" * 6 + "c"))
    assert '<span class="blanks" data-n="12">' in drawn and re.sub("<[^>]*>", "", drawn) == "a\n\nb" + "\n \n" * 6 + "c"
    pair = {"position": 1, "total": 2, "prompt": [], "answer_a": "x" + "\n" * 80 + "y", "answer_b": "y"}
    assert 'data-n="80"' in ballot.cards(pair, {}, "en")


# The page


def test_no_events_status_is_told_to_all_of_the_page(built_page: Any) -> None:
    """Gradio tells each status to every output an event ever had, and looks through all components for each of them."""
    hidden = [event for event in built_page.fns.values() if event.show_progress == "hidden" and event.outputs]
    told = [event.api_name for event in hidden if event.show_progress_on != [] and event.api_visibility == "private"]
    assert len(hidden) > 100 and told == []


def test_the_public_endpoints_are_exactly_these(built_page: Any) -> None:
    public = {fn.api_name for fn in built_page.fns.values() if fn.api_visibility != "private"}
    assert public == {"compare", "evaluate", "runs", "vote_next", "vote"}
    model = [fn for fn in built_page.fns.values() if fn.concurrency_id == "model"]
    # Questions wait in the engine's line, which takes turns; evaluations wait for each other.
    assert len(model) >= 4 and all(fn.concurrency_limit > MOST_WAITING + MOST_ANSWERED for fn in model)
    assert {fn.concurrency_limit for fn in built_page.fns.values() if fn.concurrency_id == "evaluation"} == {1}
    assert not list(UI.rglob("*.pyi"))


def test_choices_are_said_in_words_and_sent_as_values() -> None:
    """Every choice that has words is one of the setting's, and the form sends the setting's own value."""
    from sftdemo.config import TrainConfig
    from sftdemo.ui.parts import forms
    from sftdemo.ui.texts.choices import CHOICES

    specs = {spec.name: spec.metadata["choices"] for spec in dataclasses.fields(TrainConfig)}
    for name, words in CHOICES.items():
        assert words.keys() <= set(specs[name]), name
        shown = forms.field(TrainConfig, name).choices
        assert [value for _, value in shown] == list(specs[name])
        assert all("choice_" in str(text) for text, value in shown if value in words), "filled in by the browser"
