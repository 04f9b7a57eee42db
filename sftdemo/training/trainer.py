"""`transformers.Trainer` under our batches, loss and watch: from prepared rows to a saved model."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from sftdemo import files, runs
from sftdemo.encoding import encode
from sftdemo.encoding.packing import Collator, ShardedBatchSampler, batches
from sftdemo.errors import UserError
from sftdemo.model import download, loading
from sftdemo.schema import MetricsRow, Summary
from sftdemo.system import compute, distributed, malloc, resources
from sftdemo.training import fused_layers, loss, packed_attention
from sftdemo.training.model_card import model_card

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sftdemo.config import TrainConfig
    from sftdemo.training.prepare import Prepared
    from sftdemo.training.signals import Interruption

Progress = Callable[[dict[str, Any]], None]
STATUS_SECONDS = 0.5  # how often status.json is written at most
EVALUATION_SHARE = 0.1  # of the training's cost, at most, goes into validation loss on the way
FORWARD_SHARE = 3  # a forward pass costs a third of a training step
MOST_LOGGED = 1000  # points of a curve
WARMED = 0.85  # of what a step's activations will take; the rest of the heap's slack comes with time


class SftTrainer(Trainer):  # type: ignore[misc]
    """The Trainer over our batches. Its loss is the weighted mean over all learned tokens of an optimizer step, however
    the step is cut into batches and processes; the validation loss is the mean over all tokens of all batches."""

    loss_is_scaled_for_ga = True
    row_tokens = 0
    control: Any
    watch: RunCallback

    def get_train_dataloader(self) -> DataLoader[Any]:
        return self._batches(self.train_dataset, self.args.per_device_train_batch_size, self.args.seed)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        return self._batches(eval_dataset or self.eval_dataset, self.args.per_device_eval_batch_size, None)

    def _batches(self, rows: Any, size: int, seed: int | None) -> DataLoader[Any]:
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        return batches(rows, self.data_collator, ShardedBatchSampler(len(rows), size, seed, process, processes))

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], float | None]:
        """A step's batches and the weight of their learned tokens over all processes; nothing once anyone asked to stop."""
        step_batches = list(itertools.islice(epoch_iterator, num_batches))
        tokens = sum(batch.pop("row_tokens") for batch in step_batches)
        weight = sum(_weight(batch).item() for batch in step_batches)
        weight, tokens, stop_asked = self._over_all(weight, tokens, self.watch.stop_asked)
        if stop_asked:
            self.control.should_training_stop = True
            self.watch.stop(self.state)
            return [], None
        self.row_tokens += round(tokens)
        return step_batches, weight or 1.0

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: float | None = None
    ) -> Tensor:
        # Gradients are averaged over the processes, and a sum is wanted.
        return model(**inputs) * (self.accelerator.num_processes / num_items_in_batch)  # type: ignore[no-any-return]

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        model = self.model.eval()
        total = weight = 0.0
        with torch.no_grad():
            for inputs in self.get_eval_dataloader():
                inputs.pop("row_tokens")
                weight += _weight(inputs).item()
                with self.accelerator.autocast():
                    total += model(**self._prepare_inputs(inputs)).item()
        total, weight = self._over_all(total, weight)
        metrics = {"eval_loss": total / (weight or 1.0)}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _over_all(self, *values: float) -> list[float]:
        """The values summed over all processes."""
        if self.accelerator.num_processes == 1:
            return list(values)
        return self.accelerator.reduce(torch.tensor(values, device=self.args.device), "sum").tolist()  # type: ignore[no-any-return]


def _weight(batch: dict[str, Any]) -> Tensor:
    weights: Tensor | None = batch.get("weights")
    return weights.sum() if weights is not None else torch.tensor(batch["labels"].numel())


