"""The settings of one training, each declared once."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from sftdemo.config import kinds
from sftdemo.config.distillation import DistillationConfig
from sftdemo.config.settings import setting
from sftdemo.config.start import StartConfig
from sftdemo.errors import Text

SGD_RATE = 200  # times Adam's: then a step clipped to norm 1, with momentum, is about as long as one of Adam's
LORA_ONLY = ("lora_targets", "rslora", "dora", "pissa", "lora_plus_ratio", "modules_to_save")
TRACKERS = {name: name for name in ("tensorboard", "trackio", "wandb", "mlflow")}  # the Trainer's name, and the package
ANSWER_METRICS = ("accuracy", "macro_f1", "exact_match", "chrf", "bleu", "rougeL", "field_f1", "entity_f1")
GPU_OPTIMIZERS = ("adamw_8bit", "paged_adamw", "paged_adamw_8bit")
SOURCES = ("data", "edits", "model")  # settings that name files and folders, which only the owner may read


@dataclass(frozen=True)
class TrainConfig(StartConfig, DistillationConfig):
    """One fine-tuning run."""

    name: str | None = setting(None, "The run's name; default: data, method and time.", group="Run")
    max_examples: int | None = setting(None, "Train on this many rows, drawn by the seed.", group="Data", low=1)
    max_length: int = setting(
        1024, "The longest row in tokens; on_long says what becomes of a longer one.", group="Data", low=16
    )
    on_long: str = setting(
        "drop",
        "A row over max_length: drop leaves it out, cut takes out the middle of its prompt, chunk splits a long text into "
        "rows with the same answer. An answer is never cut.",
        group="Data",
        choices=("drop", "cut", "chunk"),
    )
    chunk_overlap: int = setting(64, "Tokens that two neighbouring chunks share.", group="Data", rare=True, low=0)
    epochs: float = setting(1.0, "How many times each row is seen.", group="Length", low=0.001, high=100)
    max_minutes: float | None = setting(
        None,
        "Train for so many minutes, loading and saving included, in place of epochs; the learning rate falls with the time.",
        group="Length",
        low=0.1,
        high=100_000,
    )
    max_steps: int | None = setting(
        None,
        "Train for so many optimizer steps in place of epochs; with max_minutes, for whichever is over first.",
        group="Length",
        rare=True,
        low=1,
        high=10**9,
    )
    patience: int | None = setting(
        None,
        "Stop early once so many measurements in a row, of the validation loss or of best_by, are no better; keeps the best model.",
        group="Length",
        low=1,
    )
    keep_best: bool = setting(
        False,
        "Keep the model of the step with the lowest validation loss, or the best by best_by, in place of the last step's.",
        group="Length",
    )
    best_by: str = setting(
        "loss",
        "What keep_best and patience go by: the validation loss, or this metric of greedy answers to validation rows, of which some "
        "are kept to read.",
        group="Length",
        choices=("loss", *ANSWER_METRICS),
    )
    evaluate_every: int | None = setting(
        None,
        "Measure the validation loss every so many steps; default: up to eight times, for a tenth of the time at most.",
        group="Length",
        rare=True,
        low=1,
    )
    learning_rate: float | None = setting(
        None,
        "The peak learning rate; default: 5e-4 for lora, 5e-5 for full, and with sgd two hundred times as much.",
        group="Optimizer",
        low=1e-8,
        high=1,
    )
    schedule: str = setting(
        "linear",
        "How the learning rate falls after the warm-up: linear or cosine to 0 at the end; constant stays at its peak.",
        group="Optimizer",
        choices=("linear", "cosine", "constant"),
    )
    warmup_ratio: float = setting(
        0.05, "The share of steps over which the learning rate warms up.", group="Optimizer", low=0, high=1
    )
    warmup_steps: int | None = setting(
        None,
        "Steps over which the learning rate warms up, in place of warmup_ratio.",
        group="Optimizer",
        rare=True,
        low=0,
        high=10**9,
    )
    optimizer: str = setting(
        "adamw",
        "adamw suits most; sgd and adafactor take less memory; those in 8 bits or paged need a GPU.",
        group="Optimizer",
        choices=("adamw", "adam", "sgd", "adafactor", *GPU_OPTIMIZERS),
    )
    weight_decay: float = setting(
        0.0,
        "Pulls weights towards zero: apart from the gradient in AdamW and Adafactor, as a part of it in Adam and SGD.",
        group="Optimizer",
        low=0,
        high=1,
    )
    beta1: float = setting(
        0.9,
        "Decay of the mean gradient in Adam and AdamW; the momentum of sgd.",
        group="Optimizer",
        rare=True,
        low=0,
        high=0.9999,
    )
    beta2: float = setting(
        0.999,
        "Decay of the mean squared gradient in Adam and AdamW.",
        group="Optimizer",
        rare=True,
        low=0,
        high=0.999999,
    )
    max_grad_norm: float = setting(
        1.0,
        "Gradients are scaled down to this norm where theirs is larger; 0 never.",
        group="Optimizer",
        rare=True,
        low=0,
    )
    label_smoothing: float = setting(
        0.0,
        "Share of the target's probability spread over all tokens, in training; the validation loss is without it.",
        group="Optimizer",
        rare=True,
        low=0,
        high=0.9,
    )
    neftune_alpha: float = setting(
        0.0,
        "NEFTune: noise on the embeddings in training, 5 to 15 as published; 0 is none.",
        group="Optimizer",
        rare=True,
        low=0,
        high=1000,
    )
    lora_r: int = setting(16, "The rank of the LoRA matrices.", group="LoRA", low=1, high=256)
    lora_alpha: int = setting(
        32, "LoRA's scale: what the adapter adds is multiplied by lora_alpha / lora_r.", group="LoRA", low=1, high=1024
    )
    lora_dropout: float = setting(
        0.0, "Dropout on the inputs of the LoRA matrices, in training.", group="LoRA", low=0, high=0.9
    )
    lora_targets: str | None = setting(
        None,
        "Only these linear layers get LoRA, by the ends of their names: q_proj,v_proj; default: all.",
        group="LoRA",
    )
    rslora: bool = setting(
        False,
        "rsLoRA: multiply by lora_alpha / sqrt(lora_r), so that a high rank learns as fast as a low one.",
        group="LoRA",
        rare=True,
    )
    dora: bool = setting(
        False,
        "DoRA: LoRA turns the weights, and each output's size is learned apart; often better at low rank, much slower.",
        group="LoRA",
        rare=True,
    )
    pissa: bool = setting(
        False,
        "PiSSA: begin with the principal parts of the weights in place of noise and zeros; saved as LoRA of twice the rank.",
        group="LoRA",
        rare=True,
    )
    lora_plus_ratio: float = setting(
        1.0,
        "LoRA+: the learning rate of the second matrix over that of the first; 16 as published, 1 is plain LoRA.",
        group="LoRA",
        rare=True,
        low=1,
        high=1000,
    )
    batch_size: int = setting(8, "Rows in one forward pass.", group="Memory", low=1, high=1024)
    gradient_accumulation: int = setting(
        1, "Batches whose gradients are accumulated before one optimizer step.", group="Memory", low=1, high=1024
    )
    gradient_checkpointing: bool = setting(
        False,
        "Recompute activations in the backward pass instead of storing them: a third slower, much less memory.",
        group="Memory",
    )
    quantization: str = setting(
        "none",
        "Keep the frozen weights in 8 bits (int8) or 4 bits (nf4) to save memory; lora only.",
        group="Memory",
        choices=("none", "int8", "nf4"),
    )
    precision: str = setting(
        "auto",
        "The compute dtype; auto takes bfloat16 where the processor is faster in it.",
        group="Memory",
        rare=True,
        choices=("auto", "float32", "bfloat16"),
    )
    packing: bool = setting(
        True,
        "Rows of a batch stand end to end without padding; off pads them: the same loss, slower.",
        group="Memory",
        rare=True,
    )
    memory_limit: float | None = setting(
        None,
        "The most memory the training may take, in GiB; default: what is free.",
        group="Memory",
        rare=True,
        low=0.1,
    )
    checkpoint_every: int = setting(
        100,
        "Save a checkpoint every so many steps, and after a minute or 2 % of the time at the latest; 0 saves none.",
        group="Run",
        rare=True,
        low=0,
    )
    report_to: str | None = setting(
        None,
        f"Where the curves go beside the run's folder, as a list of: {', '.join(TRACKERS)}; each needs its own package.",
        group="Run",
        rare=True,
    )
    resume: str | None = setting(
        None,
        "Go on with this run, which was interrupted or stopped, from its last checkpoint; its own settings stay.",
        group="Run",
    )

    @property
    def trackers(self) -> tuple[str, ...]:
        """The names in `report_to`."""
        return tuple(dict.fromkeys(name.strip() for name in (self.report_to or "").split(",") if name.strip()))

    def problems(self) -> list[Text]:
        problems = super().problems()
        if not self.are_typed():
            return problems
        if unknown := [name for name in self.trackers if name not in TRACKERS]:
            problems.append(
                Text(
                    "report_to has {name!r}, which is no tracker; there are: {names}.",
                    name=unknown[0],
                    names=list(TRACKERS),
                )
            )
        if self.dora and self.quantization == "int8":  # PEFT can't read such weights back once they were used
            problems.append(Text("dora can't learn beside int8 weights; use quantization nf4 or none."))
        if self.pissa and self.dora:
            problems.append(Text("pissa changes the weights whose sizes dora learns; choose one of them."))
        if self.pissa and self.quantization != "none":
            problems.append(
                Text(
                    "pissa takes the weights apart, and {kind} weights can't be; use quantization none.",
                    kind=self.quantization,
                )
            )
        if self.method == "full" and self.quantization != "none":
            problems.append(
                Text(
                    "method full can't train {kind} weights; use method lora, or quantization none.",
                    kind=self.quantization,
                )
            )
        defaults = {spec.name: spec.default for spec in dataclasses.fields(self)}
        if self.method == "full":
            problems += [
                Text("{name} is for method lora; leave it out, or choose lora.", name=Text(name))
                for name in LORA_ONLY
                if getattr(self, name) != defaults[name]
            ]
        unused = {"sgd": ("beta2",), "adafactor": ("beta1", "beta2")}.get(self.optimizer, ())
        problems += [
            Text(
                "optimizer {optimizer} has no {name}; leave it at {default}.",
                optimizer=self.optimizer,
                name=Text(name),
                default=defaults[name],
            )
            for name in unused
            if getattr(self, name) != defaults[name]
        ]
        if self.keeps_best and self.checkpoint_every == 0:
            name = "keep_best" if self.keep_best else "patience"
            problems.append(
                Text(
                    "{name} keeps the best model in a checkpoint, and checkpoint_every is 0; set it to 1 or more.",
                    name=Text(name),
                )
            )
        changed = [name for name, default in defaults.items() if getattr(self, name) != default]
        problems += kinds.problems(self.task, {name: defaults[name] for name in changed})
        if self.method == "frozen":
            groups = {spec.name: spec.metadata["group"] for spec in dataclasses.fields(self)}
            problems += kinds.problems_of_frozen(self.task, {name: defaults[name] for name in changed}, groups)
        if self.resume is not None and changed != ["resume"]:
            changed.remove("resume")
            problems.append(
                Text("resume goes on with a run's own settings; leave out {names}.", names=changed),
            )
        if self.on_long == "chunk" and 2 * self.chunk_overlap > self.max_length:
            problems.append(
                Text(
                    "chunk_overlap is {n}; half of max_length ({limit}) is the most.",
                    n=self.chunk_overlap,
                    limit=self.max_length,
                )
            )
        return problems

    def rows_seen(self, rows: int) -> float:
        """How many rows one process trains on in all, of so many; infinite where the clock alone decides."""
        if self.max_steps is not None:
            return self.max_steps * self.batch_size * self.gradient_accumulation
        return math.inf if self.max_minutes is not None else rows * self.epochs

    @property
    def keeps_best(self) -> bool:
        """Whether the model of the lowest validation loss is kept; stopping early without that would keep a worse one."""
        return self.keep_best or self.patience is not None

    @property
    def peak_learning_rate(self) -> float:
        if self.learning_rate is not None:
            return self.learning_rate
        return (5e-4 if self.method == "lora" else 5e-5) * (SGD_RATE if self.optimizer == "sgd" else 1)
