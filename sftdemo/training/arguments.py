"""The Trainer's arguments from our settings: how long, at which rate, and when to log and to validate."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainingArguments

from sftdemo import runs
from sftdemo.system import compute, distributed
from sftdemo.training import checkpoints, trackers
from sftdemo.training.budget import EVALUATION_SHARE, EVALUATIONS
from sftdemo.training.prepare import planned_steps

if TYPE_CHECKING:
    from sftdemo.config.train import TrainConfig
    from sftdemo.training.prepare import Prepared

FORWARD_SHARE = 3  # a forward pass costs a third of a training step
MOST_STEPS = 10**9  # where the clock ends it
SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}  # transformers' names
# Of bitsandbytes' the embeddings' moments stay in 32 bits.
OPTIMIZERS = {"adafactor": "adafactor", "adamw_8bit": "adamw_8bit", "paged_adamw": "paged_adamw_32bit", "paged_adamw_8bit": "paged_adamw_8bit"}  # fmt: skip
MOST_LOGGED = 1000  # points of a curve


def has_experts(model: torch.nn.Module) -> bool:
    """Whether a step may leave weights out: several processes then have to look for those without a gradient."""
    return any("expert" in name for name, _ in model.named_modules())


def keeps_inputs(config: TrainConfig) -> bool:
    """Whether linear layers keep their inputs outside of autograd's saved tensors, as bitsandbytes' in 8 bits do.

    A checkpoint then frees them only if its first pass makes no graph at all.
    """
    return config.quantization == "int8"


def training_arguments(prepared: Prepared, run: runs.Run, autocast: bool, sparse: bool) -> TrainingArguments:
    """What the Trainer is told; `autocast` to bfloat16, `sparse` where a step may leave weights out."""
    config, rows, held_out = prepared.config, len(prepared.rows["train"]), len(prepared.rows["validation"])
    steps = planned_steps(rows, config.epochs, config.batch_size * distributed.count(), config.gradient_accumulation)
    by_clock = config.max_minutes is not None  # RunCallback says when to log and to validate, and when it is over
    if config.max_steps is not None or by_clock:
        steps = config.max_steps or MOST_STEPS
    seen = min(config.rows_seen(rows), MOST_STEPS)
    affordable = FORWARD_SHARE * EVALUATION_SHARE * seen / held_out if held_out and not by_clock else 0
    # The first and the last validation loss are always measured; these are the ones between.
    evaluations_between = min(EVALUATIONS, max(0, int(affordable) - 2))
    if config.keeps_best and held_out and not by_clock:
        evaluations_between = EVALUATIONS  # whatever they cost: what is best has to be known
    evaluate_every = max(1, steps // (evaluations_between + 1)) if evaluations_between else None
    if config.evaluate_every is not None and held_out:
        evaluate_every = config.evaluate_every
    os.environ["ACCELERATE_MIXED_PRECISION"] = "no"  # what the launcher says of it; --precision decides, below
    optimizer = {"optim": OPTIMIZERS[config.optimizer]} if config.optimizer in OPTIMIZERS else {}
    arguments = TrainingArguments(
        output_dir=str(checkpoints.part(run)),
        num_train_epochs=config.epochs,
        max_steps=-1 if config.max_steps is None and not by_clock else steps,
        learning_rate=config.peak_learning_rate,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        activation_checkpointing=config.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": keeps_inputs(config)},
        lr_scheduler_type=SCHEDULES[config.schedule],
        warmup_steps=round(config.warmup_ratio * steps) if config.warmup_steps is None else config.warmup_steps,
        weight_decay=config.weight_decay,
        adam_beta1=config.beta1,
        adam_beta2=config.beta2,
        max_grad_norm=config.max_grad_norm,
        bf16=autocast,
        logging_strategy="no" if by_clock else "steps",
        logging_steps=max(1, steps // MOST_LOGGED),
        eval_strategy="steps" if evaluate_every else "no",
        eval_steps=evaluate_every,
        save_strategy="no",  # RunCallback says when
        report_to=trackers.use(config, run),
        run_name=run.name,
        disable_tqdm=True,
        remove_unused_columns=False,
        ddp_find_unused_parameters=sparse,
        use_cpu=compute.device().type == "cpu",
        seed=config.seed,
        log_level="error",
        **optimizer,
    )
    if arguments.n_gpu > 1:
        # Started plainly on several GPUs it would split a packed batch over them; `accelerate launch` uses them all.
        arguments._n_gpu = 1
    return arguments


def own_optimizer(config: TrainConfig) -> tuple[type[torch.optim.Optimizer], dict[str, Any]] | None:
    """The optimizers that transformers doesn't make by name with what they need, as class and keywords."""
    rate = {"lr": config.peak_learning_rate}
    if config.optimizer == "adam":
        return torch.optim.Adam, {**rate, "betas": (config.beta1, config.beta2)}
    if config.optimizer == "sgd":
        return torch.optim.SGD, {**rate, "momentum": config.beta1}
    return None
