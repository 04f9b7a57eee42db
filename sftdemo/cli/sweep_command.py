"""`sweep`: settings are tried within some minutes, and the best trained to its end."""

from __future__ import annotations

import argparse

from sftdemo.cli.commands import Result, of_training
from sftdemo.cli.flags import flags_given, from_flags
from sftdemo.cli.progress_bar import Bar
from sftdemo.config import settings_file
from sftdemo.config.sweep import SweepConfig
from sftdemo.config.train import TrainConfig
from sftdemo.runs.sweep_record import Sweep, last_loss

# Those of `train` that `sweep` decides itself, or has by another flag.
LEFT_OUT = ("data", "learning_rate", "epochs", "lora_r", "max_minutes", "max_steps", "resume")
ENDED = {
    "waiting": "stopped",
    "beaten": "beaten",
    "diverged": "diverged",
    "no_time": "no time left",
    "not_tried": "not tried: too few minutes",
    "chosen": "the best",
}


def sweep(options: argparse.Namespace) -> Result:
    from sftdemo.verbs.sweep import sweep

    flags = {name: value for name, value in flags_given(options, TrainConfig).items() if name not in LEFT_OUT[1:]}
    from_file = settings_file.read(options.config, TrainConfig) if options.config else {}
    config = TrainConfig.from_json({**from_file, **flags})
    value = sweep(config, from_flags(options, SweepConfig), Bar(), wait=not options.no_wait)
    trained = of_training(value)
    return Result(value, f"{table(value['sweep'])}\n{trained.text}", trained.exit_code)


def table(sweep: Sweep) -> str:
    """A line a trial, the best first."""
    from sftdemo.verbs.sweep import ordered

    lines = [
        f"{'trial':>5} {'learning rate':>14} {'rank':>5} {'epochs':>7} {'steps':>12} {'loss':>8} {'seconds':>8}  why it ended"
    ]
    for trial in ordered(sweep["trials"]):
        settings, loss = trial["settings"], last_loss(trial)
        done = f"{trial['measured'][-1]['step'] if trial['measured'] else 0} of {trial['steps']}"
        lines.append(
            f"{trial['number']:>5} {settings['learning_rate']:>14.3g} {settings.get('lora_r', '–'):>5} {settings['epochs']:>7g} "
            f"{done:>12} {'–' if loss is None else f'{loss:.4f}':>8} {trial['seconds']:>8.1f}  "
            f"{ENDED[trial['ended']]}"
        )
    minutes = f"{sweep['spent'] / 60:.1f} of {sweep['minutes']:g} min went by until the best was known."
    return "\n".join([*lines, f"Losses are of validation rows, at the last rung of each trial. {minutes}"])
