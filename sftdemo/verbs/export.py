"""A run's model to take away: its adapter, merged weights, or one GGUF file; done only once it was opened again."""

from __future__ import annotations

import contextlib
import errno
import gc
import glob
import json
import os
import secrets
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sftdemo import files, runs
from sftdemo.config import kinds
from sftdemo.config.export import ExportConfig
from sftdemo.config.kinds import CHAT
from sftdemo.config.train import TrainConfig
from sftdemo.errors import Text, UserError
from sftdemo.inference import merged
from sftdemo.inference.load_run import base_folder
from sftdemo.log import TO_LOG, Reporter
from sftdemo.model import gguf_export, loading
from sftdemo.model.frozen_head import FILE as FROZEN_HEAD
from sftdemo.runs.process import process_start
from sftdemo.system import resources
from sftdemo.training.model_card import base_name, write_card
from sftdemo.verbs import encoder_export, export_check

EXACT = "float32"  # only what isn't rounded must give the run's own tokens
SHARE = {"float32": 4, "bfloat16": 2, "float16": 2, "gguf-f16": 2, "gguf-q8_0": 1.1, "gguf-q4_0": 0.7}  # bytes a weight


@dataclass(frozen=True)
class Exported:
    """Where an export lies, as what, and how its answers compare with the run's (None where that wasn't asked for)."""

    path: Path
    format: str
    check: export_check.Agreement | None

    @property
    def sentence(self) -> str:
        return self.check.sentence if self.check else "Its answers were not compared with the run's."

    def to_json(self) -> dict[str, Any]:
        return {"format": self.format, "check": self.check.to_json() if self.check else None}


def export(
    run: runs.Run | str,
    to: Path | str,
    merge: bool = False,
    reporter: Reporter = TO_LOG,
    config: ExportConfig | None = None,
) -> Exported:
    """Write a run's model and its card to a new folder, or with `zip` to a new file; `merge` is format merged.

    Merging is done in float32 into unquantized base weights. Without rounding (adapter, float32) the export must give the
    run's own greedy tokens in a new process; where it rounds, the card says how many are the same. Raises UserError, and
    leaves nothing, where it can't be opened or doesn't; and for a place that is taken. Raises KeyboardInterrupt, and leaves
    nothing, where the reporter says stop.
    """
    run, to = runs.find(run) if isinstance(run, str) else run, Path(to)
    config = (config or ExportConfig()).check()
    settings = TrainConfig.from_json(run.trained_config()["settings"])
    labels, frozen = run.kind in kinds.LABELLING, settings.method == "frozen"
    if not run.model_path.is_dir():
        raise UserError("Run {name} has no model to export; finish a training first.", name=run.name)
    form = _format(run, settings, config, merge)
    if to.exists() and (config.zip or not to.is_dir() or any(to.iterdir())):
        raise UserError("{path} is not an empty folder; give a new one.", path=to)
    base = base_folder(run, reporter) if run.has_adapter or frozen else None
    if base and frozen:
        encoder_export.check_frozen(run, base)
    _check_room(run, base, to, form, config)
    if form.startswith("gguf"):
        gguf_export.check(base or run.model_path)
        if config.verify:
            gguf_export.check_opened_by(base or run.model_path, export_check.runtime_for(form))
    if base and form != "adapter" and settings.quantization != "none":
        reporter.info(
            Text(
                "The adapter was trained on {quantization} weights and is merged into the plain ones.",
                quantization=settings.quantization,
            )
        )
    with _whole(to) as part:
        folder = part / to.stem if config.zip else part
        folder.mkdir(exist_ok=True)
        if form == "adapter":
            _copy_adapter(run, folder)
        write = encoder_export.write if labels else _write
        check = write(run, settings, base, form, config, folder, reporter)
        write_card(run, folder, form, check.sentence if check else "")
        if config.zip:
            _zip(folder, part / "export.zip")
    return Exported(to, form, check)


def _format(run: runs.Run, settings: TrainConfig, config: ExportConfig, merge: bool) -> str:
    form = "merged" if merge and config.format == "auto" else config.format
    if form == "auto":
        return "adapter" if run.has_adapter else "merged"
    if form == "adapter" and not run.has_adapter:
        if settings.task != CHAT:
            raise UserError("Run {name} has no adapter; export it as {format}.", name=run.name, format="merged")
        raise UserError("Run {name} has full weights and no adapter; export it as merged or gguf.", name=run.name)
    if form.startswith("gguf") and settings.task != CHAT:
        raise UserError(
            "Run {name} is of the kind {kind}, and only chat models are written as GGUF; export it as {format}.",
            name=run.name,
            kind=Text(settings.task),
            format="merged",
        )
    return form


