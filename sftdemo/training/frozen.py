"""Training with method frozen: the encoder stays as it is, and a logistic head on its features is fitted in one go."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

from sftdemo import files, runs
from sftdemo.errors import Text, UserError
from sftdemo.model import frozen_head, loading
from sftdemo.model.frozen_head import FrozenHead
from sftdemo.system import distributed, resources
from sftdemo.training import checkpoints, label_learner
from sftdemo.training.model_card import model_card

if TYPE_CHECKING:
    from sftdemo.schema.run import Summary
    from sftdemo.training.label_prepare import PreparedLabels
    from sftdemo.training.prepare import Prepared
    from sftdemo.training.progress import Progress
    from sftdemo.training.signals import Interruption

STEPS = 1  # the fit


def fit(prepared: Prepared, run: runs.Run, interruption: Interruption, reporter: Progress) -> Summary:
    """Fit, save; returns the `train` command's JSON and leaves it in the run's status.

    The side `base` of such a run is the share of each label in the training rows. Until the head is fitted an interruption
    ends it with nothing learned.
    """
    if distributed.count() > 1:
        raise UserError("Method frozen is for one process; start it without accelerate launch.")
    prepared, began = cast("PreparedLabels", prepared), time.monotonic()
    reporter.stage("loading", 0, loading.weights_bytes(prepared.base))
    values = label_learner.features(prepared)
    reporter.step("running", {"step": 0, "total": STEPS})
    head = label_learner.fit_head(prepared, values)
    count, size = head.weight.shape
    prior = FrozenHead.prior(prepared.targets("train"), count, size, prepared.several)
    reporter.info(Text("Trained: the head's {n:,} parameters; the encoder stays as it is.", n=head.parameters))
    interruption.phase = "saving"
    reporter.stage("saving")
    seconds, part = time.monotonic() - began, run.path / ".model.part"
    checkpoints.check_room(run)
    part.mkdir()
    head.save(part)
    prior.save(part, frozen_head.PRIOR)
    has_validation = bool(prepared.rows["validation"])
    scaled = has_validation and prepared.config.task == "classification"
    label_learner.save_facts(prepared, part, {"tuned": head.logits(values["validation"])} if scaled else {})
    checkpoints.replace_model(run, part)

    def loss(side: FrozenHead, split: str) -> float:
        return frozen_head.loss_of(side.logits(values[split]), prepared.targets(split), prepared.several)

    tokens = sum(len(row.ids) for row in prepared.rows["train"])
    summary: Summary = {
        "run": run.name,
        "status": "finished",
        "steps": STEPS,
        "train_loss": loss(head, "train"),
        "eval_loss": loss(head, "validation") if has_validation else None,
        "first_eval_loss": loss(prior, "validation") if has_validation else None,
        "tokens_per_s": round(tokens / seconds, 1),
        "seconds": round(seconds, 1),
        "model_source": prepared.model_source,
        "peak_memory": resources.used_peak(),
        "estimated_memory": prepared.memory.peak,
        "lora_targets": [],
        "trained_parameters": head.parameters,
        "resumed": [],
        "best_step": None,
        "early_stopped": False,
        "eval_score": None,
    }
    files.write_text(run.path / "README.md", model_card(run, summary))
    run.write_status(summary["status"], step=STEPS, total=STEPS, **summary)
    return summary
