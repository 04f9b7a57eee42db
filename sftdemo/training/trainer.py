"""`transformers.Trainer` under our batches, loss and watch: from prepared rows to a saved model."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer

from sftdemo import files, runs
from sftdemo.config.kinds import LABELLING
from sftdemo.encoding.packing import ShardedBatchSampler, batches
from sftdemo.errors import Text, UserError
from sftdemo.log import Reporter
from sftdemo.model import loading, selection
from sftdemo.schema.run import Checkpoint, Summary
from sftdemo.stages import Stage
from sftdemo.system import distributed, malloc
from sftdemo.training import checkpoints, continual, kinds, pissa, trackers
from sftdemo.training.arguments import has_experts, keeps_inputs, own_optimizer, training_arguments
from sftdemo.training.callback import RunCallback
from sftdemo.training.model_card import model_card
from sftdemo.training.prepare import planned_steps
from sftdemo.training.step_threads import follow_steps
from sftdemo.training.validation_answers import ValidationAnswers, labels_of

if TYPE_CHECKING:
    from sftdemo.training.checkpoints import Saved
    from sftdemo.training.learner import Learner
    from sftdemo.training.prepare import Prepared
    from sftdemo.training.progress import Progress
    from sftdemo.training.signals import Interruption

SIZES = "lora_magnitude_vector"  # in the names of what DoRA learns beside the matrices
SAVED = ".modules_to_save."  # in those of embeddings and head that are trained whole beside LoRA
SAVED_RATE = 0.1  # times LoRA's, as all weights have by default


class SftTrainer(Trainer):  # type: ignore[misc]
    """The Trainer over our batches. Its loss is the weighted mean over all learned tokens of an optimizer step, however
    the step is cut into batches and processes; the validation loss is the mean over all tokens of all batches."""

    loss_is_scaled_for_ga = True
    save_due = log_due = evaluation_due = False
    control: Any
    optimizer: Any
    lr_scheduler: Any
    watch: RunCallback
    prepared: Prepared
    pissa_start: dict[str, Tensor] | None
    answers: ValidationAnswers | None

    def get_train_dataloader(self) -> DataLoader[Any]:
        return self._batches(self.train_dataset, self.args.per_device_train_batch_size, self.args.seed)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        return self._batches(eval_dataset or self.eval_dataset, self.args.per_device_eval_batch_size, None)

    def _batches(self, rows: Any, size: int, seed: int | None) -> DataLoader[Any]:
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        done = self.watch.saved_step // self._steps_an_epoch if seed is not None else 0
        return batches(rows, self.data_collator, ShardedBatchSampler(len(rows), size, seed, process, processes, done))

    @property
    def _steps_an_epoch(self) -> int:
        args, rows = self.args, len(self.train_dataset)
        batch = args.per_device_train_batch_size * self.accelerator.num_processes
        return planned_steps(rows, 1, batch, args.gradient_accumulation_steps)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], float | None]:
        """A step's batches and the weight of their learned tokens over all processes; nothing once anyone asked to stop,
        or all steps are done: a checkpoint may be of the last one."""
        step_batches = list(itertools.islice(epoch_iterator, num_batches))
        tokens = sum(batch.pop("row_tokens") for batch in step_batches)
        weight = sum(_weight(batch).item() for batch in step_batches)
        weight, tokens, stop, hurry, due, share, over, log, evaluate = self._over_all(
            weight, tokens, *self.watch.words(), *self.watch.pace(self.state)
        )
        if (over or self.watch.has_waited_enough(self.state)) and not stop:
            self.state.max_steps = self.state.global_step
        if stop or self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            if stop:
                self.watch.stop(self.state, hurry > 0)
                self._save_checkpoint(self.model, None)
            return [], None
        self.save_due = due > 0
        if self.watch.budget:
            self.watch.budget.share, self.log_due, self.evaluation_due = share, log > 0, evaluate > 0
        self.watch.tally.row_tokens += round(tokens)
        return step_batches, weight or 1.0

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """DoRA's sizes are no weights to be drawn to zero."""
        return [name for name in super().get_decay_parameter_names(model) if SIZES not in name]

    def create_optimizer(self, model: Any = None) -> Any:
        """The one that was asked for; with LoRA+ the second matrices have a rate of their own (Hayou et al. 2024), and so have
        embeddings and head."""
        config = self.prepared.config
        is_plain = config.lora_plus_ratio == 1 and config.modules_to_save == "none"
        if is_plain or self.optimizer is not None:
            return super().create_optimizer(model)
        kind, options = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(self.args, self.model)
        learned = {name: weights for name, weights in self.model.named_parameters() if weights.requires_grad}
        second = [weights for name, weights in learned.items() if ".lora_B." in name]
        sizes = [weights for name, weights in learned.items() if SIZES in name]
        saved = [weights for name, weights in learned.items() if SAVED in name]
        others = (".lora_B.", SIZES, SAVED)
        first = [weights for name, weights in learned.items() if not any(part in name for part in others)]
        groups = [
            {"params": first, "weight_decay": config.weight_decay},
            {"params": second, "weight_decay": config.weight_decay, "lr": options["lr"] * config.lora_plus_ratio},
            {"params": sizes, "weight_decay": 0.0},
            {"params": saved, "weight_decay": config.weight_decay, "lr": options["lr"] * SAVED_RATE},
        ]
        self.optimizer = kind([group for group in groups if group["params"]], **options)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """By steps, or with a budget by the share of its time that is over."""
        budget, config = self.watch.budget, self.prepared.config
        if budget and self.lr_scheduler is None:
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, partial(budget.rate, config))
        return super().create_scheduler(num_training_steps, optimizer)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """The Trainer's own, made whole or not at all: it writes into output_dir, and a whole one is moved from there."""
        step, watch = self.state.global_step, self.watch
        if step == watch.saved_step or not watch.every:
            return
        began = time.monotonic()
        checkpoints.check_room(watch.run)
        super()._save_checkpoint(model, trial)
        pending = self._over_all(self._tr_loss.item())[0] / self.accelerator.num_processes
        self.accelerator.wait_for_everyone()  # each has written its random states
        if self.is_world_process_zero():
            written = Path(self.args.output_dir) / f"checkpoint-{step}"
            checkpoints.commit(watch.run, written, self._manifest(pending))
            (watch.run.path / "save").unlink(missing_ok=True)
        watch.saved_step, watch.saved_at = step, time.monotonic()
        watch.save_seconds = watch.saved_at - began

    def _manifest(self, pending_loss: float) -> Checkpoint:
        tally, budget = self.watch.tally, self.watch.budget
        kept: dict[str, Any] = (
            {"budget": budget.state(self.watch.step_seconds, self.watch.save_seconds)} if budget else {}
        )
        if self.watch.best and self.watch.best.step is not None:
            kept["best_step"] = self.watch.best.step
        return {
            "step": self.state.global_step,
            "total": self.watch.total(self.state),
            "processes": self.accelerator.num_processes,
            "row_tokens": tally.row_tokens,
            "training_seconds": self.watch.training_seconds,
            "seconds": tally.elapsed,
            "first_eval_loss": tally.first_eval_loss,
            "loss_sum": self._total_loss_scalar,
            "pending_loss": pending_loss,
            "logged_step": self._globalstep_last_logged,
            "peak_memory": tally.peak,
            "resumed": tally.resumed,
            "files": {},
            **self.prepared.fingerprint(),
            **kept,  # type: ignore[typeddict-item]
        }

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: float | None = None
    ) -> Tensor:
        # Gradients are averaged over the processes, and a sum is wanted.
        return model(**inputs) * (self.accelerator.num_processes / num_items_in_batch)  # type: ignore[no-any-return]

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        began, model = time.monotonic(), self.model.eval()
        stage: Stage = "validating" if self.watch.evaluated else "first_validation"
        total = weight = 0.0
        with torch.no_grad():
            batches = self.get_eval_dataloader()
            for number, inputs in enumerate(batches):
                self.watch.progress.stage(stage, number, len(batches))
                inputs.pop("row_tokens")
                weight += _weight(inputs).item()
                with self.accelerator.autocast():
                    total += model(**self._prepare_inputs(inputs)).item()
        total, weight = self._over_all(total, weight)
        metrics = {"eval_loss": total / (weight or 1.0)}
        if self.answers:
            metrics["eval_score"] = self.answers.measure(self.state.global_step, self.is_world_process_zero())
        if self.watch.budget:
            self.watch.budget.evaluation = time.monotonic() - began
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


