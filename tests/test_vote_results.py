"""Second looks, typed prompts, raters left out, what the votes come to, and files of older versions."""

from __future__ import annotations

import csv
import io
import json
import random
from collections import Counter

import pytest

from sftdemo import files
from sftdemo.errors import UserError
from sftdemo.runs import Run
from sftdemo.votes import TYPED, Store, pairing
from tests.test_votes import EVALUATION, events, make_run, next_pair, row_of, side_of_base, vote_for

pytestmark = pytest.mark.slow


def vote_on_all(store: Store, run: Run, rater: str, winner: str = "tuned") -> list[int]:
    """Vote until the end; returns the rows in the order they were seen."""
    seen = []
    while pair := store.next_pair(run, EVALUATION, rater):
        base = side_of_base(pair)
        seen.append(row_of(pair))
        store.vote(pair.ballot, {"base": base, "tuned": "ab".replace(base, "")}.get(winner, winner), rater)
    return seen


# Second looks


def test_about_one_pair_in_twenty_comes_again_after_ten_others(store: Store) -> None:
    run = make_run(40)
    seen = vote_on_all(store, run, "ann")
    again = [row for row, times in Counter(seen).items() if times == 2]
    assert len(seen) == 42 and len(again) == 2 and set(seen) == set(range(40))
    for row in again:
        first, second = (place for place, one in enumerate(seen) if one == row)
        assert second - first > pairing.APART


