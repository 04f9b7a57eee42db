"""What visitors may use up and name: the ledger, shares of the line, and sources of data and models."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("gradio")

from sftdemo import runs
from sftdemo.config import EvaluateConfig, GenerateConfig, TrainConfig
from sftdemo.config.read import ReadConfig
from sftdemo.errors import UserError
from sftdemo.runs import starter
from sftdemo.ui import trainings, work
from sftdemo.ui.access import allowance, payload, rights, sources, uploads
from sftdemo.ui.access.ledger import MOST_KEPT, Ledger, Limit
from sftdemo.ui.access.settings import AppConfig
from sftdemo.ui.blocks import Blocks
from sftdemo.ui.tabs import train
from sftdemo.verbs import jobs

OWNER = rights.Visitor("owner", "o", address="10.0.0.1")


def visitor(key: str = "ann", address: str = "198.41.0.4") -> rights.Visitor:
    return rights.Visitor("visitor", key, address=address)


@pytest.fixture(autouse=True)
def policy() -> Iterator[None]:
    rights.use(AppConfig(visitor_tokens=100, all_tokens=1_000, visitor_votes=2, visitor_waiting=2), "0.0.0.0")
    yield
    rights.use(AppConfig(), "127.0.0.1")


def test_the_ledger_refills_over_an_hour_and_forgets_only_what_is_longest_unused() -> None:
    now = [0.0]
    ledger, limit = Ledger(lambda: now[0]), Limit("ann", 60)
    waits = []

    def scarce(_: Limit, wait_s: float) -> UserError:
        waits.append(wait_s)
        return UserError("no")

    ledger.take("votes", [limit], 60, scarce)
    for seconds, amount in ((0, 1), (30, 1), (60, 2)):
        now[0] = float(seconds)
        with pytest.raises(UserError):
            ledger.take("votes", [limit], amount, scarce)
    assert waits == [60, 30, 60]
    ledger.take("votes", [limit], 1, scarce)
    for number in range(MOST_KEPT + 10):
        ledger.take("votes", [Limit(str(number), 5), limit], 0, scarce)
    assert len(ledger._levels) == MOST_KEPT and ("votes", "ann") in ledger._levels


def test_new_sessions_gain_no_more_than_an_address_and_all_together_no_more_than_all() -> None:
    booked = 0
    for number in range(20):
        try:
            allowance.spend(visitor(f"key{number}"), "tokens", 100)
        except UserError as error:
            assert "a visitor has 800 an hour" in str(error)
            break
        booked += 100
    assert booked == 800
    for number in range(2):
        allowance.spend(visitor(f"other{number}", "203.0.113.9"), "tokens", 100)
    with pytest.raises(UserError, match="all visitors together have 1000 an hour; try again in 6 min"):
        allowance.spend(visitor("third", "203.0.113.9"), "tokens", 100)
    allowance.spend(OWNER, "tokens", 10**9)


def test_what_an_answer_did_not_use_is_given_back() -> None:
    ann = visitor()
    for _ in range(5):
        with allowance.answering(ann, GenerateConfig(max_new_tokens=30), 2) as texts:
            texts += ["seven bytes", "ten bytes."]
    with (
        pytest.raises(UserError, match="a visitor has 100"),
        allowance.answering(ann, GenerateConfig(max_new_tokens=40), 2),
    ):
        pass
    with pytest.raises(UserError, match="are the most here; ask for less"):
        allowance.spend(ann, "tokens", 101)


def test_general_questions_are_rows_too() -> None:
    assert allowance.asked_rows(EvaluateConfig(), 20) == 20
    assert allowance.asked_rows(EvaluateConfig(general=True), 20) == 60


def test_nobody_fills_the_line() -> None:
    """Gradio's queue takes as much from one visitor as is the share of one; looking is neither counted nor refused."""

    def event(sender: rights.Visitor, needs: str = "chat") -> Any:
        """What needs a right, or looks in a queue of that name."""
        request = SimpleNamespace(scope={rights.IN_SCOPE: sender})
        handler = SimpleNamespace(needs=needs if needs in rights.ACTIONS else "look")
        return SimpleNamespace(request=request, fn=SimpleNamespace(fn=handler, concurrency_id=needs))

    class Queue:
        event_ids_to_events: dict[str, Any] = {}  # noqa: RUF012
        kinds = ("look", "chat", "comparison", "report")
        blocks = SimpleNamespace(fns={kind: event(OWNER, kind).fn for kind in kinds})

        async def push(self, body: Any, request: Any, username: str | None) -> tuple[bool, str, str]:
            sent = event(request.scope[rights.IN_SCOPE], body.fn_index)
            self.event_ids_to_events[str(len(self.event_ids_to_events))] = sent
            return True, "id", "success"

    queue = Queue()
    allowance.limit_waiting(queue)

    def join(sender: rights.Visitor, needs: str = "chat") -> bool:
        taken, _, _ = asyncio.run(queue.push(SimpleNamespace(fn_index=needs), event(sender).request, None))
        return taken

    ann, bob = visitor("ann"), visitor("bob", "203.0.113.9")
    assert [join(ann, "look"), join(ann), join(ann), join(ann)] == [True, True, True, False]
    assert join(bob) and all(join(OWNER) for _ in range(5))
    cat = visitor("cat", "203.0.113.77")
    assert [join(cat, "comparison"), join(cat, "report"), join(cat, "report")] == [True, True, False]
    assert join(ann, "look") and join(cat, "look") and not join(cat, "unknown")
    crowd = [join(visitor(f"key{number}")) for number in range(30)]
    assert crowd.count(True) == 14, "with Ann's two, eight times the share of one"