def fit(
    prepared: Prepared,
    run: runs.Run,
    interruption: Interruption,
    reporter: Progress,
    checkpoint: Saved | None = None,
    is_over: Callable[[int], bool] | None = None,
) -> Summary:
    """Load, train, save; returns the `train` command's JSON and leaves it in the run's status.

    `is_over` is asked before each step, with the steps done, whether to stop there, as by the user's word.
    """
    manifest = checkpoint.manifest if checkpoint else None
    callback = RunCallback(run, interruption, reporter, manifest, prepared.config)
    callback.is_over = is_over or callback.is_over
    reporter.stage("loading", 0, loading.weights_bytes(prepared.base))
    trainer, learner = _trainer(prepared, run, callback, reporter)
    with trackers.kept_open(trainer, reporter):
        return _trained(trainer, learner, run, interruption, checkpoint)


def _trained(
    trainer: SftTrainer, learner: Learner, run: runs.Run, interruption: Interruption, checkpoint: Saved | None
) -> Summary:
    """Train, save and measure."""
    prepared, callback, reporter = trainer.prepared, trainer.watch, trainer.watch.progress
    tally, has_validation = callback.tally, trainer.eval_dataset is not None
    malloc.wait_until_warm()
    if has_validation and checkpoint is None:
        tally.first_eval_loss = trainer.evaluate()["eval_loss"]
    interruption.phase = "training"
    with follow_steps(trainer):
        result = trainer.train(resume_from_checkpoint=str(checkpoint.path) if checkpoint else None)
    steps = trainer.state.global_step
    if not steps:
        raise KeyboardInterrupt  # stopped before the first step
    interruption.phase = "saving"
    reporter.stage("saving")
    seconds = tally.elapsed
    best_step, eval_loss, score = _keep_best(trainer, callback, interruption) if callback.best else (None, None, None)
    _save(trainer, run, learner)
    if has_validation and not callback.best:
        eval_loss, score = _last_measured(trainer, callback, interruption)
    summary: Summary = {
        "run": run.name,
        "status": "stopped" if callback.stopped else "finished",
        "steps": steps,
        "train_loss": result.training_loss,
        "eval_loss": eval_loss,
        "first_eval_loss": tally.first_eval_loss,
        "tokens_per_s": round(callback.tokens_per_s, 1),
        "seconds": round(seconds, 1),
        "model_source": prepared.model_source,
        "peak_memory": tally.peak,
        "estimated_memory": prepared.memory.peak,
        "lora_targets": _targets(trainer.model),
        "trained_parameters": selection.counts(trainer.model)[0],
        "resumed": tally.resumed,
        "best_step": best_step,
        "early_stopped": callback.early_stopped,
        "eval_score": score if trainer.answers else None,
    }
    if trainer.is_world_process_zero():
        files.write_text(run.path / "README.md", model_card(run, summary))
        cut_off: dict[str, Any] = {"cut_off": True} if callback.cut_off else {}
        run.write_status(summary["status"], step=steps, total=callback.total(trainer.state), **summary, **cut_off)
        if not callback.stopped:
            shutil.rmtree(run.path / "checkpoints", ignore_errors=True)  # the way there is not needed any more
            continual.release(run)
    return summary


