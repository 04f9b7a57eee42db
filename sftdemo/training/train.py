"""One training from data to a model folder: what is checked before anything is written, and how a run begins and ends."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sftdemo import files, runs
from sftdemo.config.train import TrainConfig
from sftdemo.data import edits
from sftdemo.errors import Text, UserError, unexpected
from sftdemo.log import TO_LOG, Quiet, Reporter
from sftdemo.model import download
from sftdemo.runs import samples, sweep_record
from sftdemo.schema.run import Summary
from sftdemo.system import distributed, malloc
from sftdemo.training import checkpoints, continual, kinds, lock, resume, students, trackers, turns
from sftdemo.training.prepare import Prepared
from sftdemo.training.progress import Progress
from sftdemo.training.signals import Interruption
from sftdemo.training.teacher import teacher_of

if TYPE_CHECKING:
    import torch

    from sftdemo.training.checkpoints import Saved


LOST = Text("Another process of this training has ended; the end of its log says why.")


def train(
    config: TrainConfig,
    run: runs.Run | None = None,
    reporter: Reporter = TO_LOG,
    time_limit: float | None = None,
    wait: bool = True,
) -> Summary:
    """Fine-tune and return the `train` command's JSON. Without `run` a folder is made once the data proved good.

    While another process trains it waits in the home's queue, in a folder of its own already; where several processes make
    one training, or `wait` is False, UserError says who trains. A `run` that was interrupted, or the one that
    `config.resume` names, goes on from its last checkpoint, with its own settings, to the same curve (but for rounding,
    where a busy neighbour changed its number of threads; OMP_NUM_THREADS fixes that). Interrupted by a signal or by
    `Run.ask_to_stop`, or after `time_limit` seconds, it keeps what was learned and reports status "stopped"; the next call
    goes on. Raises UserError for what the user can mend; a run that exists then says "failed" with the reason.
    """
    malloc.limit_onednn_cache()
    interruption = Interruption(time_limit)
    if config.resume is not None:
        run = runs.find(config.check().resume or "")
        turns.require_ended(run)
        resume.check(run)
        config = resume.settings(run)
    elif run is None:
        config = students.complete(config)
        if config.name is not None and distributed.count() == 1:
            runs.check_free(config.name)
    if not distributed.is_rank_zero():
        reporter = Quiet(reporter)
    progress = Progress(reporter)
    try:
        with interruption.caught(), contextlib.ExitStack() as held:
            if distributed.count() == 1 and wait:
                run = turns.take(config, run, held, interruption, reporter)
                interruption.begin()
            else:
                if distributed.count() > 1:
                    _meet()
                distributed.agree(lambda: held.enter_context(lock.alone(run)) if distributed.is_rank_zero() else None)
            return _trained(config, run, interruption, progress)
    except BaseException as error:
        # Some libraries make an error of their own out of an interruption of their import.
        if isinstance(error, Exception) and interruption.asked and interruption.phase == "preparing":
            raise KeyboardInterrupt from error
        if isinstance(error, Exception) and (fault := files.disk_fault(error) or trackers.fault(error)):
            raise fault from error
        if distributed.lost(error):
            raise UserError(LOST) from error
        raise
    finally:
        malloc.give_back()


def _trained(
    config: TrainConfig,
    run: runs.Run | None,
    interruption: Interruption,
    reporter: Progress,
) -> Summary:
    start = distributed.from_rank_zero(lambda: _start(run) if run else resume.Start())
    try:
        with contextlib.ExitStack() as listening:
            if run:
                listening.enter_context(interruption.hears(run.path / "stop"))
                _take_up(run, start, reporter)
            if run and config.edits and start.dataset is None:
                kept = edits.of_run(run.path)  # a copy from when the run was asked for
                config = replace(config, edits=str(kept)) if kept.is_file() else config
            earlier = distributed.agree(lambda: continual.find(config, run))
            config = continual.inherited(config, earlier)
            precision = _precision(config, run, start, reporter)
            prepared = distributed.agree(lambda: _prepared(config, run, start, precision, earlier, reporter))
            reporter.info(f"Compute dtype: {prepared.precision}.")
            if run is None:
                run = runs.Run(distributed.from_rank_zero(lambda: _new_folder(prepared, reporter)))
                listening.enter_context(interruption.hears(run.path / "stop"))
            _write_inputs(prepared, run, start, reporter)
            prepared.dataset.splits.clear()  # on disk now; token ids are all that training needs
            _warm(prepared)
            if prepared.config.method == "frozen":
                from sftdemo.training import frozen

                return frozen.fit(prepared, run, interruption, reporter)
            from sftdemo.training.trainer import fit

            checkpoint, is_over = start.checkpoint, None
            if sweep_record.read(run):
                prepared, checkpoint, whole, is_over = _swept(prepared, run, interruption, reporter)
                if whole:
                    return whole
            summary = fit(prepared, run, interruption, reporter, checkpoint, is_over)
            distributed.leave()
            return summary
    except BaseException as error:
        if run and distributed.is_rank_zero():
            _note_failure(run, error, interruption, start, reporter)
        raise


def _swept(
    prepared: Prepared, run: runs.Run, interruption: Interruption, reporter: Progress
) -> tuple[Prepared, Saved | None, Summary | None, Callable[[int], bool] | None]:
    """Try a sweep's settings, unless that is done; returns what the run goes on with, its summary where that is all, and
    whether the minutes are over, asked before each step."""
    from sftdemo.training.sweep_trials import Search

    if distributed.count() > 1:
        raise UserError("A sweep is for one process; start it without accelerate launch.")
    search, was_open = Search(run, prepared, interruption, reporter), sweep_record.is_open(run)
    if was_open:
        search.choose()
    # What is resumed after that goes on to its end.
    return *search.take_over(), search.is_over_after_a_step if was_open else None


def _prepared(
    config: TrainConfig,
    run: runs.Run | None,
    start: resume.Start,
    precision: tuple[torch.dtype, str] | None,
    earlier: continual.Predecessor | None,
    reporter: Progress,
) -> Prepared:
    """All that is made before anything is written, for a student on the rows of its teacher."""
    prepared = kinds.prepare(config, reporter, precision, start.dataset or students.dataset(config), earlier)
    if config.teacher:
        known = run.config().get("student") if run and start.checkpoint else None
        prepared.student = students.plan(prepared, known, reporter)
    return prepared


def _start(run: runs.Run) -> resume.Start:
    """Where the run begins or goes on."""
    if run.state != "queued":  # who asks a queued run to stop means this training
        run.clear_words()
    return resume.start(run)


def _take_up(run: runs.Run, start: resume.Start, reporter: Progress) -> None:
    """Say where the run begins or goes on, and leave nothing of what comes after that."""
    for note in start.notes:
        reporter.info(note)

    def clear() -> None:
        run.remove_unfinished()
        checkpoints.discard_part(run)
        shutil.rmtree(run.path / ".model.part", ignore_errors=True)
        checkpoints.restore_metrics(run, start.checkpoint)
        samples.keep_until(run, start.checkpoint.step if start.checkpoint else None)
        step, total = (start.checkpoint.step, start.checkpoint.manifest["total"]) if start.checkpoint else (0, 0)
        reporter.begin(run, {"step": step, "total": total, "phase": "preparing"})

    distributed.from_rank_zero(clear)


def _write_inputs(prepared: Prepared, run: runs.Run, start: resume.Start, reporter: Reporter) -> None:
    """Settings and data into the run's folder; where it goes on they are there, and have to be the same."""
    if start.checkpoint:
        manifest = start.checkpoint.manifest
        distributed.agree(lambda: prepared.check_goes_on(run, manifest, reporter))
        return

    def write() -> None:
        config = prepared.run_config()
        teacher = teacher_of(prepared.config) if prepared.config.teacher else None
        continual.write_ancestry(run, prepared.earlier, teacher)
        if start.dataset:  # begins anew; how its data were made is known to its first beginning alone
            config["data"] = run.config()["data"]
        elif teacher:
            students.keep_edits(teacher, run)
        elif prepared.config.edits:
            edits.keep(prepared.config.edits, run.path)
        files.write_json(run.path / "config.json", config)
        for split, examples in prepared.dataset.splits.items():
            files.write_jsonl(run.path / "data" / f"{split}.jsonl", examples)

    distributed.from_rank_zero(write)


