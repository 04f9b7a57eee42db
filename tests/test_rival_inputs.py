"""What systems are given: predictions in files of any order, examples that aren't there, questions in a run's own words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sftdemo.data.conversion.wording import Wording
from sftdemo.errors import UserError
from sftdemo.evaluation.systems_table import Named, sentence
from sftdemo.log import TO_LOG
from sftdemo.systems.few_shot import FewShot, _nearest, _spread
from sftdemo.systems.linear import Linear
from sftdemo.systems.other_run import as_trained, with_own_system
from sftdemo.systems.simple import PredictionFile
from sftdemo.systems.system import Task

LABELS = ["good", "bad", "good", "bad"]


def question(text: str, system: str = "") -> list[Any]:
    return [{"role": "system", "content": system}] * bool(system) + [{"role": "user", "content": text}]


def example(text: str, answer: str, system: str = "", **more: Any) -> Any:
    return {"messages": [*question(text, system), {"role": "assistant", "content": answer}], **more}


def task_of(rows: list[Any], train: list[Any]) -> Task:
    counts = {each["label"]: 1 for each in train if "label" in each}
    return Task(rows, train, [], counts, sorted(counts), 40, 8, 1, None, TO_LOG)


@pytest.fixture
def rows() -> list[Any]:
    return [
        {"row": k, "task": None, "messages": question(f"text {k}"), "references": [label], "label": label}
        for k, label in enumerate(LABELS)
    ]


def written(path: Path, rows: list[dict[str, Any]]) -> PredictionFile:
    if path.suffix == ".csv":
        path.write_text("\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return PredictionFile(path, f"file:{path}")


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv"])
def test_predictions_are_for_the_rows_that_they_name(rows: list[Any], tmp_path: Path, name: str) -> None:
    records = [{"row": k, "prediction": f"answer {k}", "label": label.title()} for k, label in enumerate(LABELS)]
    task = task_of(rows, [])
    for order in (records, records[::-1], [{**row, "row": row["row"]} for row in (records[k] for k in (2, 0, 3, 1))]):
        file = written(tmp_path / name, order)
        file.check(task)
        assert file.answer(task).texts == [f"answer {k}" for k in range(4)]
    for wrong, problem in (
        ([*records[:3], records[0]], "has 2 predictions for row 0"),
        ([*records[:3], {**records[3], "row": 4}], "has 0 predictions for row 3"),
        (records[:3], "has 3 predictions, and the evaluation has 4 rows"),
        ([*records, records[0]], "has 5 predictions, and the evaluation has 4 rows"),
        (
            [{**row, "row": 3 - row["row"]} for row in records],
            "prediction 1 is for 'Bad', and row 1 of the evaluation for 'good'",
        ),
    ):
        with pytest.raises(UserError, match=problem):
            written(tmp_path / name, wrong).check(task)


def test_predictions_without_rows_are_in_order(rows: list[Any], tmp_path: Path) -> None:
    records = [{"prediction": label, "reference": label} for label in LABELS]
    written(tmp_path / "p.jsonl", records).check(task_of(rows, []))
    with pytest.raises(UserError, match="prediction 1 is for 'bad'"):
        written(tmp_path / "p.jsonl", records[::-1]).check(task_of(rows, []))


@pytest.mark.parametrize("right", [("A", "A-"), ("?", "!"), ("a", "A")])
def test_answers_that_differ_by_a_sign_or_a_case_tell_the_order(tmp_path: Path, right: tuple[str, str]) -> None:
    rows = [{"messages": question(f"text {k}"), "references": [text]} for k, text in enumerate(right)]
    records = [{"prediction": text, "reference": f" {text}"} for text in right]
    written(tmp_path / "p.jsonl", records).check(task_of(rows, []))
    with pytest.raises(UserError, match=f"prediction 1 is for ' {re.escape(right[1])}'"):
        written(tmp_path / "p.jsonl", records[::-1]).check(task_of(rows, []))


def test_no_fewer_examples_are_shown_than_are_asked_for() -> None:
    train = [example(f"word {k}", "yes", "Be brief.", meta={"line": k, "source": "a"}) for k in range(4)]
    row = {"messages": question("word 1", "Be brief."), "task": "a"}
    for nearest in (False, True):
        (shown,) = FewShot(3, nearest).conversations(task_of([row], train))
        assert len(shown) == 1 + 2 * 3 + 1 and sum(turn["content"] == "word 1" for turn in shown) == 1
        for count, asked in (
            (4, row),
            (1, {**row, "task": "b"}),
            (1, {**row, "messages": question("word 1", "Rhyme.")}),
        ):
            with pytest.raises(UserError, match=f"needs {count} training rows? of the same system message"):
                FewShot(count, nearest).conversations(task_of([asked], train))
    assert FewShot(3).conversations(task_of([{**row, "task": None}], train)), "typed in chat: of any part of a mixture"


def test_the_nearest_examples_are_told_in_chinese() -> None:
    train = [example(text, "是") for text in ("今天天气很好", "我想退货", "怎么修改密码", "包裹还没有到")]
    (shown,) = FewShot(1, nearest=True).conversations(task_of([{"messages": question("密码忘了怎么改")}], train))
    assert shown[0]["content"] == "怎么修改密码"
    alike = [example("the very same", "yes") for _ in range(3)]
    with pytest.raises(UserError, match="base\\+1:nearest finds nothing in the training rows"):
        FewShot(1, nearest=True).conversations(task_of([{"messages": question("other")}], alike))


def test_linear_needs_labels_of_two_kinds(rows: list[Any]) -> None:
    for train, problem in (
        ([example("a b", "good", label="good")] * 3, "labels or more, and these have one"),
        ([example("a b", "good it was")] * 3, "linear needs rows with labels"),
    ):
        with pytest.raises(UserError, match=problem):
            Linear().check(task_of(rows, train))


def test_another_run_is_asked_in_the_words_of_its_training() -> None:
    ours, theirs = "Say the mood.\n\n{text}", "Is this good or bad?\n\n{text}"
    worded, plain = question("Say the mood.\n\nfine day"), question("fine day")
    assert as_trained(worded, [ours], [Wording(theirs)]) == question("Is this good or bad?\n\nfine day")
    assert as_trained(worded, [ours], [Wording(ours)]) == worded
    assert as_trained(worded, [ours], []) == plain, "a translator reads the text alone"
    assert as_trained(plain, [], [Wording(theirs)]) == question("Is this good or bad?\n\nfine day")
    several = [*plain, {"role": "assistant", "content": "yes"}, *worded]
    assert as_trained(several, [ours], [Wording(theirs)]) == several
    assert as_trained(worded, [ours], [Wording(theirs), Wording("Why?\n\n{text}")]) == worded, "of a mixture"


def test_another_run_is_asked_under_its_own_system_message() -> None:
    asked = question("fine day", "Be brief.")
    assert with_own_system(asked, "Be brief.", "Rhyme.") == question("fine day", "Rhyme.")
    assert with_own_system(asked, "Be brief.", "") == question("fine day")
    assert with_own_system(question("fine day"), "", "Rhyme.") == question("fine day", "Rhyme.")
    for given in ("", "Be long."):
        assert with_own_system(asked, given, "Rhyme.") == asked, "the row's own stays"
    assert with_own_system(question("fine day"), "Be brief.", "Rhyme.") == question("fine day")


def test_a_name_stands_in_chinese_as_it_should() -> None:
    values = {"delta": 0.2, "low": 0.1, "high": 0.3, "p": 0.001, "p_holm": 0.001}

    def chinese(to: str, other: str, n: int = 100) -> str:
        return sentence(Named.of(to, 400.0), Named.of(other, 1.0), values, "accuracy", n, None)["zh"]

    assert chinese("tuned", "linear").startswith("在 100 行上，微调后的模型胜过线性模型：+20 个百分点 [10, 30]；")
    assert chinese("tuned", "linear").endswith("；每个回答的用时是后者的 400 倍。")
    assert chinese("run:a", "run:b").startswith("在 100 行上，运行 a 胜过运行 b：")
    assert chinese("run:a", "base+8", 20).startswith("20 行太少，无法区分运行 a 与带 8 个示例的基础模型：")
    assert chinese("int8", "majority").startswith("在 100 行上，微调后的模型（int8）胜过始终回答最常见标签的做法：")
    assert chinese("tuned", "file:/a/b.csv").startswith("在 100 行上，微调后的模型胜过 b.csv 中的回答：")
    assert chinese("api:m@https://host/v1", "copy").startswith("在 100 行上，host 上的 m 胜过照抄提示的做法：")
    tied = {"delta": 0.0, "low": 0.0, "high": 0.0, "p": 1.0, "p_holm": 1.0}
    told = sentence(Named.of("tuned"), Named.of("linear"), tied, "accuracy", 60, None)
    assert (
        told["zh"].startswith("在 60 行上，微调后的模型与线性模型没有明显差别：每行都相同。") and "[0" not in told["en"]
    )
    one = sentence(Named.of("tuned"), Named.of("base+1"), values, "accuracy", 1, 1)["en"]
    assert one.startswith("1 row of 1 group is too few to tell the tuned model from the base with 1 example: ")


def test_a_difference_that_only_holm_takes_away_says_so() -> None:
    values = {"delta": 0.22, "low": 0.05, "high": 0.4, "p": 0.02, "p_holm": 0.07}
    said = sentence(Named.of("tuned"), Named.of("base+2"), values, "accuracy", 40, None)
    assert said["en"].endswith(
        "+22 points [5, 40]. The interval is for this comparison alone; corrected for all of them (Holm), p is 0.07."
    )
    assert "Holm" in said["zh"]
    unclear = sentence(Named.of("tuned"), Named.of("linear"), values | {"low": -0.05, "p": 0.2}, "accuracy", 30, None)
    assert "rows would show it" in unclear["en"] and "可以看出" in unclear["zh"]


def test_examples_are_of_the_row_s_kind_and_never_the_row_itself() -> None:
    train = [example(f"{word} dog", word, "to French", meta={"line": 1}) for word in ("a", "b", "c")]
    train += [
        example("the cat", "die Katze", "to German", meta={"line": 1}),
        example("the dog", "der Hund", "to German", meta={"line": 1}),
    ]
    rows = [{"messages": example("The dog!", "", "to German")["messages"][:-1], "task": None}]
    task = task_of(rows, train)
    for shown in (_nearest(task, 2), _spread(task, 2)):
        assert [[turn["messages"][1]["content"] for turn in examples] for examples in shown] == [["the cat"]]


@pytest.mark.parametrize(
    ("ms", "said"),
    [(150.0, ("750 times the time", "750 倍")), (526.4, ("over 1,000 times the time", "1,000 多倍"))],
)
def test_no_more_of_the_time_is_told_than_a_clock_knows(ms: float, said: tuple[str, str]) -> None:
    values = {"delta": 0.2, "low": 0.1, "high": 0.3, "p": 0.001, "p_holm": 0.001}
    for pair in ((ms, 0.2), (0.2, ms)):
        line = sentence(Named.of("tuned", pair[0]), Named.of("linear", pair[1]), values, "accuracy", 100, None)
        assert said[0] in line["en"] and said[1] in line["zh"]
