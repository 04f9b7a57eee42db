"""The benchmark's own arithmetic and words, and once the measurements themselves on a tiny model."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest

from benchmarks import children, parts, peers, plan, plot, report, rows
from benchmarks.__main__ import main

ROOT = Path(__file__).parents[1]


def measured() -> list[plan.Record]:
    """Two rounds: in the second all is half as fast, and TRL's packing was missing in the first."""
    found: list[plan.Record] = []
    for number, slow in ((1, 1), (2, 2)):
        mark = {"part": "training", "round": number}
        limits = {"training_dtype": "bfloat16", "bfloat16_gflops": 500 / slow, "float32_gflops": 50, "read_gb_s": 20}
        ours = {"tokens_per_s": 400 / slow, "row_tokens": 1000, "needed_flops": 500e9}
        found += [
            mark | {"who": "machine"} | limits,
            mark | {"who": "sftdemo"} | ours,
            mark | {"who": plan.BESIDE, "tokens_per_s": 180 / slow},
            mark | {"who": "TRL", "seconds": 10 * slow, "row_tokens": 1000},
            mark | {"who": "TRL, packing", "seconds": 4 * slow, "row_tokens": 990},
            mark | {"who": "LLaMA-Factory", "failed": "can't be installed: no network"},
        ]
    del found[4]
    mark = {"part": "chat", "round": 1}
    found += [
        mark | {"who": "sftdemo", "seconds": 4.0, "tokens": {"base": 72, "tuned": 72}},
        mark | {"who": "generate", "base": {"tokens": 80, "seconds": 4.0}},
        mark | {"who": "same tokens", "answers": 8, "identical": 7, "ties": 1},
    ]
    return found


def test_the_rows_are_drawn_by_the_seed():
    drawn = rows.mixed(200)
    assert drawn == rows.mixed(300)[:200] != rows.mixed(200, seed=1)
    lengths = [len(row["messages"][1]["content"].split()) for row in drawn]
    assert set(lengths) == set(rows.ANSWER_WORDS)
    asked = {len(row["messages"][0]["content"].split()) - 3 for row in drawn}
    assert asked == set(rows.QUESTION_WORDS)


def test_enough_is_held_out_and_no_row_twice():
    drawn = rows.training_rows("mixed", 48)
    counts = {split: sum(row["split"] == split for row in drawn) for split in ("train", "validation", "test")}
    assert counts == {"train": 48, "validation": 6, "test": 6}
    assert len({json.dumps(row["messages"]) for row in drawn}) == 60
    sample = rows.training_rows("support_tickets", 10_000)  # it has fewer
    assert 0.7 * len(sample) < sum(row["split"] == "train" for row in sample) < len(sample)


def test_prompts_end_where_the_answer_begins():
    asked = rows.prompts("support_tickets", 5)
    assert len(asked) == 5 and all(prompt[-1]["role"] == "user" for prompt in asked)


def test_ratios_are_taken_within_a_round():
    found = report.Found(measured())
    assert found.faster("TRL") == report.Spread(4, 4, 4)
    assert found.spread("training", "TRL", found.tokens_per_s) == report.Spread(75, 50, 100)
    assert found.faster("TRL, packing") == report.Spread(1.6, 1.6, 1.6)  # round 2 alone: 200 tokens/s over 1000 / 8 s
    assert found.faster("LLaMA-Factory") is None
    # 500 GFLOP for 1,000 tokens at 400 tokens/s are 200 GFLOP/s of 500.
    assert found.share() == report.Spread(0.4, 0.4, 0.4)
    assert found.chat_share() == report.Spread(0.9, 0.9, 0.9)


def test_memory_counts_what_the_second_side_adds():
    mark = {"part": "memory", "round": 1}
    alone = mark | {"who": "base alone", "resident_bytes": 900, "weights_bytes": 500}
    found = report.Found([alone, mark | {"who": "both sides", "resident_bytes": 930}])
    assert found.second_side() == report.Spread(0.06, 0.06, 0.06)


