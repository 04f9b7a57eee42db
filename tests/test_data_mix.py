"""Several data sets in one run, labels of unequal size, and splits of a size that was asked for."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from sftdemo import runs
from sftdemo.config import TrainConfig
from sftdemo.config.read import ReadConfig
from sftdemo.data import Dataset, mixture, prepare, read
from sftdemo.errors import DataError, UsageError, UserError


@pytest.fixture
def write(tmp_path: Path):
    """Write rows as a JSONL file and give its path."""

    def as_file(name: str, *rows: dict[str, object]) -> str:
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return as_file


def moods(**counts: int) -> list[dict[str, object]]:
    return [
        {"text": f"{label} text number {index}", "label": label} for label, n in counts.items() for index in range(n)
    ]


def facts(count: int, **more: object) -> list[dict[str, object]]:
    return [{"prompt": f"What follows {index}?", "completion": f"It is {index + 1}.", **more} for index in range(count)]


def per_source(dataset: Dataset) -> dict[str, Counter[str]]:
    return {split: Counter(row["meta"]["source"] for row in rows) for split, rows in dataset.splits.items()}


def test_what_is_named():
    part = mixture.Part
    assert mixture.parse("a") == [part("a")]
    assert mixture.parse(" a*2 + b * 0.5 + owner/name:en:test ") == [part("a", 2), part("b", 0.5), part("owner/name:en:test")]  # fmt: skip
    for data, said in [
        ("a*0 + b", "a has the weight 0; give more than 0 and at most 100."),
        ("a*1000", "a has the weight 1000; give more than 0 and at most 100."),
        ("a*1.2.3", "a has the weight 1.2.3; give more than 0 and at most 100."),
        ("a + a*2", "a is named twice; give it a weight instead: 'a*2'."),
        ("a +  + b", "No data is named; give a file, a folder, a sample or a Hub id."),
        ("", "No data is named; give a file, a folder, a sample or a Hub id."),
    ]:
        with pytest.raises(UsageError) as caught:
            mixture.parse(data)
        assert str(caught.value) == said


def test_a_path_with_a_plus_is_a_path(tmp_path):
    path = tmp_path / "a + b*2.jsonl"
    path.write_text(json.dumps(facts(1)[0]))
    assert read(path).examples == 1


def test_two_tasks_in_one_run(write):
    data = f"{write('moods', *moods(good=20, bad=20))}*2 + {write('facts', *facts(30))}*0.5"
    dataset = prepare(ReadConfig(data=data))
    assert (dataset.format, dataset.task, dataset.name) == ("mixed", "mixed", "moods+facts")
    assert per_source(dataset) == {
        "train": {"moods": 64, "facts": 12},
        "validation": {"moods": 4, "facts": 3},
        "test": {"moods": 4, "facts": 3},
    }
    assert {row["meta"]["task"] for row in dataset.splits["test"]} == {"classification", "generation"}
    assert Counter(str(row["messages"]) for row in dataset.splits["train"]).most_common(1)[0][1] == 2
    assert [(part["name"], part["weight"], part["rows"]) for part in dataset.sources] == [
        ("moods", 2.0, {"train": 64, "validation": 4, "test": 4}),
        ("facts", 0.5, {"train": 12, "validation": 3, "test": 3}),
    ]
    assert dataset.sources[0]["instruction"].startswith("Classify this text as one of: bad, good.")
    assert prepare(ReadConfig(data=data)).splits == dataset.splits


def test_a_source_keeps_its_own_test_rows(write):
    own = [*facts(20, split="train"), {"prompt": "Held out?", "completion": "Yes.", "split": "test"}]
    dataset = prepare(ReadConfig(data=f"{write('own', *own)} + {write('moods', *moods(good=10, bad=10))}"))
    assert per_source(dataset)["test"] == {"own": 1, "moods": 2}


def test_no_row_is_in_train_and_in_another_sources_test(write):
    test = {"prompt": "What follows 3?", "completion": "It is 4.", "split": "test"}
    dataset = prepare(
        ReadConfig(data=f"{write('a', *facts(20))} + {write('b', {**test, 'split': 'train', 'prompt': 'x'}, {**test, 'split': 'train', 'prompt': 'y'}, test)}")
    )  # fmt: skip
    held_out = {str(row["messages"]) for name in ("validation", "test") for row in dataset.splits[name]}
    assert not held_out & {str(row["messages"]) for row in dataset.splits["train"]}
    moved = "Train rows left out, since another of the sets holds them out: 1." in dataset.notes
    assert moved or "What follows 3?" in str([row["messages"] for row in dataset.splits["test"]])


def test_a_fault_of_a_part_names_it(write):
    good, bad = write("good", *facts(5)), write("bad", {"prompt": "", "completion": "b"})
    (fault,) = read(f"{good} + {bad}").faults
    assert (fault.file, fault.line) == ("bad.jsonl", 1)
    with pytest.raises(UserError, match=r"In .*good\.jsonl: columns names 'x', which no row has"):
        read(f"{good} + {bad}", columns="prompt=x")


def test_labels_are_balanced_in_train_alone(write):
    path = write("moods", *moods(rare=20, common=80))
    counts = {}
    for method in ("none", "over", "under", "weights"):
        dataset = prepare(ReadConfig(data=path, balance=method))
        counts[method] = Counter(row["label"] for row in dataset.splits["train"])
        assert Counter(row["label"] for row in dataset.splits["test"]) == {"rare": 2, "common": 8}
        if method != "none":
            assert dataset.balance["before"] == {"common": 64, "rare": 16}
            assert dataset.balance["after"] == counts[method]
        assert ("weight" in dataset.splits["train"][0]) == (method == "weights")
    assert counts == {
        "none": {"rare": 16, "common": 64},
        "over": {"rare": 64, "common": 64},
        "under": {"rare": 16, "common": 16},
        "weights": {"rare": 16, "common": 64},
    }
    weights = [row["weight"] for row in dataset.splits["train"]]
    assert sum(weights) == pytest.approx(len(weights)), "the mean is 1"
    assert dataset.balance["weights"] == {"common": 0.625, "rare": 2.5}
    assert "weight" not in dataset.splits["validation"][0]
    cut = prepare(ReadConfig(data=path, balance="over"), max_examples=40)
    assert len(cut.splits["train"]) == 40 and 10 <= Counter(row["label"] for row in cut.splits["train"])["rare"] <= 30
    drawn = Counter(row["messages"][0]["content"] for row in cut.splits["train"] if row["label"] == "rare")
    assert len(drawn) > 5, "not one row alone, many times"


def test_balance_needs_labels(write):
    with pytest.raises(UserError, match=r"balance is .over., but the rows have no labels; leave it at"):
        prepare(ReadConfig(data=write("facts", *facts(20)), balance="over"))


def test_each_source_is_balanced_for_itself(write):
    other = [{**row, "text": f"{row['text']} of b"} for row in moods(x=40, z=10)]
    data = f"{write('a', *moods(x=20, y=10))} + {write('b', *other)} + {write('c', *facts(20))}"
    dataset = prepare(ReadConfig(data=data, balance="weights"))
    assert dataset.balance["before"] == {"a: x": 16, "a: y": 8, "b: x": 32, "b: z": 8}
    assert {row["weight"] for row in dataset.splits["train"] if row["meta"]["source"] == "c"} == {1.0}
    assert dataset.balance["weights"] == {"a: x": 0.75, "a: y": 1.5, "b: x": 0.625, "b: z": 2.5}


@pytest.mark.parametrize(
    ("sizes", "rows"),
    [
        ({}, (80, 10, 10)),
        ({"test_size": 0.3}, (60, 10, 30)),
        ({"test_size": 25.0, "validation_size": 5.0}, (70, 5, 25)),
        ({"validation_size": 0.2}, (70, 20, 10)),
        ({"test_size": 1.0, "validation_size": 1.0}, (98, 1, 1)),
    ],
)
def test_sizes_by_count_and_share(write, sizes, rows):
    dataset = prepare(ReadConfig(data=write("a", *moods(x=50, y=50)), **sizes))
    assert tuple(map(len, dataset.splits.values())) == rows
    assert dataset.notes == []


def test_sizes_that_can_not_be(write):
    path = write("a", *facts(10))
    with pytest.raises(DataError, match="Of 10 rows, 6 for test and 4 for validation leave none for train"):
        prepare(ReadConfig(data=path, test_size=6.0, validation_size=4.0))
    held = write("b", *facts(10), {"prompt": "p", "completion": "c"})
    rows = [{**row, "split": "train"} for row in facts(10)] + [{"prompt": "p", "completion": "c", "split": "test"}]
    held = write("b", *rows)
    assert prepare(ReadConfig(data=held, test_size=3.0)).notes == [
        "test_size is left aside: the data brings its own test rows."
    ]
    groups = [{**row, "group": index // 5} for index, row in enumerate(facts(30))]
    assert prepare(ReadConfig(data=write("c", *groups), test_size=7.0, validation_size=5.0)).notes == [
        "test has 5 rows, not 7: what belongs together stays together."
    ]


def test_a_run_states_all_that_was_done_to_its_data(write, tiny, home):
    from sftdemo.training.train import train

    rows = [*moods(good=20, bad=10), {"text": "", "label": "good"}, {"text": "<b>x</b> a@b.org", "label": "bad"}]
    config = TrainConfig(
        data=write("moods", *rows), model=tiny, name="r", epochs=0.2, on_fault="drop", clean="html,personal,leaks", balance="over"
    )  # fmt: skip
    train(config)
    stated = runs.find("r").config()["data"]
    assert [fault["line"] for fault in stated["dropped"]] == [31]
    assert {step["step"]: step["count"] for step in stated["cleaning"]} == {"html": 1, "personal": 1, "leaks": 0}
    assert stated["balance"]["method"] == "over" and len(set(stated["balance"]["after"].values())) == 1
    assert stated["sizes"]["train"] == sum(stated["balance"]["after"].values())
    for split, digest in stated["files"].items():
        saved = (home / "runs" / "r" / "data" / f"{split}.jsonl").read_bytes()
        assert hashlib.sha256(saved).hexdigest() == digest
