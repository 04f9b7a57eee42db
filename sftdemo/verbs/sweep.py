"""Settings found by trying them: a run that tries a sweep's combinations first, then trains with the best."""

from __future__ import annotations

import math
from typing import Any

from sftdemo import runs
from sftdemo.config.sweep import TRIED, SweepConfig
from sftdemo.config.train import TrainConfig
from sftdemo.errors import UsageError, UserError
from sftdemo.log import TO_LOG, Reporter
from sftdemo.runs import Run, sweep_record
from sftdemo.runs.sweep_record import Sweep, Trial
from sftdemo.training import turns


def sweep(
    config: TrainConfig, sweep: SweepConfig | None = None, reporter: Reporter = TO_LOG, wait: bool = True
) -> dict[str, Any]:
    """Try learning rates, ranks and epochs by successive halving, on the validation rows alone, and train the best to its end.

    `config` has all other settings; the test rows are only kept for `evaluate`. Returns what `train` returns, and under
    `sweep` each trial with its settings, losses and why it ended (docs/run-folder.md). It waits for its turn as a training
    does, is stopped as one, and `train` with `resume` goes on with what was measured. How many combinations fit into the
    minutes depends on the machine's speed; what each comes to does not. Raises UserError for what the user can mend.
    """
    from sftdemo.training.train import train

    run = new(config, sweep or SweepConfig())
    try:
        summary = train(config, run, reporter, wait=wait)
    except UserError:
        _forget_unplanned(run)
        raise
    return {**summary, "sweep": sweep_record.read(run)}


def new(config: TrainConfig, sweep: SweepConfig) -> Run:
    """The folder of a run that tries settings before its training; raises UserError for one that can't be."""
    if not config.data:
        raise UsageError("data is empty; give a file, a folder, the name of a sample set, or a Hub id.")
    trials = [_trial(number, trial) for number, trial in enumerate(sweep.trials(config), 1)]
    run = turns.new_run(config)
    empty: Sweep = {
        "minutes": sweep.minutes,
        "spent": 0.0,
        "search_s": 0.0,
        "last_s": 0.0,
        "step_s": 0.0,
        "stretch_s": 0.0,
        "rungs": [],
        "trials": trials,
        "chosen": None,
    }
    sweep_record.write(run, empty)
    return run


def _trial(number: int, config: TrainConfig) -> Trial:
    names = TRIED if config.method == "lora" else ("learning_rate", "epochs")
    return {
        "number": number,
        "settings": {name: getattr(config, name) for name in names},
        "steps": 0,
        "measured": [],
        "curve": [],
        "seconds": 0.0,
        "ended": "waiting",
    }


def _forget_unplanned(run: Run) -> None:
    """Delete a run whose data were at fault, or whose minutes too few: nothing was found out that is worth its name."""
    record = sweep_record.read(run) if run.path.exists() else None
    if record and not record["rungs"] and run.state not in runs.ACTIVE:
        run.delete()


def ordered(trials: list[Trial]) -> list[Trial]:
    """The trials from the best to those that were never tried."""
    return sorted(trials, key=_order)


def _order(trial: Trial) -> tuple[bool, float, float, int]:
    loss = sweep_record.last_loss(trial)
    share = trial["measured"][-1]["share"] if trial["measured"] else 0.0
    return trial["ended"] != "chosen", -share, math.inf if loss is None else loss, trial["number"]