@pytest.mark.parametrize(
    ("value", "more", "said"), [(5, True, "aim"), (4.2, True, "yes"), (3.9, True, "no"), (4.9, False, "no")]
)
def test_verdicts(value, more, said):
    assert report.verdict(value, 4, 5 if more else 3, more) == said


def test_the_report_tells_what_failed_and_what_was_reached():
    text = report.markdown(measured(), {"machine": "a test"}, "plot.svg")
    assert "- LLaMA-Factory was not measured: can't be installed: no network" in text
    assert "| training against TRL, times | ≥ 4, aim 5 | 4.00 | yes |" in text
    assert "| training against TRL with packing, times | ≥ 2.6, aim 3.5 | 1.60 | no |" in text
    assert (
        "| greedy tokens against generate | identical but for ties | 7 of 8 identical, 1 parted at a tie | aim |"
        in text
    )
    assert "| training beside a busy process against quiet | ≥ 0.4, aim 0.5 | 0.45 | yes |" in text
    assert f"| {plan.BESIDE} | 135.0 (90.0–180.0) |  |  |" in text
    assert "| TRL | 75.0 (50.0–100.0) | 4.00 | 1,000 |" in text
    assert "only told" not in text
    assert "only told" in report.markdown(
        [], {"arithmetic": "float32: the processor has no bfloat16 units"}, "plot.svg"
    )
    assert "only told" not in report.markdown(
        [], {"arithmetic": "float32: the processor is faster in it than in bfloat16"}, "plot.svg"
    )


def test_the_plot_is_drawn_to_scale():
    drawn = plot.svg(plot.panels(report.Found(measured())))
    tree = xml.etree.ElementTree.fromstring(drawn)
    widths = [float(bar.get("width", 0)) for bar in tree.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert widths[0] == pytest.approx(4 * widths[1], abs=0.2)  # medians 300 and 75
    assert "not measured" in drawn


def test_a_child_that_fails_says_why(tmp_path):
    failed = children.measure("nothing", {}, tmp_path)["failed"]
    assert failed.startswith("exit status 1: ") and "No module named benchmarks.tasks.nothing" in failed
    assert children.measure("machine", {}, tmp_path, seconds=0.01) == {"failed": "not done after 0.01 s"}
    assert "No such file" in children.measure("machine", {}, tmp_path, tmp_path / "python")["failed"]


def test_an_app_that_ends_is_no_page(tmp_path):
    bench = plan.Bench(plan.QUICK, tmp_path, tmp_path, tmp_path / "peers")
    command = [sys.executable, "-c", "raise SystemExit('no port')"]
    assert parts.first_page(command, parts.free_port(), bench) == {"failed": "exit status 1: no port"}


def test_an_environment_that_is_not_there_has_no_versions(tmp_path):
    assert peers.versions(tmp_path, "trl") == {}


def test_wrong_usage_is_told_in_one_line(capsys):
    with pytest.raises(SystemExit):
        main(["--rounds", "0"])
    assert "--rounds is 0; the least is 1." in capsys.readouterr().err
    assert main(["--model", "nowhere"]) == 1
    assert "There is no model 'nowhere'" in capsys.readouterr().err


@pytest.mark.slow
def test_the_chat_is_measured_and_its_tokens_are_the_plain_ones(tmp_path, tiny):
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "--quick",
        "--only",
        "chat",
        "--model",
        tiny,
        "--results",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=900)
    assert done.returncode == 0, done.stderr
    raw = json.loads(next(tmp_path.glob("*.json")).read_text(encoding="utf-8"))
    by = {record["who"]: record for record in raw["records"]}
    assert by["sftdemo"]["tokens"] == {"base": 32, "tuned": 32} and by["generate"]["base"]["tokens"] == 32
    assert by["same tokens"]["identical"] + by["same tokens"]["ties"] == by["same tokens"]["answers"] == 4
    assert Path(done.stdout.strip()).read_text(encoding="utf-8").count("## Side by side in the chat") == 1
