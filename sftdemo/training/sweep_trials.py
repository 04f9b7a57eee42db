"""The trials of a sweep, rung by rung, on the validation rows alone; and how the run takes over the best of them.

A trial is trained as any run is, in a folder of its own inside the run's, and goes on from its checkpoint where it comes to the
next rung. The best one's checkpoint becomes the run's, which then goes on as `train --resume` would.
"""

from __future__ import annotations

import gc
import math
import shutil
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sftdemo import files
from sftdemo.config.train import TrainConfig
from sftdemo.errors import Text, UserError
from sftdemo.log import Quiet, Reporter
from sftdemo.runs import Run, sweep_record
from sftdemo.runs.sweep_record import Measured, Rung, Trial
from sftdemo.schema.run import Summary
from sftdemo.stages import Stage
from sftdemo.system import malloc, resources
from sftdemo.training import checkpoints, halving
from sftdemo.training.model_card import model_card
from sftdemo.training.progress import Progress
from sftdemo.training.trainer import fit

if TYPE_CHECKING:
    from sftdemo.training.checkpoints import Saved
    from sftdemo.training.prepare import Prepared
    from sftdemo.training.signals import Interruption

CURVE_POINTS = 100
ROOM = 200_000_000  # bytes on the disk beside what the trials keep
FIRST_SHARE = 0.5  # of the minutes at most until the speed is known


def named(settings: Mapping[str, float]) -> Text:
    """A trial's settings in words."""
    if "lora_r" in settings:
        return Text(
            "learning rate {rate:g}, rank {rank}, epochs {epochs:g}",
            rate=settings["learning_rate"],
            rank=settings["lora_r"],
            epochs=settings["epochs"],
        )
    return Text("learning rate {rate:g}, epochs {epochs:g}", rate=settings["learning_rate"], epochs=settings["epochs"])


class _Stretch(Quiet):
    """Hears a stretch of a trial, `first` of whose steps are done: how long its steps take, and how many are done."""

    def __init__(self, other: Reporter, first: int, tell: Callable[[int], None]) -> None:
        super().__init__(other)
        self.first, self.tell = first, tell
        self.points: list[tuple[int, float]] = []  # steps and times
        self.began = time.monotonic()  # the first step, or what comes right before it

    def stage(self, name: Stage, done: int = 0, total: int = 0) -> None:
        if not self.points and name != "training":
            self.began = time.monotonic()

    def trained(self, row: Mapping[str, Any]) -> None:
        if "loss" in row:
            self.points.append((row["step"], time.monotonic()))
            self.tell(row["step"])

    @property
    def steps(self) -> int:
        """How many steps it took."""
        return self.points[-1][0] - self.first if self.points else 0

    @property
    def step_seconds(self) -> float | None:
        """Seconds a step, without the first, which holds what is set up once, if there are others; None before any."""
        if not self.points:
            return None
        before, began = self.points[0] if len(self.points) > 1 else (self.first, self.began)
        last, ended = self.points[-1]
        return (ended - began) / max(last - before, 1)


class _Pace:
    """Asked between steps, how many seconds the last one took; before there was one, none."""

    def __init__(self) -> None:
        self._asked: float | None = None

    def step_seconds(self) -> float:
        before, self._asked = self._asked, time.monotonic()
        return 0.0 if before is None else self._asked - before