def _precision(
    config: TrainConfig, run: runs.Run | None, start: resume.Start, reporter: Reporter
) -> tuple[torch.dtype, str] | None:
    """What to compute in, and why, where that isn't for each process to find: what a run goes on in, or what all agree on."""
    if distributed.count() > 1:
        distributed.agree(
            lambda: download.find(config.model, reporter, config.task) if distributed.is_first_here() else None
        )
    if run and start.checkpoint:
        import torch

        return getattr(torch, start.checkpoint.manifest["dtype"]), run.config()["precision"]
    if distributed.count() == 1:
        return None
    from sftdemo.system import compute

    return distributed.from_rank_zero(lambda: compute.training_precision(config.check().precision))


def _warm(prepared: Prepared) -> None:
    """Fetch the memory that a step's activations will take while libraries and weights are loaded."""
    from sftdemo.model import memory_estimate
    from sftdemo.system import compute

    if compute.device().type == "cpu":
        slack = memory_estimate.heap_slack(prepared.config, prepared.dtype.itemsize)
        malloc.warm_heap(round(prepared.memory.activations / slack))


def _meet() -> None:
    """Find the other processes."""
    from sftdemo.system import compute

    distributed.join(cpu=compute.device().type == "cpu")


def _new_folder(prepared: Prepared, reporter: Progress) -> Path:
    """The folder of a new run, with its config."""
    config = prepared.config
    run = runs.create(config.name, students.name_hint(config, prepared.dataset.name), prepared.run_config())
    continual.keep(prepared.earlier, run)
    prepared.start_from(continual.find(config, run))  # the copy: the earlier run may be deleted
    reporter.begin(run, {"step": 0, "total": 0, "phase": "preparing"})
    return run.path