def _check_room(run: runs.Run, base: Path | None, to: Path, form: str, config: ExportConfig) -> None:
    weights = loading.weights_bytes(run.model_path if form == "adapter" or base is None else base)
    share = 1 if form == "adapter" else SHARE[config.dtype if form == "merged" else form] / 2
    if form.startswith("gguf"):
        share += 2  # the merged weights lie beside it while it is written
    resources.check_disk(to.absolute(), round(weights * share * (2 if config.zip else 1)), Text("The export"))


def _write(
    run: runs.Run,
    settings: TrainConfig,
    base: Path | None,
    form: str,
    config: ExportConfig,
    folder: Path,
    reporter: Reporter,
) -> export_check.AnswerAgreement | None:
    """Fill the folder and compare; the run's own answers are taken before its model is changed."""
    reference = None
    if config.verify:
        quantization = settings.quantization if base else "none"
        model = loading.load_base(base or run.model_path, torch.float32, quantization, settings.task)
        model = loading.add_adapter(model, run.model_path) if base else model
        reporter.info(Text("Asking the run itself …"))
        reference = export_check.reference(run, model, reporter)
        del model
        gc.collect()
    reporter.raise_if_stopped()
    reporter.info(Text("Writing the export …"))
    path = folder
    if form == "merged":
        merged.save(run, base, folder, config.dtype, config.shard_mb)
    elif form.startswith("gguf"):
        path = _save_gguf(run, base, folder, form)
    reporter.raise_if_stopped()
    if reference is None:
        return None
    runtime = export_check.runtime_for(form)
    if form.startswith("gguf") and runtime != "llama.cpp":
        reporter.info(
            Text("llama.cpp isn't here (pip install xllamacpp), so transformers opens the GGUF file instead.")
        )
    reporter.info(Text("Opening the export in a new process …"))
    adapter_base = base if form == "adapter" else None
    quantization = settings.quantization if adapter_base else "none"
    reply = export_check.ask(reference.question, path, runtime, adapter_base, quantization, reporter.should_stop)
    agreement = reference.compare(reply, runtime)
    _require(agreement, form == "adapter" or (form == "merged" and config.dtype == EXACT), settings.quantization, form)
    reporter.info(agreement.sentence)
    return agreement


def _require(agreement: export_check.AnswerAgreement, unrounded: bool, quantization: str, form: str) -> None:
    """Raise UserError where the answers are not the run's, or with rounding have nothing in common with them."""
    exact = unrounded and (quantization == "none" or form == "adapter")
    if (exact and not agreement.exact) or (agreement.tokens and not agreement.same_tokens):
        raise export_check.answers_otherwise(agreement.same_rows, agreement.rows)


def _copy_adapter(run: runs.Run, folder: Path) -> None:
    shutil.copytree(run.model_path, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(FROZEN_HEAD))
    path = folder / "adapter_config.json"
    adapter = files.read_json(path)
    # Where the base lay on this machine says nothing elsewhere.
    adapter["base_model_name_or_path"] = base_name(run.trained_config())
    files.write_json(path, adapter)


def _save_gguf(run: runs.Run, base: Path | None, folder: Path, form: str) -> Path:
    """One GGUF file and Ollama's Modelfile for it; returns the file."""
    target = folder / f"{form.removeprefix('gguf-')}.gguf"
    stop_texts = merged.save_gguf(run, base, target, form.removeprefix("gguf-"))
    stop_lines = [f"PARAMETER stop {json.dumps(text, ensure_ascii=False)}" for text in stop_texts]
    # Ollama reads the chat template out of the file.
    lines = [f"FROM ./{target.name}", "PARAMETER temperature 0", *stop_lines]
    if system := run.trained_config()["settings"].get("system"):
        lines.append(f"SYSTEM {json.dumps(system, ensure_ascii=False)}")
    files.write_text(folder / "Modelfile", "\n".join([*lines, ""]))
    return target


@contextlib.contextmanager
def _whole(to: Path) -> Iterator[Path]:
    """A hidden folder beside the target that becomes it, or whose export.zip does, when all is written; else it goes."""
    with files.disk_faults():
        to.parent.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(to)
        part = to.parent / f".{to.name}.{os.getpid()}.{secrets.token_hex(4)}.part"
        try:
            part.mkdir()
            yield part
            archive = part / "export.zip"
            try:
                if archive.is_file():
                    os.link(archive, to)  # never over a file that has come meanwhile
                else:
                    part.rename(to)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                    raise
                raise UserError("{path} is not an empty folder; give a new one.", path=to) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _remove_unfinished(to: Path) -> None:
    """Remove what killed processes left of exports to this place; it may be gigabytes."""
    for part in to.parent.glob(f".{glob.escape(to.name)}.*.*.part"):
        pid = part.name.split(".")[-3]
        if pid.isdecimal() and process_start(int(pid)) is None:
            shutil.rmtree(part, ignore_errors=True)


def _zip(folder: Path, target: Path) -> None:
    """Weights don't get smaller by compression, and are stored."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder.parent))