def _keep_best(
    trainer: SftTrainer, callback: RunCallback, interruption: Interruption
) -> tuple[int, float | None, float | None]:
    """Take the model back to the best step, the last one included; returns that step, its loss and its score."""
    last, step = _last_measured(trainer, callback, interruption), trainer.state.global_step
    best = callback.best
    assert best
    if (kept := best.step) is not None and kept != step:
        path, problem = distributed.from_rank_zero(lambda: checkpoints.of_step(callback.run, kept))
        if problem is None:
            trainer.state.best_model_checkpoint = str(path)
            trainer._load_best_model()
            return kept, best.loss, best.score
        callback.progress.info(
            Text(
                "{name}, the best, is damaged: {problem}. The model of the last step is kept.",
                name=path.name,
                problem=problem,
            )
        )
    return step, *last


def _last_measured(
    trainer: SftTrainer, callback: RunCallback, interruption: Interruption
) -> tuple[float | None, float | None]:
    """The validation loss and the score after the last step; none where there is no time for it, or a signal ends the wait
    for it."""
    if callback.evaluated and callback.evaluated[0] == trainer.state.global_step:
        return callback.evaluated[1:]
    if callback.cut_off:
        return None, None
    if distributed.count() == 1:  # several would wait for the one that leaves
        interruption.phase = "preparing"
    try:
        metrics = trainer.evaluate()
        return metrics["eval_loss"], metrics.get("eval_score")
    except KeyboardInterrupt:
        return None, None
    finally:
        interruption.phase = "saving"


