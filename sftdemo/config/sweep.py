"""What a sweep tries and for how long; and the combinations, each as the settings of a training."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass, replace

from sftdemo.config.settings import Settings, setting
from sftdemo.config.train import TrainConfig
from sftdemo.errors import Text, UsageError

RATES = (0.3, 1.0, 3.0)  # times the usual learning rate
RANKS = (8, 16, 32)
EPOCHS = (1.0, 2.0)
MOST = 500  # combinations
TRIED = ("learning_rate", "lora_r", "lora_alpha", "epochs")  # the settings in which trials differ


@dataclass(frozen=True)
class SweepConfig(Settings):
    """A sweep: each combination of these values is tried on the validation rows, and the best is trained to its end."""

    minutes: float = setting(
        10.0,
        "For so many minutes at most, the best one's training to its end included.",
        group="Sweep",
        low=0.1,
        high=100_000,
    )
    learning_rate: str | None = setting(
        None,
        "Learning rates to try, as a list: 1e-4,3e-4,1e-3; default: the usual one, 0.3 times and 3 times as much.",
        group="Sweep",
    )
    rank: str | None = setting(
        None,
        "Ranks of the LoRA matrices to try, as a list; lora_alpha moves along, so that the scale stays; default: 8,16,32 and lora_r.",
        group="Sweep",
    )
    epochs: str | None = setting(
        None, "Epochs to try, as a list; default: 1,2 and those of the training.", group="Sweep"
    )

    def trials(self, base: TrainConfig) -> list[TrainConfig]:
        """Every combination as settings, in the order in which they are tried: the usual one first, then as the seed draws.

        Raises UsageError for a list that is none, a value out of bounds, or settings that a sweep can't keep.
        """
        self.check()
        base.check()
        set_already = [name for name in ("max_minutes", "max_steps", "resume") if getattr(base, name) is not None]
        if set_already:
            raise UsageError("A sweep has minutes of its own and tries epochs; leave out {names}.", names=set_already)
        if base.report_to:
            raise UsageError("A sweep's trials go to no tracker; leave out report_to.")
        if base.best_by != "loss":
            raise UsageError("A sweep goes by the validation loss; leave out best_by.")
        if base.teacher:
            raise UsageError("A sweep has no teacher; leave it out, or train the student alone.")
        if base.from_run:
            raise UsageError("A sweep tries ranks from the base on; train with from_run alone, or leave it out.")
        if base.checkpoint_every == 0:
            raise UsageError("A sweep goes on from checkpoints, and checkpoint_every is 0; set it to 1 or more.")
        if base.method == "frozen":
            raise UsageError("A sweep tries learning rates, and method frozen has none; train with it.")
        usual = base.peak_learning_rate
        rates = _numbers("learning_rate", self.learning_rate) or [float(f"{usual * factor:.3g}") for factor in RATES]
        epochs = _numbers("epochs", self.epochs) or sorted({*EPOCHS, base.epochs})
        ranks: list[float] = [base.lora_r]
        if base.method == "lora":
            ranks = _numbers("rank", self.rank) or sorted({*RANKS, base.lora_r})
        elif self.rank:
            raise UsageError("{name} is for method lora; leave it out, or choose lora.", name=Text("rank"))
        _check_count(len(rates) * len(ranks) * len(epochs))
        trials = [_trial(base, *values) for values in itertools.product(rates, ranks, epochs)]
        random.Random(base.seed).shuffle(trials)
        own = (usual, base.lora_r, base.epochs)
        return sorted(trials, key=lambda trial: (trial.peak_learning_rate, trial.lora_r, trial.epochs) != own)


def _check_count(n: int) -> None:
    if n > MOST:
        raise UsageError("{n} combinations are too many; the most is {most}.", n=n, most=MOST)
    if n < 2:
        raise UsageError(
            "There is one combination, and nothing to choose; give two values or more of learning_rate, rank or epochs, "
            "or train with it."
        )


def _trial(base: TrainConfig, rate: float, rank: float, epochs: float) -> TrainConfig:
    trial = replace(base, learning_rate=rate, epochs=epochs)
    if base.method == "lora":
        alpha = max(1, round(base.lora_alpha * rank / base.lora_r)) if math.isfinite(rank) else base.lora_alpha
        trial = replace(trial, lora_r=rank, lora_alpha=alpha)  # type: ignore[arg-type]
    return trial.check()


def _numbers(name: str, text: str | None) -> list[float]:
    """The numbers in a list, each once, in their order; raises UsageError for what is none."""
    try:
        return list(dict.fromkeys(float(part) for part in (text or "").split(",") if part.strip()))
    except ValueError:
        raise UsageError(
            "{name} is {value!r}; give numbers as a list, such as {example}.",
            name=Text(name),
            value=text,
            example={"rank": "8,16", "epochs": "1,2"}.get(name, "1e-4,3e-4"),
        ) from None
