"""The page in Chromium: nothing jumps as it loads, every locale's Chinese is found, and no view shuts anybody out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import make_model

from sftdemo import files
from sftdemo.model.calibration import curve
from sftdemo.runs import Run
from sftdemo.ui.report.document import document
from tests import test_compare_runs
from tests.browser import NEEDS_CHROMIUM, SLOW_MS, TABS, expect, go, nameless, new_page, open_settings, settled
from tests.test_report import evaluated, trained
from tests.test_sweep_page import swept
from tests.test_systems_page import run_with_systems
from tests.test_ui import add_evaluation, made_run

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python isn't installed")
pytestmark = NEEDS_CHROMIUM

MOST_SHIFT = 0.05
SHIFT_JS = """() => new Promise((resolve) => {
  let total = 0;
  const add = (list) => { for (const entry of list.getEntries()) if (!entry.hadRecentInput) total += entry.value; };
  new PerformanceObserver(add).observe({type: "layout-shift", buffered: true});
  setTimeout(() => resolve(total), 500);  // the entries so far come with the first callback
})"""


def serious(page: Any) -> list[str]:
    """What axe-core finds that shuts people out, and controls without a name."""
    violations = axe.Axe().run(page).response["violations"]
    return nameless(page) + [
        f"{violation['id']}: {node['html'][:120]}"
        for violation in violations
        if violation["impact"] in ("serious", "critical") or violation["id"] == "page-has-heading-one"
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize(
    ("width", "scheme", "locale", "first"),
    [(1280, "light", "en-US", "1 Data"), (390, "dark", "zh-HK", "1 数据")],
)
def test_nothing_jumps_and_nobody_is_shut_out(
    app_home: Path,
    url: str,
    open_page: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    width: int,
    scheme: str,
    locale: str,
    first: str,
) -> None:
    monkeypatch.setenv("SFTDEMO_HOME", str(app_home))
    if width == 1280:
        add_evaluation(made_run("first"))
    page = open_page(width, color_scheme=scheme, locale=locale)
    expect(page.locator("html")).to_have_class("arrived ready", timeout=SLOW_MS)
    expect(page.locator("#to-train")).to_be_visible(timeout=SLOW_MS)
    assert page.evaluate(SHIFT_JS) < MOST_SHIFT
    expect(page.locator("#steps button[role=tab]").first).to_have_text(first)
    for tab in TABS:
        go(page, tab)
        expect(page.locator(f"#tab-{tab}")).to_be_visible()
        assert serious(page) == [], tab
    page.goto(f"{url}rate?run=first")
    expect(page.locator("#vote-view")).to_be_visible(timeout=SLOW_MS)
    assert serious(page) == []


def test_the_page_is_made_once(app_home: Path, browser: Any, url: str) -> None:
    """Gradio's own script would make it twice."""
    page = new_page(browser)
    devtools = page.context.new_cdp_session(page)
    devtools.send("Profiler.enable")
    devtools.send("Profiler.startPreciseCoverage", {"callCount": True, "detailed": False})
    page.goto(url)
    page.wait_for_selector("#verdict")
    settled(page)
    scripts = devtools.send("Profiler.takePreciseCoverage")["result"]
    calls: dict[str, int] = {}
    for each in (function for script in scripts if "/assets/" in script["url"] for function in script["functions"]):
        calls[each["functionName"]] = calls.get(each["functionName"], 0) + each["ranges"][0]["count"]
    parts = len(page.evaluate("window.gradio_config.components"))
    assert 0 < calls["find_attached_events"] < 1.5 * parts
    page.context.close()


def test_the_plan_is_asked_for_once_of_all_that_changes_at_once(app_home: Path, url: str, browser: Any) -> None:
    """A page that opens changes no setting that was kept; each typed one asks anew."""
    page = new_page(browser)
    asked: list[int] = []
    page.on("request", lambda sent: asked.append(sent.post_data_json["fn_index"]) if "queue/join" in sent.url else None)
    page.goto(url)
    page.wait_for_selector("#verdict")
    settled(page)
    names = {each["id"]: each["api_name"] for each in page.evaluate("window.gradio_config.dependencies")}
    assert [names[number] for number in asked].count("follow_form") == 1, "of the data alone"
    assert page.evaluate("sessionStorage.getItem('sftdemo-kept-train')") is None, "no setting changed"
    open_settings(page)
    asked.clear()
    page.locator("#TrainConfig-epochs input").fill("7")
    expect(page.locator("#train-command")).to_contain_text("--epochs 7", timeout=SLOW_MS)
    settled(page)
    bars = {number for number, name in names.items() if name.startswith("refresh_bar")}  # a tick may come meanwhile
    assert [names[number] for number in asked if number not in bars] == ["follow_form"]
    page.context.close()


