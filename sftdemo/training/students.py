"""What a run learns from its teacher: on which rows, and with which of the teacher's layers it begins."""

from __future__ import annotations

import dataclasses
import gc
import random
from typing import TYPE_CHECKING

from sftdemo import data, files, runs
from sftdemo.config.read import ReadConfig
from sftdemo.config.start import DEFAULT_MODEL
from sftdemo.config.train import TrainConfig
from sftdemo.data import edits
from sftdemo.errors import Text, UserError
from sftdemo.log import Reporter
from sftdemo.schema.lineage import StudentConfig
from sftdemo.training import continual, resume
from sftdemo.training.teacher import teacher_of

if TYPE_CHECKING:
    from sftdemo.training.prepare import Prepared

MEASURED_ROWS = 64  # that layers are measured on


def name_hint(config: TrainConfig, data_name: str) -> str:
    """What a run without a name is called after."""
    return f"{config.teacher}-student" if config.teacher else f"{data_name}-{config.method}"


def complete(config: TrainConfig) -> TrainConfig:
    """The settings with those that a student has from its teacher: how its rows were read, and where layers are dropped the
    base. Raises UserError for one that says otherwise than the teacher's."""
    if config.teacher is None:
        return config
    teacher = teacher_of(config.check())
    if not teacher.trained_config()["data"].get("files"):
        raise UserError(
            "Run {name} was imported without its rows, which a student learns on; give a run that has them.",
            name=teacher.name,
        )
    own = TrainConfig.from_json(teacher.trained_config()["settings"])
    shared = {spec.name: spec.default for spec in dataclasses.fields(ReadConfig) if spec.name != "seed"}
    if config.drop_layers:
        shared["model"] = DEFAULT_MODEL
    for name, default in shared.items():
        if getattr(config, name) not in (default, getattr(own, name)):
            raise UserError(
                "{name} is {value!r}, and a student takes its teacher's; leave it out.",
                name=Text(name),
                value=getattr(config, name),
            )
    values = {name: getattr(own, name) for name in shared}
    return dataclasses.replace(config, **values, teacher=teacher.name).check()


def dataset(config: TrainConfig) -> data.Dataset | None:
    """The rows of a student's teacher, `max_examples` of those trained on; None for a run without a teacher."""
    if not config.teacher:
        return None
    teacher = teacher_of(config)
    stored = resume.stored_dataset(teacher)
    if stored is None:
        raise UserError(
            "The files in data/ of run {name} aren't what it was trained on; train it anew.", name=teacher.name
        )
    if config.max_examples is not None:
        stored.splits["train"] = data.take(stored.splits["train"], config.max_examples, config.seed)
    return stored


def keep_edits(teacher: runs.Run, run: runs.Run) -> None:
    """Copy the edits that the teacher's rows were made with; the file that it had them from may be another by now."""
    source = edits.of_run(teacher.path)
    if source.is_file():
        edits.keep(str(source), run.path)


def plan(prepared: Prepared, known: StudentConfig | None, reporter: Reporter) -> StudentConfig:
    """What a student's config.json says of its teacher; `known` is what it says already, where the run goes on.

    Layers are measured on training rows. Raises UserError where the teacher isn't what it was, or has other tokens.
    """
    config, teacher = prepared.config, teacher_of(prepared.config)
    digest = continual.weights_sha256(teacher)
    if known:
        if known["teacher_sha256"] != digest:
            raise UserError(
                "The model of {teacher}, the teacher, isn't what it was when this run began; train anew.",
                teacher=teacher.name,
            )
        return known
    _check_tokens(prepared, teacher)
    before = teacher.config().get("student")
    planned: StudentConfig = {
        "teacher": teacher.name,
        "teacher_sha256": digest,
        "lineage": [*(before["lineage"] if before else []), teacher.name],
    }
    if config.drop_layers:
        planned |= _layers(prepared, teacher, reporter)
    return planned


def _layers(prepared: Prepared, teacher: runs.Run, reporter: Reporter) -> StudentConfig:
    """Which layers stay, and how much each one of the teacher's changes the hidden states."""
    from sftdemo.inference.merged import adapter_base, merged_model
    from sftdemo.model import layer_dropping, memory_estimate

    base = adapter_base(teacher, reporter)
    folder = base or teacher.model_path
    layer_dropping.check(files.read_json(folder / "config.json"), prepared.config.drop_layers, teacher.name)
    memory_estimate.check_loading([folder, folder], 4)
    reporter.info(Text("Measuring the layers of {name} …", name=teacher.name))
    rows = prepared.rows["train"]
    drawn = random.Random(prepared.config.seed).sample(range(len(rows)), min(MEASURED_ROWS, len(rows)))
    model = merged_model(teacher, base)
    influence = layer_dropping.block_influence(model, [rows[place].ids for place in drawn])
    layers = layer_dropping.most_important(influence, prepared.config.drop_layers)
    layer_dropping.with_layers(model, layers)  # whether that can be done is known before anything is written
    del model
    gc.collect()
    reporter.info(
        Text(
            "Layers left out: {layers} of {n}, which change the hidden states least.",
            layers=[place for place in range(len(influence)) if place not in layers],
            n=len(influence),
        )
    )
    return {"layers_kept": layers, "block_influence": [round(value, 6) for value in influence]}  # type: ignore[typeddict-item]


def _check_tokens(prepared: Prepared, teacher: runs.Run) -> None:
    """Teacher and student must mean the same by a token, and be asked in the same words."""
    from sftdemo.model import loading

    own, other = prepared.tokenizer, loading.tokenizer(teacher.model_path)
    if own.get_vocab() != other.get_vocab() or str(own.chat_template) != str(other.chat_template):
        raise UserError(
            "{model} has other tokens or another chat template than run {name}, so it can't learn its probabilities; take a "
            "model of the same family, or leave out teacher.",
            model=prepared.config.model,
            name=teacher.name,
        )
