"""One training from data to a model folder: what is checked before anything is written, and how a run begins and ends."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftdemo import files, runs
from sftdemo.config import TrainConfig
from sftdemo.errors import Text, UserError, unexpected
from sftdemo.log import to_log
from sftdemo.model import download
from sftdemo.schema import Summary
from sftdemo.system import distributed, malloc
from sftdemo.training.prepare import Prepared
from sftdemo.training.signals import Interruption

if TYPE_CHECKING:
    import torch


Progress = Callable[[dict[str, Any]], None]
LOST = Text("Another process of this training has ended; the end of its log says why.")


def train(
    config: TrainConfig,
    run: runs.Run | None = None,
    progress: Progress | None = None,
    report: download.Report = to_log,
) -> Summary:
    """Fine-tune and return the `train` command's JSON. Without `run` a folder is made once the data proved good.

    Interrupted by a signal or by `Run.ask_to_stop`, it keeps what was learned and reports status "stopped".
    Raises UserError for what the user can mend; a run that exists then says "failed" with the reason.
    """
    malloc.limit_onednn_cache()
    interruption = Interruption()
    with interruption.caught():
        try:
            if not distributed.is_rank_zero():
                progress, report = None, download.silent
            precision = _meet(config, report) if distributed.count() > 1 else None
            if run and distributed.is_rank_zero():
                run.write_status("running", step=0, total=0, phase="preparing")
            prepared = distributed.agree(lambda: Prepared(config, report, precision))
            report(f"Compute dtype: {prepared.precision}.")
            run = runs.Run(distributed.from_rank_zero(lambda: _folder(prepared, run)))
            distributed.from_rank_zero(lambda: _write_data(prepared, run))
            prepared.dataset.splits.clear()  # on disk now; token ids are all that training needs
            _warm(prepared)
            from sftdemo.training.trainer import fit

            summary = fit(prepared, run, interruption, progress, report)
            distributed.leave()
            return summary
        except BaseException as error:
            if run and distributed.is_rank_zero():
                _note_failure(run, error, report)
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise UserError(
                    "The disk under {folder} is full; make room and train again.", folder=_place(error)
                ) from error
            if distributed.lost(error):
                raise UserError(LOST) from error
            raise
        finally:
            malloc.give_back()


def _warm(prepared: Prepared) -> None:
    """Fetch the memory that a step's activations will take while libraries and weights are loaded."""
    from sftdemo.model import memory_estimate
    from sftdemo.system import compute

    if compute.device().type == "cpu":
        slack = memory_estimate.heap_slack(prepared.config, prepared.dtype.itemsize)
        malloc.warm_heap(round(prepared.memory.activations / slack))


def _meet(config: TrainConfig, report: download.Report) -> tuple[torch.dtype, str]:
    """Find the other processes; the first on each machine fetches the model for all there, and the first of all says what
    all compute in: it is found by timing, and each by itself might find another."""
    from sftdemo.system import compute

    distributed.join(cpu=compute.device().type == "cpu")
    distributed.agree(lambda: download.find(config.model, report) if distributed.is_first_here() else None)
    return distributed.from_rank_zero(lambda: compute.training_precision(config.check().precision))


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


def _note_failure(run: runs.Run, error: BaseException, report: download.Report) -> None:
    """Leave the reason in status.json; a full disk may refuse even that, and then the process' end tells."""
    if isinstance(error, KeyboardInterrupt):
        state, text = "stopped", Text("Stopped before the first step; nothing was learned.")
    elif isinstance(error, UserError):
        state, text = "failed", error.text
    elif distributed.lost(error):
        state, text = "failed", LOST
    else:
        state, text = "failed", unexpected(error)
    try:
        run.write_status(state, error=text)
    except OSError as full:
        report(f"The run's status could not be written: {full}.")