@pytest.mark.parametrize(
    "source",
    ["/etc/passwd", "support_tickets + /etc/passwd", "support_tickets*2 + me/set", "me/set:a:b", "~/x.csv", "..", "\0"],
)
def test_a_visitor_names_samples_and_uploads_alone(monkeypatch: Any, tmp_path: Path, source: str) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "up"))
    with pytest.raises(UserError, match="can't be chosen here"):
        sources.check(ReadConfig(data=source), visitor())
    with pytest.raises(UserError, match="can't be chosen here"):
        sources.check(TrainConfig(data="support_tickets", model=source), visitor())
    with pytest.raises(UserError, match="can't be chosen here"):
        sources.check(ReadConfig(data="support_tickets", edits=source), visitor())
    own, others = (uploads.folder_of(sender) for sender in (visitor(), visitor("bob", "203.0.113.9")))
    own.mkdir(parents=True)
    (own / "link.csv").symlink_to("/etc/hosts")
    for path in (own / "link.csv", others / "a.csv"):
        with pytest.raises(UserError, match="can't be chosen here"):
            sources.check(ReadConfig(data=str(path)), visitor())
    for allowed in ("support_tickets", "support_tickets*2 + house_style", str(own / "4f0c" / "a + b.csv")):
        sources.check(ReadConfig(data=allowed), visitor())


def test_the_owner_reads_allowed_folders_over_the_network_and_everything_at_home(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a.csv").write_text("text,label\na,b\n")
    (inside / "link.csv").symlink_to(outside / "a.csv")
    rights.use(AppConfig(password="x", allowed_folders=str(inside)), "0.0.0.0")
    for source in (str(inside / "a.csv"), "me/set"):
        sources.check(ReadConfig(data=source), OWNER)
    for source in (outside / "a.csv", inside / "link.csv", inside / ".." / "out" / "a.csv"):
        with pytest.raises(UserError, match="outside the folders"):
            sources.check(ReadConfig(data=str(source)), OWNER)
    rights.use(AppConfig(), "127.0.0.1")
    sources.check(ReadConfig(data=str(outside / "a.csv")), OWNER)


def test_events_of_very_many_parts_hold_nobody_up() -> None:
    assert payload.are_fit([(["text"] * 1000, False), ({"a": {"b": [None] * 1000}}, False)], OWNER)
    for many in ([[]] * 60_000, {str(number): 1 for number in range(30_000)}):
        assert payload.are_fit([(many, False)], OWNER)
        assert not payload.are_fit([(many, False), ({"picked": many}, False)], OWNER)
    with pytest.raises(UserError, match="doesn't fit this endpoint"):
        Blocks()._check_sent(SimpleNamespace(inputs=[]), [[[]] * 60_000] * 2, None, None)


def test_who_keeps_no_cookie_is_told_that_a_reload_loses_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    toasts: list[str] = []
    monkeypatch.setattr(train.gr, "Warning", lambda text, title: toasts.append(text))
    for sender in (OWNER, replace(visitor("ann"), browser=True)):
        train.warn_without_cookie(sender, "en")
    assert toasts == []
    train.warn_without_cookie(visitor("bob"), "en")
    assert len(toasts) == 1 and "reload" in toasts[0]


def test_a_visitors_training_is_booked_and_only_they_may_stop_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rights.use(AppConfig(visitors_train=True, visitor_steps=10, visitor_minutes=1), "0.0.0.0")
    ann, bob = visitor("ann"), visitor("bob")
    config = TrainConfig(data="support_tickets", batch_size=8, epochs=2)
    with pytest.raises(UserError, match="takes 20 training steps, and 10 an hour are the most"):
        trainings.start_training(config, ann, 80)
    with pytest.raises(UserError, match="takes 11 training steps, and 10 an hour are the most"):
        trainings.start_training(replace(config, max_minutes=1, max_steps=11), ann, 8)
    with pytest.raises(UserError, match="give max_steps beside max_minutes"):
        trainings.start_training(replace(config, max_minutes=1), ann, 8)
    made = []

    def begin(config: TrainConfig, expected_s: float | None, most_minutes: float, visitor: str) -> runs.Run:
        assert (most_minutes, visitor) == (1, ann.key), "its process knows, which may outlive the app"
        made.append(runs.create(None, "mine", {"settings": config.to_json()}))
        made[-1].write_status("running", step=1, total=9)
        return made[-1]

    monkeypatch.setattr(jobs, "start", begin)  # no process: what is booked and remembered is looked at
    run = trainings.start_training(config, ann, 32)
    (item,) = work.running()
    assert rights.may_stop(item.key, ann) and rights.may_stop(item.key, OWNER) and not rights.may_stop(item.key, bob)
    run.write_status("finished", step=9, total=9)
    with pytest.raises(UserError, match="takes 8 training steps, and a visitor has 10 an hour"):
        trainings.start_training(config, ann, 32)
    trainings._attend(run, ann, 4, 1.0)  # to its end, as its thread does
    assert trainings.is_own(run.name, ann) and trainings.is_own(run.name, OWNER) and not trainings.is_own(run.name, bob)
    starter.note(run, ann.key, 1.0)
    monkeypatch.setattr(rights, "_starters", {})  # the app was started again
    assert rights.may_stop(item.key, ann) and trainings.is_own(run.name, ann) and not rights.may_stop(item.key, bob)
    run.delete()
    runs.create(run.name, "", {"settings": {}}).write_status("running", step=1, total=9)
    assert not rights.may_stop(item.key, ann) and not trainings.is_own(run.name, ann), "a later run of that name"