class RunCallback(TrainerCallback):  # type: ignore[misc]
    """Writes metrics and status into the run's folder, from the first process only, and passes on the word to stop."""

    def __init__(self, run: runs.Run, interruption: Interruption, progress: Progress | None) -> None:
        self.run, self.interruption, self.progress = run, interruption, progress
        self.trainer: SftTrainer | None = None
        self.began = self.ended = self._written = 0.0
        self.stopped = False

    @property
    def tokens_per_s(self) -> float:
        """Tokens of the rows trained on, padding not, from the first step's start to the last step's end."""
        seconds = self.ended - self.began
        return self.trainer.row_tokens / seconds if self.trainer and seconds > 0 else 0.0

    @property
    def stop_asked(self) -> bool:
        """Whether this process was told to stop; all do so together, before the next step."""
        return self.interruption.asked or self.run.stop_asked

    def stop(self, state: Any) -> None:
        self.stopped = True
        if state.is_world_process_zero:
            self._write(state, {"step": state.global_step})

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.began = self.began or time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ended = time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        logs = logs or {}
        if not state.is_world_process_zero or not {"loss", "eval_loss"} & logs.keys():
            return
        row = MetricsRow(step=state.global_step, epoch=round(state.epoch or 0.0, 4))
        for key in ("loss", "learning_rate", "grad_norm", "eval_loss"):
            if key in logs:
                row[key] = logs[key]
        if "loss" in logs:
            row["tokens_per_s"] = round(self.tokens_per_s, 1)
        self.run.append_metrics(row)
        if self.progress:
            self.progress({**row, **self._course(state)})
        self._write(state, {**row})

    def _course(self, state: Any) -> dict[str, Any]:
        done, total = state.global_step, state.max_steps
        eta = (time.perf_counter() - self.began) / done * (total - done) if done else None
        return {"total": total, "eta_s": round(eta) if eta is not None else None}

    def _write(self, state: Any, row: dict[str, Any]) -> None:
        if time.monotonic() - self._written > STATUS_SECONDS or state.global_step == state.max_steps or self.stopped:
            self._written = time.monotonic()
            run_state = "stopping" if self.stopped else "running"
            self.run.write_status(run_state, phase="training", **row, **self._course(state))


def fit(
    prepared: Prepared, run: runs.Run, interruption: Interruption, progress: Progress | None, report: download.Report
) -> Summary:
    """Load, train, save; returns the `train` command's JSON and leaves it in the run's status."""
    began = time.perf_counter()
    report("Loading the model …")
    callback = RunCallback(run, interruption, progress)
    trainer, generation_config = _trainer(prepared, run, callback, report)
    has_validation = trainer.eval_dataset is not None
    first_eval_loss = trainer.evaluate()["eval_loss"] if has_validation else None
    interruption.polled = True
    result = trainer.train()
    if not trainer.state.global_step:
        raise KeyboardInterrupt  # stopped before the first step
    last_eval_loss = trainer.evaluate()["eval_loss"] if has_validation else None
    report("Saving …")
    summary: Summary = {
        "run": run.name,
        "status": "stopped" if callback.stopped else "finished",
        "steps": trainer.state.global_step,
        "train_loss": result.training_loss,
        "eval_loss": last_eval_loss,
        "first_eval_loss": first_eval_loss,
        "tokens_per_s": round(callback.tokens_per_s, 1),
        "seconds": round(time.perf_counter() - began, 1),
        "model_source": prepared.model_source,
        "peak_memory": resources.used_peak(),
        "estimated_memory": prepared.memory.peak,
        "lora_targets": _targets(trainer.model),
    }
    _save(trainer, prepared, run, generation_config)
    if trainer.is_world_process_zero():
        files.write_text(run.path / "README.md", model_card(run, summary))
        run.write_status(summary["status"], step=trainer.state.global_step, total=trainer.state.max_steps, **summary)
    return summary


