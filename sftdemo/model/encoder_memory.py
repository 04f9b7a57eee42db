"""What training an encoder takes in memory, before a weight is loaded; torch isn't needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sftdemo.errors import Text, UserError
from sftdemo.model.memory_estimate import GIB, IMPORTS, Estimate, FitReport, Model, gib
from sftdemo.system import resources

if TYPE_CHECKING:
    from sftdemo.config.train import TrainConfig

NUMBER = 4  # bytes; weights are kept in float32
KEPT_BY_LAYER = 10  # vectors of the model's width that a layer keeps of each token, beside two of the feed-forward's
FROZEN_BATCH = 32  # windows whose features are taken at once


def judge(model: Model, config: TrainConfig, longest: int, own: int = 0) -> FitReport:
    """Whether a training on windows of `longest` tokens fits; `own` is what its process holds already."""
    token = KEPT_BY_LAYER * model.hidden + 2 * model.wide + model.heads * longest
    rows, kept = (FROZEN_BATCH, 1) if config.method == "frozen" else (config.batch_size, model.layers)
    activations = NUMBER * rows * longest * token * kept
    learned = model.parameters if config.method == "full" else model.trained(config) if config.method == "lora" else 0
    optimizer = 3 * NUMBER * learned + (NUMBER * learned if config.method == "lora" else 0)
    base, weights = max(IMPORTS, own), NUMBER * model.parameters
    estimate = Estimate(base, weights, optimizer, activations, 0, base + weights + optimizer + activations)
    limit = config.memory_limit
    return FitReport(estimate, limit * GIB if limit is not None else resources.free() + own, limit is not None, [])


def check_training(folder: Path, config: TrainConfig, longest: int) -> tuple[Estimate, str]:
    """The estimate for batches of windows of `longest` tokens, and a sentence on it; UserError where it doesn't fit."""
    report = judge(Model.read(folder), config, longest, resources.resident())
    peak, room = gib(report.estimate.peak), gib(report.room)
    if not report.fits:
        raise UserError(
            "The training needs about {peak} at the peak, and there are {room}; choose a smaller batch_size or max_length, or a "
            "smaller model.",
            peak=peak,
            room=room,
        )
    return report.estimate, Text("Memory: about {peak} at the peak, {room} free.", peak=peak, room=room)
