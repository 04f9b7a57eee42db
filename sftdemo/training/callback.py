"""What is written into a run's folder while it trains, when a checkpoint is due, and when it is time to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainerCallback

from sftdemo import runs
from sftdemo.config.train import TrainConfig
from sftdemo.schema.run import Checkpoint, MetricsRow
from sftdemo.system import resources
from sftdemo.training.budget import Budget
from sftdemo.training.early_stopping import BestStep
from sftdemo.training.progress import Progress
from sftdemo.training.signals import Interruption

STEPS_TO_TELL = 4  # before as many the time that is left can't be told: the first ones hold what is set up once
LOST_SECONDS, LOST_SHARE = 60.0, 0.02  # as much of the time, the longer of both, may be lost at most


@dataclass
class Tally:
    """What adds up over all stretches of a training, and is kept in its checkpoints. Times are in seconds."""

    row_tokens: int = 0
    training_seconds: float = 0.0  # before this stretch
    seconds: float = 0.0  # the same from loading on
    first_eval_loss: float | None = None
    peak_memory: int = 0
    resumed: list[int] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)  # this stretch, with loading

    @classmethod
    def of(cls, manifest: Checkpoint) -> Tally:
        return cls(
            manifest["row_tokens"],
            manifest["training_seconds"],
            manifest["seconds"],
            manifest["first_eval_loss"],
            manifest["peak_memory"],
            [*manifest["resumed"], manifest["step"]],
        )

    @property
    def elapsed(self) -> float:
        """Seconds of all stretches, with loading."""
        return self.seconds + time.perf_counter() - self.began

    @property
    def peak(self) -> int:
        """Bytes that a process took at most so far."""
        return max(self.peak_memory, resources.used_peak())


class RunCallback(TrainerCallback):  # type: ignore[misc]
    """Writes metrics and status into the run's folder, from the first process only, and passes on the word to stop."""

    def __init__(
        self,
        run: runs.Run,
        interruption: Interruption,
        progress: Progress,
        checkpoint: Checkpoint | None,
        config: TrainConfig,
    ) -> None:
        """`checkpoint` is what the training goes on from."""
        self.run, self.interruption, self.progress, self.checkpoint = run, interruption, progress, checkpoint
        self.config, self.every = config, config.checkpoint_every  # steps between two checkpoints at most
        kept = checkpoint.get("budget") if checkpoint else None
        self.budget = Budget.of(config.max_minutes, interruption.began, kept)
        self.tally = Tally.of(checkpoint) if checkpoint else Tally()
        self.trainer: Any = None
        self.is_over: Callable[[int], bool] = lambda step: False  # asked before each step, with the steps done
        self.began = 0.0
        self.ended = self.tally.training_seconds
        self.saved_at, self.saved_step = time.monotonic(), checkpoint["step"] if checkpoint else 0
        # Known from before, else the first step would count as none in the budget's schedule.
        self.step_seconds, self.save_seconds = (kept.get("step", 0.0), kept.get("saving", 0.0)) if kept else (0.0, 0.0)
        metrics = run.metrics() if checkpoint else []
        self.best = BestStep.of(config, metrics)
        measured = [(row["step"], row["eval_loss"], row.get("eval_score")) for row in metrics if "eval_loss" in row]
        self.evaluated = measured[-1] if measured else None  # the newest validation loss, with its step and score
        self.stopped = self.cut_off = self.early_stopped = False

    @property
    def training_seconds(self) -> float:
        return self.ended - self.began

    @property
    def tokens_per_s(self) -> float:
        """Tokens of the rows trained on, padding not, from the first step's start to the last step's end."""
        return self.tally.row_tokens / self.training_seconds if self.training_seconds > 0 else 0.0

    def words(self) -> tuple[bool, bool, bool]:
        """Whether this process was told to stop, has to be quick about it, and holds a checkpoint for due; all processes
        hear of each other's before the next step."""
        needed = 2 * self.step_seconds + self.save_seconds
        out_of_time = self.began > 0 and self.interruption.out_of_time(needed)  # a step at least, or it never ends
        late = time.monotonic() - self.saved_at >= max(LOST_SECONDS, LOST_SHARE * self.tally.elapsed)
        due = self.every > 0 and (late or self.run.save_asked)
        over = self.is_over(self.trainer.state.global_step)
        asked = over or self.interruption.asked or self.run.stop_asked or self.progress.should_stop()
        hurry = self.interruption.terminated or out_of_time  # read last: a SIGTERM that counts as asked is known here
        return hurry or asked, hurry, due

    def pace(self, state: Any) -> tuple[float, bool, bool, bool]:
        """With a budget, by this process's clock: the share of it that is over after the next step, whether to end before
        that, and whether a point of the curve and a validation are due after it."""
        budget = self.budget
        if budget is None or not state.is_world_process_zero:  # rank zero decides
            return 0.0, False, False, False
        trained = self.training_seconds if self.began else self.tally.training_seconds
        share = budget.share_after(trained, self.step_seconds, self.save_seconds)
        over = state.global_step > 0 and budget.room(self.save_seconds) <= self.step_seconds / 2
        share = max(share, budget.share, (state.global_step + 1) / state.max_steps)
        return (
            share,
            over,
            budget.log_due(share),
            self._validates_by_clock and budget.evaluation_due(share, self.best is not None),
        )

    @property
    def _validates_by_clock(self) -> bool:
        return self.trainer.eval_dataset is not None and self.config.evaluate_every is None

    def has_waited_enough(self, state: Any) -> bool:
        """Whether to stop early; all processes know the same losses."""
        if self.best and self.best.patience_over and state.global_step < state.max_steps:
            self.early_stopped = True
        return self.early_stopped

    def stop(self, state: Any, hurry: bool) -> None:
        self.stopped, self.cut_off = True, hurry
        if state.is_world_process_zero:
            self._write(state, {"step": state.global_step})

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The Trainer forgets in a checkpoint what it has summed up of the losses."""
        if self.checkpoint:
            trainer = self.trainer
            trainer._tr_loss = torch.tensor(self.checkpoint["pending_loss"], device=args.device)
            trainer._total_loss_scalar = self.checkpoint["loss_sum"]
            trainer._globalstep_last_logged = self.checkpoint["logged_step"]
            trainer._initial_global_step = 0
        self.saved_at = time.monotonic()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._step_began = time.perf_counter()
        self.began = self.began or self._step_began - self.tally.training_seconds

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        self.ended = time.perf_counter()
        self.step_seconds = self.ended - self._step_began
        by_step = self.every > 0 and state.global_step % self.every == 0
        # After the last step the model itself is saved.
        if self.budget:
            control.should_log = self.trainer.log_due
            control.should_evaluate = control.should_evaluate or self.trainer.evaluation_due
        control.should_save = self.trainer.save_due or (by_step and state.global_step < state.max_steps)
        return control

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **kwargs: Any
    ) -> None:
        """The best so far is kept as a checkpoint; the last step's model is at hand."""
        better = (
            self.best
            and metrics
            and self.best.measure(state.global_step, metrics["eval_loss"], metrics.get("eval_score"))
        )
        if better and state.global_step < state.max_steps:
            control.should_save = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        logs = logs or {}
        if "eval_loss" in logs:
            self.evaluated = (state.global_step, logs["eval_loss"], logs.get("eval_score"))
        if not state.is_world_process_zero or not {"loss", "eval_loss"} & logs.keys():
            return
        row = MetricsRow(step=state.global_step, epoch=round(state.epoch or 0.0, 4))
        for key in ("loss", "learning_rate", "grad_norm", "eval_loss", "eval_score"):
            if key in logs:
                row[key] = logs[key]
        if "loss" in logs:
            row["tokens_per_s"] = round(self.tokens_per_s, 1)
        self.run.append_metrics(row)
        self.progress.trained({**row, **self._course(state)})
        self._write(state, {**row})

    def total(self, state: Any) -> int:
        """Steps in all; with a budget about so many, by the time that one took so far."""
        return int(self._course(state)["total"])

    def _course(self, state: Any) -> dict[str, Any]:
        done, total = state.global_step, state.max_steps
        a_step = (time.perf_counter() - self.began) / done if done and self.began else None
        eta = a_step * (total - done) if a_step and done >= STEPS_TO_TELL else None
        if self.budget:
            room = self.budget.room(self.save_seconds)
            total = min(total, done + round(room / a_step) if a_step else 0)
            eta = min(eta, room) if eta is not None else room
        return {"total": total, "eta_s": round(eta) if eta is not None else None}

    def _write(self, state: Any, row: dict[str, Any]) -> None:
        resumed: dict[str, Any] = {"resumed": self.tally.resumed} if self.tally.resumed else {}
        values = {"phase": "training", **row, **self._course(state), **resumed}
        word, is_last = "stopping" if self.stopped else "running", state.global_step == state.max_steps
        self.progress.step(word, values, now=self.stopped or is_last)
