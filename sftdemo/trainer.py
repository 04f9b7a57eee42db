"""`transformers.Trainer` under our batches, loss and watch: from prepared rows to a saved model."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from sftdemo import attention, encoding, hub, machine, models, runs
from sftdemo.card import model_card
from sftdemo.packing import Collator

if TYPE_CHECKING:
    from sftdemo.training import Interruption, Prepared

Progress = Callable[[dict[str, Any]], None]
STATUS_SECONDS = 0.5  # how often status.json is written at most
EVALUATION_SHARE = 0.1  # of the training's cost, at most, goes into validation loss on the way
FORWARD_SHARE = 3  # a forward pass costs a third of a training step
MOST_LOGGED = 1000  # points of a curve


class Tuner(Trainer):  # type: ignore[misc]
    """The Trainer, with our batches' token count, and validation loss as a mean over tokens, not over batches."""

    row_tokens = 0
    control: Any

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        self.row_tokens += inputs.pop("row_tokens")
        return super().training_step(model, inputs, *args, **kwargs)  # type: ignore[no-any-return]

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        model = self.model.eval()
        total = torch.zeros(2, dtype=torch.float64)
        with torch.no_grad():
            for inputs in self.get_eval_dataloader():
                inputs.pop("row_tokens")
                labels = inputs.pop("labels")
                with self.accelerator.autocast():
                    loss = token_loss(model(**self._prepare_inputs(inputs)), labels)
                total += torch.tensor([loss.item(), labels.numel()], dtype=torch.float64)
        summed = self.accelerator.reduce(total.to(self.args.device, torch.float32), "sum")
        metrics = {"eval_loss": (summed[0] / summed[1]).item()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def token_loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Cross-entropy (nats) of the learned tokens, summed; divided by the optimizer step's learned tokens where known."""
    logits = outputs.logits.flatten(0, -2).float()
    loss = torch.nn.functional.cross_entropy(logits, labels.to(logits.device).flatten(), reduction="sum")
    return loss if num_items_in_batch is None else loss / num_items_in_batch


class Watch(TrainerCallback):  # type: ignore[misc]
    """Writes metrics and status into the run's folder and passes on the word to stop."""

    def __init__(self, run: runs.Run, interruption: Interruption, progress: Progress | None) -> None:
        self.run, self.interruption, self.progress = run, interruption, progress
        self.tuner: Tuner | None = None
        self.began = self.ended = self._written = 0.0
        self.stopped = False

    @property
    def tokens_per_s(self) -> float:
        """Tokens of the rows trained on, padding not, from the first step's start to the last step's end."""
        seconds = self.ended - self.began
        if not self.tuner or seconds <= 0:
            return 0.0
        return self.tuner.row_tokens * self.tuner.accelerator.num_processes / seconds  # type: ignore[no-any-return]

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.began = self.began or time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ended = time.perf_counter()
        if self.interruption.asked or self.run.stop_asked:
            self.stopped = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        logs = logs or {}
        if not state.is_world_process_zero or not {"loss", "eval_loss"} & logs.keys():
            return
        row: dict[str, Any] = {"step": state.global_step, "epoch": round(state.epoch or 0.0, 4)}
        row |= {key: logs[key] for key in ("loss", "learning_rate", "grad_norm", "eval_loss") if key in logs}
        if "loss" in logs:
            row["tokens_per_s"] = round(self.tokens_per_s, 1)
        self.run.append_metrics(row)
        self._tell(state, row)

    def _tell(self, state: Any, row: dict[str, Any]) -> None:
        done, total = state.global_step, state.max_steps
        eta = (time.perf_counter() - self.began) / done * (total - done) if done else None
        values = row | {"total": total, "eta_s": round(eta) if eta is not None else None}
        if self.progress:
            self.progress(values)
        if time.monotonic() - self._written > STATUS_SECONDS or done == total or self.stopped:
            self._written = time.monotonic()
            self.run.write_status("stopping" if self.stopped else "running", phase="training", **values)


def fit(
    prepared: Prepared, run: runs.Run, interruption: Interruption, progress: Progress | None, report: hub.Report
) -> dict[str, Any]:
    """Load, train, save; returns the `train` command's JSON and leaves it in the run's status."""
    began = time.perf_counter()
    report("Loading the model …")
    watch = Watch(run, interruption, progress)
    tuner, stops = _tuner(prepared, run, watch, report)
    watch.tuner = tuner
    measured = tuner.eval_dataset is not None
    first = tuner.evaluate()["eval_loss"] if measured else None
    interruption.polled = True
    result = tuner.train()
    last = tuner.evaluate()["eval_loss"] if measured else None
    report("Saving …")
    summary = {
        "run": run.name,
        "status": "stopped" if watch.stopped else "finished",
        "steps": tuner.state.global_step,
        "train_loss": result.training_loss,
        "eval_loss": last,
        "first_eval_loss": first,
        "tokens_per_s": round(watch.tokens_per_s, 1),
        "seconds": round(time.perf_counter() - began, 1),
        "model_source": prepared.model_source,
        "peak_memory": machine.used_peak(),
        "estimated_memory": prepared.memory.peak,
    }
    if tuner.is_world_process_zero():
        _save(tuner, prepared, run, stops)
        runs.write_text(run.path / "README.md", model_card(run, summary))
        run.write_status(summary["status"], step=tuner.state.global_step, total=tuner.state.max_steps, **summary)
    return summary


def _tuner(prepared: Prepared, run: runs.Run, watch: Watch, report: hub.Report) -> tuple[Tuner, Any]:
    """The Trainer, ready to go, and the base's generation config."""
    config, full = prepared.config, prepared.config.method == "full"
    torch.manual_seed(config.seed)
    # Full tuning keeps float32 master weights: small updates of bfloat16 weights get lost in rounding.
    model = models.load_base(prepared.base, torch.float32 if full else prepared.dtype, config.quantization)
    packed = attention.enable(model)
    if not packed:
        report("This model keeps its own attention; rows are padded instead of packed.")
    held_out = prepared.rows["validation"]
    tuner = Tuner(
        model=model if full else models.add_lora(model, config),
        args=_arguments(prepared, run, autocast=full and prepared.dtype == torch.bfloat16),
        train_dataset=prepared.rows["train"],
        eval_dataset=held_out or None,
        data_collator=Collator(packed),
        compute_loss_func=token_loss,
        callbacks=[watch],
    )
    tuner.remove_callback(PrinterCallback)
    return tuner, model.generation_config


def _arguments(prepared: Prepared, run: runs.Run, autocast: bool) -> TrainingArguments:
    config, rows, held_out = prepared.config, len(prepared.rows["train"]), len(prepared.rows["validation"])
    steps = max(1, round(config.epochs * rows / (config.batch_size * config.gradient_accumulation)))
    passes = FORWARD_SHARE * EVALUATION_SHARE * rows * config.epochs / held_out if held_out else 0
    # The first and the last validation loss are always measured; these are the ones between.
    between = min(8, max(0, int(passes) - 2))
    return TrainingArguments(
        output_dir=str(run.path / "checkpoints"),
        num_train_epochs=config.epochs,
        learning_rate=config.peak_learning_rate,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        activation_checkpointing=config.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        lr_scheduler_type="linear",
        warmup_steps=round(config.warmup_ratio * steps),
        weight_decay=config.weight_decay,
        bf16=autocast,
        logging_steps=max(1, steps // MOST_LOGGED),
        eval_strategy="steps" if between else "no",
        eval_steps=max(1, steps // (between + 1)) if between else None,
        save_strategy="steps" if config.checkpoint_every else "no",
        save_steps=config.checkpoint_every or 1,
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=models.device().type == "cpu",
        seed=config.seed,
        log_level="error",
    )


def _save(tuner: Tuner, prepared: Prepared, run: runs.Run, stops: Any) -> None:
    """Everything needed to load and to talk goes into model/: adapter or weights, tokenizer, template, stop tokens."""
    part = run.path / ".model.part"
    model = tuner.accelerator.unwrap_model(tuner.model)
    model.save_pretrained(part)
    prepared.tokenizer.save_pretrained(part)
    stops.eos_token_id = sorted(encoding.stop_ids(prepared.tokenizer, stops))
    stops.save_pretrained(part)
    (part / "README.md").unlink(missing_ok=True)  # PEFT's empty card; the run has its own
    part.rename(run.model_path)
    shutil.rmtree(run.path / "checkpoints", ignore_errors=True)  # the way there is not needed any more