def _trainer(
    prepared: Prepared, run: runs.Run, callback: RunCallback, report: download.Report
) -> tuple[SftTrainer, Any]:
    """The Trainer, ready to go, and the base's generation config."""
    config, full = prepared.config, prepared.config.method == "full"
    torch.manual_seed(config.seed)
    # Full tuning keeps float32 master weights: small updates of bfloat16 weights get lost in rounding.
    model = loading.load_base(prepared.base, torch.float32 if full else prepared.dtype, config.quantization)
    if model.device.type == "cpu":  # now that what loading took is free again
        malloc.warm_heap(round(WARMED * prepared.memory.activations))
    trained, packed = trainable(model, config)
    if not packed:
        report("This model keeps its own attention; rows are padded instead of packed.")
    if config.gradient_checkpointing and _keeps_inputs(config):
        trained.enable_input_require_grads()  # else no gradient comes back through a reentrant checkpoint
    trainer = SftTrainer(
        model=trained,
        args=_arguments(prepared, run, autocast=full and prepared.dtype == torch.bfloat16, sparse=_has_experts(model)),
        train_dataset=prepared.rows["train"],
        eval_dataset=prepared.rows["validation"] or None,
        data_collator=Collator(packed),
        callbacks=[callback],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.watch, callback.trainer = callback, trainer
    return trainer, model.generation_config


def _targets(model: Any) -> list[str]:
    """The names of the layers with LoRA."""
    return sorted({name.rpartition(".")[2] for name in getattr(model, "targeted_module_names", ())})


def trainable(model: PreTrainedModel, config: TrainConfig) -> tuple[Any, bool]:
    """The model with our attention, loss and, for LoRA, its added matrices; and whether its rows are packed, else padded."""
    packed = packed_attention.enable(model)
    loss.enable(model)
    if config.method == "full":
        return model, packed
    trained = loading.add_lora(model, config)
    fused_layers.fuse(trained)
    return trained, packed


def _has_experts(model: torch.nn.Module) -> bool:
    """Whether a step may leave weights out: several processes then have to look for those without a gradient."""
    return any("expert" in name for name, _ in model.named_modules())


def _keeps_inputs(config: TrainConfig) -> bool:
    """Whether linear layers keep their inputs outside of autograd's saved tensors, as bitsandbytes' in 8 bits do.

    A checkpoint then frees them only if its first pass makes no graph at all.
    """
    return config.quantization == "int8"


def _arguments(prepared: Prepared, run: runs.Run, autocast: bool, sparse: bool) -> TrainingArguments:
    config, rows, held_out = prepared.config, len(prepared.rows["train"]), len(prepared.rows["validation"])
    steps = planned_steps(rows, config.epochs, config.batch_size * distributed.count(), config.gradient_accumulation)
    affordable = FORWARD_SHARE * EVALUATION_SHARE * rows * config.epochs / held_out if held_out else 0
    # The first and the last validation loss are always measured; these are the ones between.
    evaluations_between = min(8, max(0, int(affordable) - 2))
    os.environ["ACCELERATE_MIXED_PRECISION"] = "no"  # what the launcher says of it; --precision decides, below
    arguments = TrainingArguments(
        output_dir=str(run.path / "checkpoints"),
        num_train_epochs=config.epochs,
        learning_rate=config.peak_learning_rate,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        activation_checkpointing=config.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": _keeps_inputs(config)},
        lr_scheduler_type="linear",
        warmup_steps=round(config.warmup_ratio * steps),
        weight_decay=config.weight_decay,
        bf16=autocast,
        logging_steps=max(1, steps // MOST_LOGGED),
        eval_strategy="steps" if evaluations_between else "no",
        eval_steps=max(1, steps // (evaluations_between + 1)) if evaluations_between else None,
        save_strategy="steps" if config.checkpoint_every else "no",
        save_steps=config.checkpoint_every or 1,
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        ddp_find_unused_parameters=sparse,
        use_cpu=compute.device().type == "cpu",
        seed=config.seed,
        log_level="error",
    )
    if arguments.n_gpu > 1:
        # Started plainly on several GPUs it would split a packed batch over them; `accelerate launch` uses them all.
        arguments._n_gpu = 1
    return arguments


def planned_steps(rows: int, epochs: float, batch: int, accumulation: int) -> int:
    """How many optimizer steps the Trainer will make; `batch` is over all processes."""
    return math.ceil(epochs * math.ceil(math.ceil(rows / batch) / accumulation))


def _save(trainer: SftTrainer, prepared: Prepared, run: runs.Run, generation_config: Any) -> None:
    """Everything needed to load and to talk goes into model/: adapter or weights, tokenizer, template, stop tokens."""
    part = run.path / ".model.part"
    if trainer.is_fsdp_enabled:
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    trainer.save_model(str(part))  # by all processes: each may hold a part of the weights
    if not trainer.is_world_process_zero():
        return
    if not any(part.glob("*.safetensors")):
        raise UserError(
            "The weights were left in parts under {folder}; let accelerate's config gather them when saving.",
            folder=part,
        )
    prepared.tokenizer.save_pretrained(part)
    generation_config.eos_token_id = sorted(encode.stop_ids(prepared.tokenizer, generation_config))
    generation_config.save_pretrained(part)
    for name in ("README.md", "training_args.bin"):  # PEFT's empty card, the run has its own; a pickle
        (part / name).unlink(missing_ok=True)
    part.rename(run.model_path)
    shutil.rmtree(run.path / "checkpoints", ignore_errors=True)  # the way there is not needed any more