@pytest.mark.parametrize("seed", [0, 406])  # with 406 all pairs that may come again stood on the side that is drawn
def test_a_second_look_has_its_sides_changed_and_all_sides_stay_balanced(
    store: Store, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    draw = random.Random(seed)
    monkeypatch.setattr(pairing.secrets, "SystemRandom", lambda: draw)
    run = make_run(40)
    vote_on_all(store, run, "ann", "tie")
    votes = [json.loads(line) for line in store.export(run, "jsonl").splitlines()]
    for look, each in ((1, 20), (2, 1)):
        assert Counter(vote["side_a"] for vote in votes if vote["look"] == look) == {"base": each, "tuned": each}
    first = {vote["row"]: vote["side_a"] for vote in votes if vote["look"] == 1}
    second = [vote for vote in votes if vote["look"] == 2]
    assert len(second) == 2 and all(vote["side_a"] != first[vote["row"]] for vote in second)


def test_second_looks_measure_steadiness_and_count_nowhere_else(store: Store) -> None:
    run = make_run(40)
    vote_on_all(store, run, "ann", "tuned")
    report = store.report(run)
    assert (report.totals.n, report.totals.tuned, report.again.k, report.again.n) == (40, 40, 2, 2)
    assert len(store.export(run, "dpo").splitlines()) == 40


def test_whoever_always_takes_the_left_is_unsteady(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(0)  # by bad luck all pairs that may come again stood on the sides they come on now
    monkeypatch.setattr(pairing.secrets, "SystemRandom", lambda: draw)
    run = make_run(40)
    while pair := store.next_pair(run, EVALUATION, "lefty"):
        store.vote(pair.ballot, "a", "lefty")
    report = store.report(run)
    assert (report.again.k, report.again.n) == (0, 2)
    assert report.left.rate == 1 and report.left.low > 0.9
    assert (report.totals.base, report.totals.tuned) == (20, 20)


def test_places_of_second_looks() -> None:
    for rater in map(str, range(200)):
        places = pairing.repeats(rater, "e", 100)
        assert len(places) == 5
        assert all(start + 12 <= place < start + 20 for start, place in zip(range(0, 100, 20), places, strict=True))
    assert pairing.repeats("ann", "e", 11) == []
    assert len({tuple(pairing.repeats(str(rater), "e", 100)) for rater in range(50)}) > 40


def test_a_row_skipped_is_not_asked_again(store: Store) -> None:
    run = make_run(25)
    seen = []
    while pair := store.next_pair(run, EVALUATION, "ann"):
        seen.append(row_of(pair))
        store.vote(pair.ballot, "skip", "ann")
    assert sorted(seen) == list(range(25))


def test_raters_spread_evenly(store: Store) -> None:
    """Five raters in turn, each for a while: no row is two votes ahead of another."""
    run = make_run(11)
    asked = Counter({row: 0 for row in range(11)})
    for turn in range(40):
        rater = f"rater {turn % 5}"
        if pair := store.next_pair(run, EVALUATION, rater):
            asked[row_of(pair)] += 1
            store.vote(pair.ballot, "a", rater)
        assert max(asked.values()) - min(asked.values()) <= 2


# Typed prompts

ASKED = [{"role": "user", "content": "Say hello"}]


def test_a_typed_prompt_is_stored_shown_blind_and_voted_on(store: Store) -> None:
    run = make_run(2)
    pair = store.add_typed(run, ASKED, {"base": " hello ", "tuned": "HELLO\n"}, "ann", temperature=0.0)
    assert pair is not None and sorted([pair.answer_a, pair.answer_b]) == ["HELLO", "hello"] and pair.prompt == ASKED
    assert store.next_pair(run, TYPED, "ann") == pair
    assert store.next_pair(run, TYPED, "bob") is None
    revealed = store.vote(pair.ballot, side_of_base(pair), "ann")
    assert revealed.winner == "base" and store.next_pair(run, TYPED, "ann") is None
    assert (store.totals(run, TYPED).base, store.totals(run, EVALUATION).n, store.totals(run).base) == (1, 0, 1)
    dpo = [json.loads(line) for line in store.export(run, "dpo", TYPED).splitlines()]
    assert dpo == [{"prompt": ASKED, "chosen": "hello", "rejected": "HELLO"}]
    store.undo("ann", run, TYPED)
    again = store.next_pair(run, TYPED, "ann")
    assert again and (again.answer_a, again.answer_b) == (pair.answer_a, pair.answer_b)


def test_equal_answers_to_a_typed_prompt_are_counted_and_not_asked(store: Store) -> None:
    run = make_run(2)
    assert store.add_typed(run, ASKED, {"base": "hello", "tuned": "hello "}, "ann") is None
    assert store.next_pair(run, TYPED, "ann") is None
    assert (store.totals(run, TYPED).same, store.totals(run, TYPED).rows) == (1, 0)


def test_typed_sides_stay_balanced_without_an_end(store: Store) -> None:
    sides: list[str] = []
    widest = 0
    for _ in range(400):
        sides.append(pairing.draw_side(sides, None))
        widest = max(widest, abs(2 * sides.count("base") - len(sides)))
    assert widest <= 16  # fair coins reach 20 or more half of the time; this coin once in 2^13 or so
    assert len({"".join(sides[i : i + 4]) for i in range(0, 400, 4)}) > 8


# What was said with the vote


def test_reasons_marks_and_words_are_kept_by_model(store: Store) -> None:
    run = make_run(2)
    pair = next_pair(store, run)
    base = side_of_base(pair)
    tuned = "ab".replace(base, "")
    scales = {base: {"correct": 2, "fluent": 3}, tuned: {"correct": 5}}
    store.vote(pair.ballot, tuned, "ann", "=shorter", tags=["clear", "correct", "clear"], scales=scales)
    record = json.loads(store.export(run, "jsonl"))
    assert record["tags"] == ["correct", "clear"] and record["reason"] == "=shorter"
    marks = {key: record[key] for key in record if key.startswith(("correct_", "fluent_", "helpful_"))}
    assert {key: mark for key, mark in marks.items() if mark} == {
        "correct_base": 2,
        "correct_tuned": 5,
        "fluent_base": 3,
    }
    row = next(csv.DictReader(io.StringIO(store.export(run, "csv"))))
    assert (row["tags"], row["reason"], row["correct_tuned"], row["fluent_tuned"]) == (
        "correct;clear",
        "'=shorter",
        "5",
        "",
    )
    report = store.report(run)
    assert report.tags == {"correct": {"tuned": 1}, "clear": {"tuned": 1}}
    assert report.scales == {"correct": {"base": 2, "tuned": 5, "n": 1}}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tags": ["pretty"]}, "'pretty' is no reason to pick"),
        ({"scales": {"a": {"correct": 6}}}, "6 for 'correct' of answer 'a' is no mark"),
        ({"scales": {"base": {"correct": 1}}}, "no mark"),
        ({"scales": {"a": {"funny": 1}}}, "no mark"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_the_vote(store: Store, options: dict[str, object], says: str) -> None:
    pair = next_pair(store, make_run(2))
    with pytest.raises(UserError, match=says):
        store.vote(pair.ballot, "a", "ann", **options)  # type: ignore[arg-type]
    assert events(store) == []


# Many raters


def test_an_excluded_rater_is_out_of_everything_and_can_come_back(store: Store) -> None:
    run = make_run(6)
    vote_on_all(store, run, "ann", "tuned")
    vote_on_all(store, run, "bob", "base")
    before = store.report(run)
    assert (before.totals.tuned, before.totals.base, before.shared) == (6, 6, 6)
    store.exclude(run, "bob")
    after = store.report(run)
    assert (after.totals.tuned, after.totals.base, after.totals.raters, after.shared) == (6, 0, 1, 0)
    assert {one.name: one.excluded for one in after.by_rater} == {"ann": False, "bob": True}
    assert "bob" not in store.export(run, "csv") and len(store.export(run, "dpo").splitlines()) == 6
    # Rows only bob has voted on count as not asked yet; bob himself is not asked twice.
    assert store.next_pair(run, EVALUATION, "bob") is None
    store.exclude(run, "bob", excluded=False)
    assert store.report(run) == before
    assert [event["kind"] for event in events(store)[-2:]] == ["exclude", "include"]
    with pytest.raises(UserError, match="'eve' has not voted"):
        store.exclude(run, "eve")


def test_agreement_between_raters(store: Store) -> None:
    run = make_run(5)
    wanted = {"ann": ["tuned", "tuned", "base", "tie", "tuned"], "bob": ["tuned", "tuned", "base", "tie", "base"]}
    for rater, winners in wanted.items():
        while pair := store.next_pair(run, EVALUATION, rater):
            winner, base = winners[row_of(pair)], side_of_base(pair)
            store.vote(pair.ballot, {"base": base, "tuned": "ab".replace(base, "")}.get(winner, winner), rater)
    report = store.report(run)
    # By hand: 10 values, tuned 5, base 3, tie 2; one unit of five disagrees: 1 - 9 · 2 / (100 - 38).
    assert report.alpha == pytest.approx(1 - 18 / 62) and report.shared == 5
    assert [(one.name, one.votes, one.tuned.k, one.tuned.n) for one in report.by_rater] == [
        ("ann", 5, 3, 4),
        ("bob", 5, 2, 4),
    ]


def test_votes_on_one_prompt_are_one_piece_of_evidence(store: Store) -> None:
    run = make_run(4)
    for rater in ("ann", "bob", "eve"):
        vote_on_all(store, run, rater, "tuned")
    totals = store.totals(run)
    assert (totals.tuned, totals.prompts, totals.e_value) == (12, 4, pytest.approx(16 / 5))
    assert totals.needed and totals.needed > 0


def test_votes_changed_after_the_sides_were_told_are_counted(store: Store) -> None:
    run = make_run(3)
    vote_for(store, run, "tuned")
    store.undo("ann", run, EVALUATION)
    vote_for(store, run, "base")
    vote_for(store, run, "base")
    assert (store.report(run).changed, store.report(run).totals.base) == (1, 2)


# Metrics and models


def test_which_metric_agrees_with_people(store: Store) -> None:
    run = make_run(4)
    rows = run.outputs(EVALUATION)
    for row in rows:
        row |= {"references": ["a red cat sat"], "label": None, "base": f"dog {row['row']}", "tuned": "a red cat sat"}
    rows[3] |= {"base": "a red cat sat", "tuned": "nothing like it at all, truly"}
    files.write_jsonl(run.path / "evaluations" / EVALUATION / "outputs.jsonl", rows)
    while pair := store.next_pair(run, EVALUATION, "ann"):  # people choose the longer answer, always
        store.vote(pair.ballot, "a" if len(pair.answer_a) > len(pair.answer_b) else "b", "ann")
    found = store.report(run).metrics
    assert {name: (rate.k, rate.n, silent) for name, (rate, silent) in found.items()} == {
        **dict.fromkeys(("exact_match", "token_f1", "bleu", "chrf", "rouge1", "rougeL"), (3, 4, 0)),
        "longer": (4, 4, 0),
    }
    assert found["chrf"][0].low < 0.75 < found["chrf"][0].high


def test_the_label_metric_takes_no_side_where_both_are_wrong(store: Store) -> None:
    run = make_run(3)
    rows = run.outputs(EVALUATION)
    answers = [("Good!", "good"), ("x", "bad one"), ("bad", "good")]
    for row, (base, tuned) in zip(rows, answers, strict=True):
        row |= {"references": ["good"], "label": "good", "base": base, "tuned": tuned}
    files.write_jsonl(run.path / "evaluations" / EVALUATION / "outputs.jsonl", rows)
    texts = {tuned: "tuned" for _, tuned in answers}
    while pair := store.next_pair(run, EVALUATION, "ann"):
        store.vote(pair.ballot, "a" if pair.answer_a in texts else "b", "ann")
    rate, silent = store.report(run).metrics["accuracy"]
    assert (rate.k, rate.n, silent) == (2, 2, 1)


def settings_of(run: Run, **settings: str) -> Run:
    files.write_json(run.path / "config.json", {"settings": {"model": "small", "quantization": "none"} | settings})
    return run


def test_a_ranking_appears_when_three_models_have_met(store: Store) -> None:
    one, two = settings_of(make_run(30, name="one")), settings_of(make_run(30, name="two"))
    other = settings_of(make_run(5, name="other"), quantization="nf4")
    vote_on_all(store, one, "ann", "tuned")
    vote_on_all(store, other, "ann", "tuned")
    assert store.ranking(one) == []
    vote_on_all(store, two, "ann", "base")
    places = store.ranking(one)
    assert [(place.name, place.is_base, place.rank) for place in places] == [
        ("one", False, 1), ("small", True, 2), ("two", False, 3),
    ]  # fmt: skip
    assert places[0].low > 0.5 > places[2].high and places[1].votes == 60
    assert store.ranking(two) == places and store.ranking(other) == []
    store.exclude(two, "ann")
    assert store.ranking(one) == []
    store.exclude(two, "ann", excluded=False)
    two.delete()
    assert store.ranking(one) == []


def test_models_that_share_only_the_last_part_of_their_name_are_two_bases(store: Store) -> None:
    one, two = (
        settings_of(make_run(5, name="one"), model="a/small"),
        settings_of(make_run(5, name="two"), model="b/small"),
    )
    vote_on_all(store, one, "ann", "tuned")
    vote_on_all(store, two, "ann", "base")
    assert store.ranking(one) == []


# Files of older versions
