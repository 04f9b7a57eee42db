"""All that is checked and made before anything is written: data, token ids, precision, memory."""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import math
from typing import TYPE_CHECKING, Any, NoReturn, TypedDict, cast

from sftdemo import data, files, runs
from sftdemo.config.kinds import LABELLING
from sftdemo.config.train import GPU_OPTIMIZERS, TrainConfig
from sftdemo.errors import DataError, Text, UserError
from sftdemo.log import Reporter
from sftdemo.model import download
from sftdemo.schema.lineage import StudentConfig
from sftdemo.schema.run import Checkpoint, RunConfig
from sftdemo.system import distributed
from sftdemo.training import continual, teacher, trackers
from sftdemo.training.budget import warmup_note
from sftdemo.training.checkpoints import weights_fingerprint

if TYPE_CHECKING:
    import torch

    from sftdemo.encoding.examples import EncodingResult
    from sftdemo.model.memory_estimate import Estimate
    from sftdemo.model.sizes import Model


LIBRARIES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes")


# Validation loss is measured on a tenth as many rows as are trained on; more than 200 would tell no more.
VALIDATION_SHARE, LEAST_VALIDATION, MOST_VALIDATION = 0.1, 20, 200


class Fingerprint(TypedDict):
    """A part of Checkpoint."""

    dtype: str
    device: str
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
    `answered` are the validation examples that a metric is taken of.
    """

    def __init__(
        self,
        config: TrainConfig,
        reporter: Reporter,
        precision: tuple[torch.dtype, str] | None = None,
        dataset: data.Dataset | None = None,
        earlier: continual.Predecessor | None = None,
    ) -> None:
        """`precision` is what all processes of a training compute in, and why; else it is found here. `dataset` is what an
        interrupted run was trained on; else it is read. `earlier` is what `from_run` names."""
        self.config = config.check()
        self.student: StudentConfig | None = None  # set where it has a teacher
        self.earlier = earlier
        reporter.stage("reading")
        self.dataset = dataset or data.prepare(config.for_reading, config.max_examples)
        if earlier and dataset is None:
            for note in continual.prepare_rows(self.dataset, earlier, config):
                reporter.info(note)
        # From here on torch is needed; faults in the data have been told before its import.
        from sftdemo.model import loading
        from sftdemo.system import compute, resources

        compute.set_threads()
        self.base, self.model_source = download.find(config.model, reporter, config.task)
        reporter.info(f"Model: {config.model}, from: {self.model_source}.")
        trackers.check(config, reporter)
        if config.optimizer in GPU_OPTIMIZERS and not resources.on_gpu():
            raise UserError(
                "optimizer {name} needs a GPU, and there is none; choose adamw, adam, sgd or adafactor.",
                name=config.optimizer,
            )
        self.start_from(earlier)
        self.check_model()
        self.tokenizer = loading.tokenizer_for(config, self.base)
        reporter.stage("encoding")
        self.rows, self.lengths = self.encode(reporter)
        if not self.rows["train"]:
            raise UserError(
                "No row fits into {limits}; raise max_length where that is the least, or give shorter rows.",
                limits=self.limits(),
            )
        asked = {"keep_best": config.keep_best, "patience": config.patience, "evaluate_every": config.evaluate_every}
        if not self.rows["validation"] and (names := [name for name, value in asked.items() if value]):
            self._refuse_without_validation(names[0])
        self.answered = self._choose_answered() if config.best_by != "loss" else []
        self._check_steps(reporter)
        kept = "float32" if config.method == "frozen" else config.precision  # an encoder's features
        self.dtype, self.precision = precision or compute.training_precision(kept)
        self.memory = self.estimate_memory(reporter)
        needed = self.kept_bytes
        if self.merges:  # once more in float32 when it is done
            needed += 2 * loading.weights_bytes(self.weights)
        resources.check_disk(runs.home(), needed + 200_000_000, Text("The run"))

    def _choose_answered(self) -> list[data.Example]:
        """Validation examples for the metric of `best_by`; UserError where there are none, or it doesn't apply to them."""
        from sftdemo.training import validation_answers

        config, examples = self.config, self.taken()["validation"]
        if any("labels" in example for example in examples):
            raise UserError("best_by goes by one answer a text, and these rows have several labels; leave it out.")
        if config.task not in LABELLING:  # which read a long text in parts, and answer all of them at once
            examples = validation_answers.fitting(examples, self.tokenizer, config.max_length)
        if not examples:
            self._refuse_without_validation("best_by")
        validation_answers.check(config, examples, list(self.dataset.labels))
        return examples

    def _refuse_without_validation(self, name: str) -> NoReturn:
        raise UserError(
            "{name} needs validation rows, and none fits into max_length {max_length}; raise it, or leave {name} out.",
            name=Text(name),
            max_length=self.config.max_length,
        )

    def start_from(self, earlier: continual.Predecessor | None) -> None:
        """Take the weights of an earlier run, or of what is kept of it."""
        self.earlier, self.weights = earlier, continual.full_weights(earlier, self.base)

    @property
    def kept_bytes(self) -> int:
        """What its checkpoints and its model take on the disk: a checkpoint holds what is trained and two moments of it, and the
        next one is written beside it."""
        from sftdemo.model import loading

        config = self.config
        copies = 1 + 3 * (2 + config.keeps_best) if config.checkpoint_every else 1
        if config.method == "full":
            return copies * (self.model.file_bytes if config.drop_layers else loading.weights_bytes(self.weights))
        if config.method != "lora":
            return 0
        model = self.model
        # Embeddings that are the head, too, stand twice in an adapter's file.
        return 4 * (copies * model.trained(config) + (copies // 3 + 1) * model.saved_whole(config))

    def limits(self) -> Text:
        """What rows have to fit into."""
        return Text("max_length {max_length}", max_length=self.config.max_length)

    def check_model(self) -> None:
        """Raise UserError where the model in `base` isn't of this kind."""
        from sftdemo.model import support

        support.check(self.base / "config.json", self.config.model, self.config.task)
        self.check_parts()

    def check_parts(self) -> None:
        """Raise UserError for parts of the model that settings name, and it doesn't have; no weight is read."""
        from sftdemo.model import selection

        selection.check(self.weights, self.config)

    def encode(self, reporter: Reporter) -> tuple[dict[str, Any], dict[str, dict[str, int]]]:
        """The train and validation rows as token ids, and of each split what became of rows over max_length."""
        from sftdemo.encoding import truncation
        from sftdemo.encoding.examples import encode_all

        config = self.config
        mended = self._mend(reporter) if config.on_fault != "stop" else None
        if "rehearsal" in self.dataset.splits:  # its rows are encoded with the new ones, all without faults by now
            mended = None
        encoded = {
            split: encode_all(examples, self.tokenizer, "stop", self.dataset.source)
            for split, examples in self.taken().items()
            if split == "validation" or mended is None
        }
        encoded |= {"train": mended} if mended else {}
        if faults := [fault for encoding in encoded.values() for fault in encoding.faults]:
            raise DataError(faults)
        fitted = {
            split: truncation.fit(encoding.examples, encoding.rows, self.tokenizer, config, self.dataset)
            for split, encoding in encoded.items()
        }
        for split, fit in fitted.items():
            if sentence := fit.sentence(config):
                reporter.info(f"In {split}: {sentence}")
        for warning in encoded["train"].warnings(""):
            reporter.info(f"{warning.field}: {warning.problem} {warning.remedy}")
        for note in encoded["train"].notes():
            reporter.info(note)
        return {split: fit.rows for split, fit in fitted.items()}, {
            split: fit.counts() for split, fit in fitted.items()
        }

    def taken(self) -> dict[str, list[data.Example]]:
        """The examples to encode: all of train, and as many validation rows as are worth their time."""
        splits = self.dataset.splits
        validation_rows = min(MOST_VALIDATION, max(LEAST_VALIDATION, round(VALIDATION_SHARE * len(splits["train"]))))
        validation = data.take(splits["validation"], validation_rows, self.config.seed)
        return {"train": [*splits["train"], *splits.get("rehearsal", [])], "validation": validation}

    def estimate_memory(self, reporter: Reporter) -> Estimate:
        """What the training will take, said; UserError where there isn't as much."""
        from sftdemo.model import memory_estimate

        sizes = memory_estimate.LengthStatistics.of(self.rows["train"])
        beside = teacher.beside(self.config) if self.config.teacher else memory_estimate.Beside(merges=self.merges)
        memory, note = memory_estimate.check_training(self.model, self.config, sizes, self.dtype.itemsize, beside)
        reporter.info(note)
        return memory

    @property
    def model(self) -> Model:
        """The sizes of what is trained."""
        from sftdemo.model import memory_estimate

        if self.config.drop_layers and (whole := teacher.beside(self.config).teacher):
            return whole.without_layers(self.config.drop_layers)
        return memory_estimate.Model.read(self.weights)

    @property
    def steps(self) -> int:
        """How many optimizer steps it will make, unless the clock ends it."""
        config = self.config
        batch = config.batch_size * distributed.count()
        planned = planned_steps(len(self.rows["train"]), config.epochs, batch, config.gradient_accumulation)
        return config.max_steps or planned

    def with_settings(self, config: TrainConfig, reporter: Reporter) -> Prepared:
        """The same rows for other settings of LoRA, the optimizer or the length; raises UserError where they don't fit."""
        other = copy.copy(self)
        other.config = config.check()
        other.check_parts()
        other._check_steps(reporter)
        other.memory = other.estimate_memory(reporter)
        return other

    def _check_steps(self, reporter: Reporter) -> None:
        """Raise UserError for a warm-up that would outlast the training; tell of measurements that never come."""
        config, steps = self.config, self.steps
        if note := warmup_note(config):
            reporter.info(note)
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

    def digest(self) -> str:
        """SHA-256 of all rows that are trained or validated on."""
        digest = hashlib.sha256()
        for rows in self.rows.values():
            for column in rows.columns():
                digest.update(column)
        return digest.hexdigest()

    def fingerprint(self) -> Fingerprint:
        """What has to be the same where a training goes on, for the same curve."""
        from sftdemo.system import compute

        return {
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": compute.device().type,
            "rows": self.digest(),
            "base": self._start_fingerprint(),
            "versions": versions(),
        }

    @property
    def merges(self) -> bool:
        """Whether what LoRA learned is merged in the end: beside an earlier run's whole weights an adapter would need these."""
        return self.config.method == "lora" and self.weights != self.base

    def _start_fingerprint(self) -> str:
        """Tells what the training starts from apart from other weights."""
        if self.earlier is None:
            return weights_fingerprint(self.base)
        both = weights_fingerprint(self.base) + weights_fingerprint(self.earlier.run.model_path)
        return hashlib.sha256(both.encode()).hexdigest()

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
        if (before := manifest.get("device", now["device"])) != now["device"]:
            self._check_device(run, before, now["device"], reporter)
        others = [
            f"{library} {version}, was {manifest['versions'].get(library)}"
            for library, version in now["versions"].items()
            if manifest["versions"].get(library) != version
        ]
        if others:
            reporter.info(
                Text("Other libraries than before ({others}): figures may differ in the last digits.", others=others)
            )

    def _check_device(self, run: runs.Run, before: str, now: str, reporter: Reporter) -> None:
        """Raise UserError where another device would begin from other matrices; else say what another one changes."""
        if self.config.pissa:
            raise UserError(
                "Run {name} began with pissa on {before}, and on {now} the weights would be taken apart otherwise, so it can't "
                "go on here; resume it on {before}, or train anew.",
                name=run.name,
                before=before,
                now=now,
            )
        text = "Trained on {before} before, now on {now}: figures may differ in the last digits."
        reporter.info(Text(text, before=before, now=now))

    def run_config(self) -> RunConfig:
        """The run's config.json: every setting and all that is needed to repeat it."""
        dataset = self.dataset
        value: dict[str, Any] = {
            "settings": self.config.to_json(),
            **({"from": continual.origin(self.earlier)} if self.earlier else {}),
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
        if self.student:
            value["student"] = self.student
        return cast("RunConfig", value)
