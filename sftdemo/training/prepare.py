"""All that is checked and made before anything is written: data, token ids, precision, memory."""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
from typing import TYPE_CHECKING, Any, TypedDict, cast

from sftdemo import data, files, runs
from sftdemo.config import GPU_OPTIMIZERS, TrainConfig
from sftdemo.errors import DataError, Text, UserError
from sftdemo.log import Reporter
from sftdemo.model import download
from sftdemo.schema import Checkpoint, RunConfig
from sftdemo.system import distributed
from sftdemo.training import trackers
from sftdemo.training.checkpoints import weights_fingerprint

if TYPE_CHECKING:
    import torch

    from sftdemo.encoding.examples import EncodingResult


LIBRARIES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes")


# Validation loss is measured on a tenth as many rows as are trained on; more than 200 would tell no more.
VALIDATION_SHARE, LEAST_VALIDATION, MOST_VALIDATION = 0.1, 20, 200


class Fingerprint(TypedDict):
    """A part of Checkpoint."""

    dtype: str
    rows: str
    base: str
    versions: dict[str, str]


def versions() -> dict[str, str]:
    """Of the libraries that decide the outcome."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def planned_steps(rows: int, epochs: float, batch: int, accumulation: int) -> int:
    """How many optimizer steps the Trainer will make; `batch` is over all processes."""
    return math.ceil(epochs * math.ceil(math.ceil(rows / batch) / accumulation))


class Prepared:
    """All that training needs, checked before anything is written: examples, token ids, the model's folder.

    `rows` are the encoded train and validation rows, all within max_length; `lengths` counts what became of longer ones.
    """

    def __init__(
        self,
        config: TrainConfig,
        reporter: Reporter,
        precision: tuple[torch.dtype, str] | None = None,
        dataset: data.Dataset | None = None,
    ) -> None:
        """`precision` is what all processes of a training compute in, and why; else it is found here. `dataset` is what an
        interrupted run was trained on; else it is read."""
        self.config = config.check()
        reporter.stage("reading")
        self.dataset = dataset or data.prepare(config, config.max_examples)
        splits = self.dataset.splits
        # From here on torch is needed; faults in the data have been told before its import.
        from sftdemo.encoding import truncation
        from sftdemo.encoding.examples import encode_all
        from sftdemo.model import loading, memory_estimate, support
        from sftdemo.system import compute, resources

        compute.set_threads()
        self.base, self.model_source = download.find(config.model, reporter)
        reporter.info(f"Model: {config.model}, from: {self.model_source}.")
        trackers.check(config)
        if config.optimizer in GPU_OPTIMIZERS and not resources.on_gpu():
            raise UserError(
                "optimizer {name} needs a GPU, and there is none; choose adamw, adam, sgd or adafactor.",
                name=config.optimizer,
            )
        support.check(self.base / "config.json", config.model)
        self.tokenizer = loading.tokenizer(self.base, thinking=config.thinking)
        reporter.stage("encoding")
        mended = self._mend(reporter) if config.on_fault != "stop" else None
        validation_rows = min(MOST_VALIDATION, max(LEAST_VALIDATION, round(VALIDATION_SHARE * len(splits["train"]))))
        to_encode = {
            "train": splits["train"],
            "validation": data.take(splits["validation"], validation_rows, config.seed),
        }
        encoded = {
            split: encode_all(examples, self.tokenizer, "stop", self.dataset.source)
            for split, examples in to_encode.items()
            if split == "validation" or mended is None
        }
        encoded |= {"train": mended} if mended else {}
        if faults := [fault for encoding in encoded.values() for fault in encoding.faults]:
            raise DataError(faults)
        fitted = {
            split: truncation.fit(encoding.examples, encoding.rows, self.tokenizer, config, self.dataset)
            for split, encoding in encoded.items()
        }
        self.rows = {split: fit.rows for split, fit in fitted.items()}
        self.lengths = {split: fit.counts() for split, fit in fitted.items()}
        if not self.rows["train"]:
            raise UserError(
                "No row fits into max_length {max_length}; raise it, or give shorter rows.",
                max_length=config.max_length,
            )
        asked = {"keep_best": config.keep_best, "patience": config.patience, "evaluate_every": config.evaluate_every}
        if not self.rows["validation"] and (names := [name for name, value in asked.items() if value]):
            raise UserError(
                "{name} needs validation rows, and none fits into max_length {max_length}; raise it, or leave {name} out.",
                name=Text(names[0]),
                max_length=config.max_length,
            )
        self._check_steps(reporter)
        for split, fit in fitted.items():
            if sentence := fit.sentence(config):
                reporter.info(f"In {split}: {sentence}")
        for warning in encoded["train"].warnings(""):
            reporter.info(f"{warning.field}: {warning.problem} {warning.remedy}")
        for note in encoded["train"].notes():
            reporter.info(note)
        self.dtype, self.precision = precision or compute.training_precision(config.precision)
        model, sizes = memory_estimate.Model.read(self.base), memory_estimate.LengthStatistics.of(self.rows["train"])
        self.memory, memory_note = memory_estimate.check_training(model, config, sizes, self.dtype.itemsize)
        reporter.info(memory_note)
        # A checkpoint of full tuning holds weights and two moments; the next one is written beside it, and then the model.
        kept = 1 + 3 * (2 + config.keeps_best) if config.checkpoint_every else 1
        weights = kept * loading.weights_bytes(self.base) if config.method == "full" else 0
        resources.check_disk(runs.home(), weights + 200_000_000, Text("The run"))

    def _check_steps(self, reporter: Reporter) -> None:
        """Raise UserError for a warm-up that would outlast the training; tell of measurements that never come."""
        config, rows = self.config, len(self.rows["train"])
        batch = config.batch_size * distributed.count()
        steps = config.max_steps or planned_steps(rows, config.epochs, batch, config.gradient_accumulation)
        if config.max_minutes is not None and config.max_steps is None:
            return
        if (warmup := config.warmup_steps) and warmup >= steps:
            raise UserError(
                "warmup_steps is {warmup}, and the training has {steps} steps; give fewer, or train for longer.",
                warmup=warmup,
                steps=steps,
            )
        if config.evaluate_every is not None and config.evaluate_every > steps:
            reporter.info(
                Text(
                    "evaluate_every is {every}, and the training has {steps} steps: the validation loss is measured "
                    "before the first and after the last.",
                    every=config.evaluate_every,
                    steps=steps,
                )
            )

    def _mend(self, reporter: Reporter) -> EncodingResult:
        """Leave out or repair, in every split, the rows that the chat template refuses; returns what became of train."""
        from sftdemo.encoding.examples import encode_all

        dataset = self.dataset
        mended = {}
        for split, examples in dataset.splits.items():
            encoded = mended[split] = encode_all(examples, self.tokenizer, self.config.on_fault, dataset.source)
            dataset.splits[split] = encoded.kept
            dataset.dropped = [*dataset.dropped, *encoded.dropped]
            dataset.fixed = [*dataset.fixed, *encoded.fixed]
            for faults, word in ((encoded.dropped, "left out"), (encoded.fixed, "repaired")):
                if faults:
                    reporter.info(f"In {split}, {len(faults)} rows are {word}; the first: {faults[0]}")
        if not (dataset.splits["train"] and dataset.splits["validation"]):
            raise DataError(dataset.dropped)
        return mended["train"]

    def fingerprint(self) -> Fingerprint:
        """What has to be the same where a training goes on, for the same curve."""
        digest = hashlib.sha256()
        for rows in self.rows.values():
            for column in (rows.ids, rows.supervised, rows.ends, rows.weights):
                digest.update(column)
        return {
            "dtype": str(self.dtype).removeprefix("torch."),
            "rows": digest.hexdigest(),
            "base": weights_fingerprint(self.base),
            "versions": versions(),
        }

    def check_goes_on(self, run: runs.Run, manifest: Checkpoint, reporter: Reporter) -> None:
        """Raise UserError where the base or the rows aren't those of the checkpoint; say which libraries are others."""
        now = self.fingerprint()
        what = {"base": Text("the weights of the base model"), "rows": Text("the token ids of its rows")}
        if changed := [text for key, text in what.items() if now[key] != manifest[key]]:  # type: ignore[literal-required]
            raise UserError(
                "Run {name} can't go on: {changed} are not what they were. With the model and libraries of before it can; "
                "else train anew.",
                name=run.name,
                changed=changed,
            )
        others = [
            f"{library} {version}, was {manifest['versions'].get(library)}"
            for library, version in now["versions"].items()
            if manifest["versions"].get(library) != version
        ]
        if others:
            reporter.info(
                Text("Other libraries than before ({others}): figures may differ in the last digits.", others=others)
            )

    def run_config(self) -> RunConfig:
        """The run's config.json: every setting and all that is needed to repeat it."""
        dataset = self.dataset
        value: dict[str, Any] = {
            "settings": self.config.to_json(),
            "data": {
                "source": dataset.source,
                "name": dataset.name,
                "format": dataset.format,
                "task": dataset.task,
                "sha256": dataset.sha256,
                "labels": dataset.labels,
                "mapping": dataset.mapping,
                "instruction": dataset.instruction,
                "sizes": {split: len(rows) for split, rows in dataset.splits.items()},
                "too_long": {split: counts["dropped"] for split, counts in self.lengths.items()},
                "lengths": self.lengths,
                "files": {split: files.sha256(rows) for split, rows in dataset.splits.items()},
                **data.account(dataset),
            },
            "base_model": str(self.base),
            "model_source": self.model_source,
            "precision": self.precision,
            "versions": versions(),
        }
        return cast("RunConfig", value)