def _trainer(
    prepared: Prepared, run: runs.Run, callback: RunCallback, reporter: Reporter
) -> tuple[SftTrainer, Learner]:
    """The Trainer, ready to go, and what it trains."""
    config = prepared.config
    torch.manual_seed(config.seed)
    learner = kinds.learner(prepared, reporter)
    # Weights that are kept in float32 are computed with in 16 bits by autocast.
    keeps_float32 = config.method == "full" or config.task in LABELLING
    trained, autocast = learner.model, keeps_float32 and prepared.dtype == torch.bfloat16
    if config.gradient_checkpointing and keeps_inputs(config):
        trained.enable_input_require_grads()  # else no gradient comes back through a reentrant checkpoint
    learned, whole = selection.counts(trained)
    reporter.info(
        Text("Trained: {n:,} of {whole:,} parameters ({share:.2%}).", n=learned, whole=whole, share=learned / whole)
    )
    arguments = training_arguments(prepared, run, autocast, has_experts(trained))
    trainer = SftTrainer(
        model=trained,
        args=arguments,
        train_dataset=prepared.rows["train"],
        eval_dataset=prepared.rows["validation"] or None,
        data_collator=learner.collator,
        callbacks=[callback],
        optimizer_cls_and_kwargs=own_optimizer(config),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.watch, trainer.prepared, callback.trainer = callback, prepared, trainer
    trainer.answers, examples = None, prepared.answered
    if examples and learner.answer:
        labels = labels_of(examples, list(prepared.dataset.labels))
        trainer.answers = ValidationAnswers(run, config.best_by, examples, labels, learner.answer)
    trainer.pissa_start = pissa.start_of(trained) if config.pissa else None
    return trainer, learner


def _targets(model: Any) -> list[str]:
    """The names of the layers with LoRA."""
    return sorted({name.rpartition(".")[2] for name in getattr(model, "targeted_module_names", ())})


def _save(trainer: SftTrainer, run: runs.Run, learner: Learner) -> None:
    """Everything needed to load and to answer goes into model/: adapter or weights, tokenizer, and what its kind needs."""
    part = run.path / ".model.part"
    checkpoints.check_room(run)
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
    if trainer.pissa_start:
        pissa.make_plain(part, trainer.pissa_start)
    if trainer.prepared.merges:
        continual.merge(trainer.prepared.weights, part)
    learner.save(part)
    for name in ("README.md", "training_args.bin"):  # PEFT's empty card, the run has its own; a pickle
        (part / name).unlink(missing_ok=True)
    checkpoints.replace_model(run, part)