class Search:
    """One process's part of a sweep: what is known of the trials, and the training of those that are left."""

    def __init__(self, run: Run, prepared: Prepared, interruption: Interruption, reporter: Progress) -> None:
        sweep = sweep_record.read(run)
        assert sweep
        self.run, self.prepared, self.interruption, self.reporter = run, prepared, interruption, reporter
        self.sweep, self.trials, self.spent_before = sweep, sweep["trials"], sweep["spent"]
        self._pace = _Pace()

    @property
    def left(self) -> float:
        """Seconds of the sweep's minutes."""
        return 60 * self.sweep["minutes"] - self.spent_before - (time.monotonic() - self.interruption.began)

    def is_over_after_a_step(self, step: int) -> bool:
        """Whether the best one's training has to be saved now, to be done within the minutes; said where it has."""
        is_over = step > 0 and self.left <= self.sweep["stretch_s"] + self._pace.step_seconds()
        if is_over:
            self.reporter.info(
                Text("The {minutes:g} min are over; the run can be resumed.", minutes=self.sweep["minutes"])
            )
        return is_over

    def settled(self, trial: Trial) -> Prepared:
        """What a trial is trained with."""
        config = TrainConfig.from_json({**self.prepared.config.to_json(), **trial["settings"]})
        return self.prepared.with_settings(config, Quiet(self.reporter))

    def choose(self) -> Trial:
        """Try the settings; returns the best trial, as far as it was trained. Raises UserError where the minutes are too few,
        KeyboardInterrupt where it is stopped; what was measured is kept then, and the next call goes on."""
        if not self.prepared.rows["validation"]:
            raise UserError(
                "A sweep chooses by the validation loss, and no validation row fits into max_length {max_length}; raise it.",
                max_length=self.prepared.config.max_length,
            )
        for trial in self.trials:
            trial["steps"] = trial["steps"] or self.settled(trial).steps
        try:
            if not self.sweep["rungs"]:
                self._plan()
            best = self._halve()
            self.sweep["chosen"], best["ended"] = best["number"], "chosen"
        finally:
            self._write()
        self.reporter.info(
            Text(
                "The best is trial {number}: {settings}. It is trained to its end.",
                number=best["number"],
                settings=named(best["settings"]),
            )
        )
        return best

    def _write(self) -> None:
        self.sweep["spent"] = 60 * self.sweep["minutes"] - self.left
        sweep_record.write(self.run, self.sweep)

    def _plan(self) -> None:
        """Train the first trial for a bit, and decide by its speed what fits into the minutes."""
        steps, first = [trial["steps"] for trial in self.trials], self.trials[0]
        share = halving.first_share(steps)
        self.reporter.stage("sweeping")
        if not first["measured"]:
            self._train(first, share, FIRST_SHARE * self.left)
        step_s, stretch_s = self.sweep["step_s"], self.sweep["stretch_s"]
        plan = halving.plan(steps, self.left, step_s, stretch_s)
        if plan is None or not first["measured"]:
            least = halving.expected(sorted(steps)[:2], share, step_s, stretch_s)
            raise UserError(
                "{minutes:g} min are too few: to try two of the combinations and train the better one to its end takes about "
                "{needed} min here. Give more minutes, fewer epochs, or fewer rows with max_examples.",
                minutes=self.sweep["minutes"],
                needed=math.ceil(halving.SAFETY * (least.search_s + least.last_s) / 60 + 0.5),
            )
        self._check_disk(plan.rungs[0])
        self.sweep |= {"rungs": plan.rungs, "search_s": plan.search_s, "last_s": plan.last_s}
        n = plan.rungs[0]["trials"]
        for trial in self.trials[n:]:
            trial["ended"] = "not_tried"
        self._write()
        self.reporter.info(
            Text(
                "{n} of {all} combinations are tried, at first for {share:.3g} % of their steps. That takes about {search:.1f} "
                "min, and the best one's training to its end about {last:.1f} min more; {minutes:g} min at most.",
                n=n,
                all=len(self.trials),
                share=100 * plan.rungs[0]["share"],
                search=plan.search_s / 60,
                last=plan.last_s / 60,
                minutes=self.sweep["minutes"],
            )
        )

    def _check_disk(self, rung: Rung) -> None:
        """Raise UserError where the trials of the first rung, which keeps the most, don't fit on the disk."""
        needed = sum(self.settled(trial).kept_bytes for trial in self.trials[: rung["trials"]])
        n = Text("The sweep, which keeps up to {n} trials at once,", n=rung["trials"])
        resources.check_disk(self.run.path, needed + ROOM, n)

    def _halve(self) -> Trial:
        """Train rung by rung, each begun with the best of the one before, as long as there is time."""
        alive = [trial for trial in self.trials if trial["ended"] != "not_tried"]
        before = 0.0
        for rung in self.sweep["rungs"]:
            share = rung["share"]
            alive = sorted(alive, key=lambda trial: _rank(trial, before))[: rung["trials"]]
            kept = 1 if share == 1 else math.ceil(len(alive) / 2)
            for trial in alive:
                if not _is_measured(trial, share) and not self._train_if_time(trial, share):
                    return self._end(timed_out=True)
                measured = [other for other in alive if _is_measured(other, share)]
                for beaten in sorted(measured, key=lambda trial: _rank(trial, share))[kept:]:
                    self._drop(beaten)
            before = share
        return self._end(timed_out=False)

    def _end(self, timed_out: bool) -> Trial:
        """The best trial; what became of the others that were still in."""
        best = self._best()
        if best is None or sweep_record.last_loss(best) is None:
            raise UserError("No combination has a finite validation loss; give lower learning rates.")
        furthest = self._furthest()
        for trial in self.trials:
            if trial is not best and trial["ended"] == "waiting":
                self._drop(trial, "beaten" if not timed_out or _is_measured(trial, furthest) else "no_time")
        return best

    def _best(self) -> Trial | None:
        """Of the trials still in that were trained furthest, or to their end, the one with the lowest loss."""
        furthest = self._furthest()
        level = [trial for trial in self.trials if trial["ended"] == "waiting" and _is_measured(trial, furthest)]
        return min(level, key=lambda trial: _rank(trial, furthest), default=None)

    def _furthest(self) -> float:
        """The share of the last rung that any trial came to; one that is still in has come there, too."""
        return max((trial["measured"][-1]["share"] for trial in self.trials if trial["measured"]), default=0.0)

    def _drop(self, trial: Trial, why: str = "beaten") -> None:
        if trial["ended"] == "waiting":
            trial["ended"] = "diverged" if trial["measured"] and sweep_record.last_loss(trial) is None else why  # type: ignore[typeddict-item]
            folder = sweep_record.folder(self.run, trial)
            for path in (folder.path / "checkpoints", folder.model_path):
                shutil.rmtree(path, ignore_errors=True)

    def _train_if_time(self, trial: Trial, share: float) -> bool:
        """Train a trial on to that share, if the best one can still be trained to its end after that."""
        best, steps = self._best(), share * trial["steps"]
        remaining = [trial["steps"] - steps]
        if best and not _is_whole(best):
            remaining.append(best["steps"] - _steps_done(best))
        step_s, stretch_s = self.sweep["step_s"], self.sweep["stretch_s"]
        reserve = halving.SAFETY * (stretch_s + max(remaining) * step_s) if max(remaining) > 0 else 0.0
        if stretch_s + (steps - _steps_done(trial)) * step_s > self.left - reserve:
            return False
        return self._train(trial, share, self.left - reserve)

    def _train(self, trial: Trial, share: float, seconds: float) -> bool:
        """Train a trial on to that share of its steps and measure it; whether that was done within so many seconds."""
        began, pause = time.monotonic(), math.ceil(share * trial["steps"])
        prepared, folder = self.settled(trial), sweep_record.folder(self.run, trial)
        saved = self._begin(folder, prepared)
        first = saved.step if saved else 0
        heard, pace = _Stretch(self.reporter, first, lambda step: self._tell(trial, step)), _Pace()

        def is_over(step: int) -> bool:
            has_time = time.monotonic() + pace.step_seconds() < began + seconds
            return self.run.stop_asked or (step > 0 and (step >= pause or not has_time))

        self.reporter.begin(self.run, {"step": 0, "total": 0, "phase": "preparing", "eta_s": round(max(self.left, 0))})
        self._tell(trial, first)
        try:
            if folder.state != "finished":  # all but written down
                fit(prepared, folder, self.interruption, Progress(heard), saved, is_over)
        finally:
            self.interruption.phase = "preparing"
            gc.collect()
            malloc.give_back()
        self._time(heard, time.monotonic() - began)
        trial["seconds"] += time.monotonic() - began
        is_done = self._measure(trial, folder, share, pause)
        self._write()
        asked = self.interruption.asked or self.interruption.out_of_time() or self.reporter.should_stop()
        if asked or self.run.stop_asked:
            raise KeyboardInterrupt
        return is_done

    def _begin(self, folder: Run, prepared: Prepared) -> Saved | None:
        """What a trial goes on from; its metrics are as they were then."""
        with self.run.unless_deleted():
            folder.path.parent.mkdir(exist_ok=True)
            folder.path.mkdir(exist_ok=True)
        files.write_json(folder.path / "config.json", {**self.run.config(), "settings": prepared.config.to_json()})
        folder.remove_unfinished()
        checkpoints.discard_part(folder)
        saved, _ = checkpoints.newest(folder)
        if saved:
            self.prepared.check_goes_on(self.run, saved.manifest, self.reporter)
        if folder.state != "finished":
            checkpoints.restore_metrics(folder, saved)
        return saved

    def _measure(self, trial: Trial, folder: Run, share: float, pause: int) -> bool:
        """Write down what a trial has come to; whether it has come to that step."""
        status = folder.status()
        step, loss, is_whole = status.get("steps", 0), status.get("eval_loss"), status["state"] == "finished"
        if (step < pause and not is_whole) or loss is None:
            return False
        shown = loss if math.isfinite(loss) else None
        row: Measured = {"share": share, "step": step, "eval_loss": shown}
        if is_whole:  # not trained on, and so compared at every later rung by what it came to
            row["whole"] = True
        trial["measured"].append(row)
        points = [[row["step"], row["loss"]] for row in folder.metrics() if math.isfinite(row.get("loss", math.nan))]
        stride = math.ceil(len(points) / CURVE_POINTS) or 1
        trial["curve"] = points[stride - 1 :: stride]
        self.reporter.info(
            Text(
                "Trial {number} ({settings}): validation loss {loss:.4f} after {step} of {steps} steps.",
                number=trial["number"],
                settings=named(trial["settings"]),
                loss=loss,
                step=step,
                steps=trial["steps"],
            )
        )
        return True

    def _time(self, heard: _Stretch, seconds: float) -> None:
        """Take a stretch's speed into what is expected of the next ones: half of what was known, half of this."""
        if (step_s := heard.step_seconds) is None:  # it was stopped before
            return
        for key, measured in (("step_s", step_s), ("stretch_s", max(seconds - heard.steps * step_s, 0.0))):
            known = self.sweep[key]  # type: ignore[literal-required]
            self.sweep[key] = (known + measured) / 2 if known else measured  # type: ignore[literal-required]

    def _tell(self, trial: Trial, step: int) -> None:
        """How far the trials are, in steps; of how many is known once there is a plan."""
        rungs = self.sweep["rungs"]
        if rungs:
            steps = [other["steps"] for other in self.trials[: rungs[0]["trials"]]]
            done = sum(_steps_done(other) for other in self.trials if other is not trial) + step
            self.reporter.stage("sweeping", done, round(halving.expected(steps, rungs[0]["share"], 1.0, 0.0).search_s))

    def take_over(self) -> tuple[Prepared, Saved | None, Summary | None]:
        """Make the chosen trial the run: its settings, checkpoint, curve and model. Returns what it goes on with; the summary
        where it is trained to its end. Done again after a kill it does what is left."""
        trial = next(trial for trial in self.trials if trial["number"] == self.sweep["chosen"])
        prepared, folder = self.settled(trial), sweep_record.folder(self.run, trial)
        note = {"sweep": {"trial": trial["number"], "of": len(self.trials), "file": sweep_record.NAME}}
        settings = {"settings": prepared.config.to_json()}
        files.write_json(self.run.path / "config.json", {**self.run.config(), **settings, **note})
        for name in ("checkpoints", "model"):
            if (folder.path / name).is_dir():
                shutil.rmtree(self.run.path / name, ignore_errors=True)
                (folder.path / name).rename(self.run.path / name)
        if folder.state != "finished":
            saved, _ = checkpoints.newest(self.run)
            checkpoints.restore_metrics(self.run, saved)
            return prepared, saved, None
        if not self.run.model_path.is_dir():
            raise UserError(
                "The model of trial {number}, the best of the sweep, is gone; sweep anew.", number=trial["number"]
            )
        files.write_text(self.run.path / "metrics.jsonl", (folder.path / "metrics.jsonl").read_text(encoding="utf-8"))
        status: Any = folder.status()
        summary: Any = {key: status[key] for key in Summary.__annotations__ if key in status} | {"run": self.run.name}
        files.write_text(self.run.path / "README.md", model_card(self.run, summary))
        self.run.write_status("finished", step=summary["steps"], total=status["total"], **summary)
        return prepared, None, summary


def _steps_done(trial: Trial) -> int:
    return trial["measured"][-1]["step"] if trial["measured"] else 0


def _is_whole(trial: Trial) -> bool:
    """Whether its training has ended by itself."""
    return bool(trial["measured"]) and trial["measured"][-1].get("whole", False)


def _at(trial: Trial, share: float) -> Measured | None:
    """The first measurement at that share or beyond, or the last one there will be."""
    return next((row for row in trial["measured"] if row["share"] >= share or row.get("whole")), None)


def _is_measured(trial: Trial, share: float) -> bool:
    return _at(trial, share) is not None


def _rank(trial: Trial, share: float) -> tuple[float, int]:
    """By the loss at that share, of equal ones the first trial; before the first rung by number alone."""
    row = _at(trial, share) if share else None
    loss = row["eval_loss"] if row else None
    return (math.inf if loss is None else loss) if row or share else 0.0, trial["number"]
