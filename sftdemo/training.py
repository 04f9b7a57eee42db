"""One training from data to a model folder: what is checked before anything is written, and how a run begins and ends."""

from __future__ import annotations

import errno
import importlib.metadata
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sftdemo import data, files, hub, machine, processes, runs
from sftdemo.config import TrainConfig
from sftdemo.errors import DataError, UserError
from sftdemo.log import to_log
from sftdemo.schema import RunConfig, Summary

if TYPE_CHECKING:
    import torch

    from sftdemo.rows import Made


Progress = Callable[[dict[str, Any]], None]
LIBRARIES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes")
# Validation loss is measured on a tenth as many rows as are trained on; more than 200 would tell no more.
VALIDATION_SHARE, LEAST_VALIDATION, MOST_VALIDATION = 0.1, 20, 200
LOST = "Another process of this training has ended; what it wrote last says why."


class Interruption:
    """SIGINT and SIGTERM: before training polls `asked` they interrupt at once, from then on the first one only asks.

    Among several processes every one asks: the launcher may pass on what the terminal has sent already.
    """

    def __init__(self) -> None:
        self.asked = False
        self.polled = False

    def handle(self, number: int, frame: Any) -> None:
        if not self.polled or (self.asked and processes.count() == 1):
            raise KeyboardInterrupt
        self.asked = True

    @contextmanager
    def caught(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Prepared:
    """All that training needs, checked before anything is written: examples, token ids, the model's folder.

    `rows` are the encoded train and validation rows, all within max_length; `lengths` counts what became of longer ones.
    """

    def __init__(
        self, config: TrainConfig, report: hub.Report, precision: tuple[torch.dtype, str] | None = None
    ) -> None:
        """`precision` is what all processes of a training compute in, and why; else it is found here."""
        self.config = config.check()
        self.dataset = data.prepare(config, config.max_examples)
        splits = self.dataset.splits
        # From here on torch is needed; faults in the data have been told before its import.
        from sftdemo import encoding, lengths, memory, models, support
        from sftdemo.rows import encode_all

        models.set_threads()
        self.base, self.model_source = hub.find(config.model, report)
        report(f"Model: {config.model}, from: {self.model_source}.")
        support.check(self.base / "config.json", config.model)
        self.tokenizer = encoding.tokenizer(self.base, thinking=config.thinking)
        mended = self._mend(report) if config.on_fault != "stop" else None
        some = min(MOST_VALIDATION, max(LEAST_VALIDATION, round(VALIDATION_SHARE * len(splits["train"]))))
        measured = {"train": splits["train"], "validation": data.take(splits["validation"], some, config.seed)}
        made = {
            split: encode_all(examples, self.tokenizer, "stop", self.dataset.source)
            for split, examples in measured.items()
            if split == "validation" or mended is None
        }
        made |= {"train": mended} if mended else {}
        if faults := [fault for each in made.values() for fault in each.faults]:
            raise DataError(faults)
        fitted = {
            split: lengths.fit(each.examples, each.rows, self.tokenizer, config, self.dataset)
            for split, each in made.items()
        }
        self.rows = {split: found.rows for split, found in fitted.items()}
        self.lengths = {split: found.counts() for split, found in fitted.items()}
        if not self.rows["train"]:
            raise UserError(f"No row fits into max_length {config.max_length}; raise it, or give shorter rows.")
        for split, found in fitted.items():
            if sentence := found.sentence(config):
                report(f"In {split}: {sentence}")
        for warning in made["train"].warnings(""):
            report(f"{warning.field}: {warning.problem} {warning.remedy}")
        for note in made["train"].notes():
            report(note)
        self.dtype, self.precision = precision or models.training_precision(config.precision)
        model, sizes = memory.Model.read(self.base), memory.Rows.of(self.rows["train"])
        self.memory, said = memory.check_training(model, config, sizes, self.dtype.itemsize)
        report(said)
        # A checkpoint of full tuning holds weights and two moments, beside the model itself.
        weights = 4 * models.weights_bytes(self.base) if config.method == "full" else 0
        models.check_disk(runs.home(), weights + 200_000_000, "The run")

    def _mend(self, report: hub.Report) -> Made:
        """Leave out or repair, in every split, the rows that the chat template refuses; returns what became of train."""
        from sftdemo.rows import encode_all

        dataset = self.dataset
        mended = {}
        for split, examples in dataset.splits.items():
            made = mended[split] = encode_all(examples, self.tokenizer, self.config.on_fault, dataset.source)
            dataset.splits[split] = made.kept
            dataset.dropped = [*dataset.dropped, *made.dropped]
            dataset.fixed = [*dataset.fixed, *made.fixed]
            for faults, word in ((made.dropped, "left out"), (made.fixed, "repaired")):
                if faults:
                    report(f"In {split}, {len(faults)} rows are {word}; the first: {faults[0]}")
        if not (dataset.splits["train"] and dataset.splits["validation"]):
            raise DataError(dataset.dropped)
        return mended["train"]

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
            "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        }
        return cast("RunConfig", value)


def train(
    config: TrainConfig,
    run: runs.Run | None = None,
    progress: Progress | None = None,
    report: hub.Report = to_log,
) -> Summary:
    """Fine-tune and return the `train` command's JSON. Without `run` a folder is made once the data proved good.

    Interrupted by a signal or by `Run.ask_to_stop`, it keeps what was learned and reports status "stopped".
    Raises UserError for what the user can mend; a run that exists then says "failed" with the reason.
    """
    machine.keep_few_products()
    interruption = Interruption()
    with interruption.caught():
        try:
            if not processes.is_first():
                progress, report = None, hub.silent
            precision = _meet(config, report) if processes.count() > 1 else None
            if run and processes.is_first():
                run.write_status("running", step=0, total=0, phase="preparing")
            prepared = processes.agree(lambda: Prepared(config, report, precision))
            report(f"Arithmetic: {prepared.precision}.")
            run = runs.Run(processes.from_first(lambda: _folder(prepared, run)))
            processes.from_first(lambda: _write_data(prepared, run))
            prepared.dataset.splits.clear()  # on disk now; token ids are all that training needs
            _warm(prepared)
            from sftdemo.trainer import fit

            summary = fit(prepared, run, interruption, progress, report)
            processes.leave()
            return summary
        except BaseException as error:
            if run and processes.is_first():
                _note_failure(run, error, report)
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise UserError(f"The disk under {_place(error)} is full; make room and train again.") from error
            if processes.lost(error):
                raise UserError(LOST) from error
            raise
        finally:
            machine.give_back()


def _warm(prepared: Prepared) -> None:
    """Fetch the memory that a step's activations will take while libraries and weights are loaded."""
    from sftdemo import memory, models

    if models.device().type == "cpu":
        slack = memory.heap_slack(prepared.config, prepared.dtype.itemsize)
        machine.warm_heap(round(prepared.memory.activations / slack))


def _meet(config: TrainConfig, report: hub.Report) -> tuple[torch.dtype, str]:
    """Find the other processes; the first on each machine fetches the model for all there, and the first of all says what
    all compute in: it is found by timing, and each by itself might find another."""
    from sftdemo import models

    processes.join(cpu=models.device().type == "cpu")
    processes.agree(lambda: hub.find(config.model, report) if processes.is_first_here() else None)
    return processes.from_first(lambda: models.training_precision(config.check().precision))


def _folder(prepared: Prepared, run: runs.Run | None) -> Path:
    """The run's folder with its config; made if there is none."""
    if run:
        files.write_json(run.path / "config.json", prepared.run_config())
    else:
        config = prepared.config
        run = runs.create(config.name, f"{prepared.dataset.name}-{config.method}", prepared.run_config())
        run.write_status("running", step=0, total=0, phase="preparing")
    return run.path


def _write_data(prepared: Prepared, run: runs.Run) -> None:
    for split, examples in prepared.dataset.splits.items():
        files.write_jsonl(run.path / "data" / f"{split}.jsonl", examples)


def _place(error: OSError) -> Path:
    return Path(error.filename).parent if error.filename else runs.home()


def _note_failure(run: runs.Run, error: BaseException, report: hub.Report) -> None:
    """Leave the reason in status.json; a full disk may refuse even that, and then the process' end tells."""
    if isinstance(error, KeyboardInterrupt):
        state, text = "stopped", "Stopped before the first step; nothing was learned."
    elif isinstance(error, UserError):
        state, text = "failed", str(error)
    elif processes.lost(error):
        state, text = "failed", LOST
    else:
        state, text = "failed", f"{type(error).__name__}: {error}"
    try:
        run.write_status(state, error=text)
    except OSError as full:
        report(f"The run's status could not be written: {full}.")