def runs_of_all_kinds() -> list[Run]:
    """What each view of a run shows: other systems, entities, probabilities of labels, a sweep, a student; nothing is trained."""
    entities = ['[{"text": "May", "label": "PER"}]', "[]"]
    rows = [test_compare_runs.row(k, right=True) for k in range(40)]
    marked = [
        row | {"label": None, "references": entities[:1], "base": entities[1], "tuned": entities[row["row"] % 2]}
        for row in rows
    ]
    beside, tagged = run_with_systems("beside"), evaluated(trained("tagged", task="tokens"), marked, ())
    labelled = evaluated(trained("labelled", task="classification"), rows)
    sure = [0.3 + 0.017 * k for k in range(40)]
    measured = {when: curve(sure, [value > 0.5 for value in sure]) for when in ("before", "after")}
    path = labelled.path / "evaluations" / "E" / "scores.json"
    files.write_json(path, {**labelled.scores("E"), "calibration": {"base": measured, "tuned": measured}})
    searched, student = swept(name="searched"), trained("student")
    searched.write_status("stopped", step=0, total=0)
    taught = {
        "teacher": "beside",
        "teacher_sha256": "0" * 64,
        "lineage": ["beside"],
        "layers_kept": [0, 2],
        "block_influence": [0.2, 0.1, 0.2],
    }
    files.write_json(student.path / "config.json", {**student.config(), "student": taught})
    for run in (listed := [beside, tagged, labelled, searched, student]):
        run.model_path.mkdir(exist_ok=True)
        for split in run.config().get("data", {}).get("files", {}):
            files.write_jsonl(run.path / "data" / f"{split}.jsonl", [{"messages": rows[0]["messages"]}])
        assert run.damage() is None
    return listed


def unfold(page: Any) -> None:
    """Open all that is folded, and what is folded in that."""
    folded = page.locator("button.label-wrap:not(.open):visible")
    while folded.count():
        folded.first.click()
    settled(page)


def test_no_view_of_a_run_shuts_anybody_out(
    app_home: Path,
    url: str,
    open_page: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tokenizer: Any,
    tmp_path: Path,
) -> None:
    """On a phone, dark and in Chinese, where the least has been looked at by those who write it."""
    monkeypatch.setenv("SFTDEMO_HOME", str(app_home))
    for part in (tokenizer, make_model(tokenizer)):
        part.save_pretrained(tmp_path)
    listed = runs_of_all_kinds()
    found: dict[str, list[str]] = {}
    page = open_page(390, color_scheme="dark", locale="zh-CN")
    page.locator("#data-model input").fill(str(tmp_path))
    page.locator("#data-model input").press("Enter")
    expect(page.locator("#xray .sup").first).to_be_visible(timeout=SLOW_MS)
    unfold(page)
    found["the X-ray"] = serious(page)
    go(page, "train")
    unfold(page)
    found["all settings"] = serious(page)
    for run in listed[:3]:
        page.goto(f"{url}?tab=evaluate&run={run.name}")
        page.locator("#outputs tr[data-pick]").first.click()
        expect(page.locator("#opened-row")).to_be_visible(timeout=SLOW_MS)
        unfold(page)
        found[run.name] = serious(page)
    go(page, "runs")
    for run in listed[3:]:
        page.locator("#runs-table tr[data-pick]", has_text=run.name).click()
        expect(page.locator("#runs-info")).to_contain_text(run.name, timeout=SLOW_MS)
        unfold(page)
        found[run.name] = serious(page)
    for run in (listed[0], listed[2]):
        page.locator("#compare input").click()
        page.locator("[role=option]", has_text=run.name).first.click()
        settled(page)
    expect(page.locator("#compare-measured")).not_to_be_empty(timeout=SLOW_MS)
    found["the comparison"] = serious(page)
    for reported in (listed[:1], listed[1:3]):
        page.goto("about:blank")
        page.set_content(document(reported, "zh"))
        found[f"the report on {reported[0].name}"] = serious(page)
    assert {view: problems for view, problems in found.items() if problems} == {}