def _note_failure(
    run: runs.Run, error: BaseException, interruption: Interruption, start: resume.Start, reporter: Reporter
) -> None:
    """Leave the reason in status.json."""
    interrupted = isinstance(error, KeyboardInterrupt) or (interruption.asked and interruption.phase == "preparing")
    interruption.phase = "saving"
    checkpoints.discard_part(run)  # a full disk has room again, if only for a word
    shutil.rmtree(run.path / ".model.part", ignore_errors=True)
    status = run.status()
    step, total = status.get("step") or 0, status.get("total") or 0
    if interrupted:
        state, text = "stopped", _stopped(run, step)
    elif isinstance(error, UserError):
        state, text = "failed", error.text
    elif distributed.lost(error):
        state, text = "failed", LOST
    else:
        fault = files.disk_fault(error) or trackers.fault(error)
        state, text = "failed", fault.text if fault else unexpected(error)
    if start.checkpoint and step == start.checkpoint.step and run.model_path.is_dir():
        state = "stopped"  # as it was before: its model is as good as it was
    cut_off = {"cut_off": True} if interrupted and interruption.terminated else {}
    try:
        run.write_status(state, error=text, step=step, total=total, **cut_off)
    except OSError as full:
        reporter.info(f"The run's status could not be written: {full}.")


def _stopped(run: runs.Run, step: int) -> Text:
    if sweep_record.is_open(run):
        return Text("Stopped while settings were tried; --resume goes on with what was measured.")
    if checkpoints.exists(run):
        return Text("Stopped between two checkpoints; --resume goes on from the last one.")
    if step:
        return Text("Stopped before the first checkpoint; --resume begins again at step 0.")
    return Text("Stopped before the first step; nothing was learned.")
