"""Loading runs to talk to: a base and its tuned models side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sftdemo import runs
from sftdemo.config import kinds
from sftdemo.config.train import TrainConfig
from sftdemo.decode import kernels
from sftdemo.decode.compiled import CompiledStep
from sftdemo.errors import Text, UserError
from sftdemo.inference import grouped_attention, step_trial
from sftdemo.inference.adapters import route_adapters, stack, store_by_input
from sftdemo.inference.fair_lock import FairLock
from sftdemo.inference.request import Side
from sftdemo.inference.seq2seq import Seq2SeqSides
from sftdemo.inference.side_by_side import SideBySide
from sftdemo.log import TO_LOG, Reporter
from sftdemo.model import download, last_layer, memory_estimate, saved_modules, seq2seq
from sftdemo.model.adapter_routing import AdapterRouting
from sftdemo.model.loading import add_adapter, load_base, tokenizer_for, weights_bytes
from sftdemo.system import malloc
from sftdemo.system.compute import answering_precision, device, set_threads

if TYPE_CHECKING:
    from transformers import PreTrainedModel


MOST_RUNS = 3  # that answer beside their base in one batch


def load(run: str | runs.Run | Sequence[str | runs.Run], reporter: Reporter = TO_LOG) -> SideBySide:
    """The base and the tuned model of a run, ready to answer side by side; or a base and up to three runs of it.

    The sides are "base" and "tuned", or "base" and the runs' names. LoRA runs share one copy of the weights; a run with
    full weights needs two, and memory is checked first.
    """
    names_or_runs = [run] if isinstance(run, str | runs.Run) else list(run)
    chosen = [runs.find(each) if isinstance(each, str) else each for each in names_or_runs]
    check_together(chosen)
    return side_by_side(load_sides(chosen, reporter), chosen)


def load_sides(chosen: Sequence[runs.Run], reporter: Reporter = TO_LOG, deferred: bool = False) -> list[Side]:
    """The weights of runs of one base, as sides named "base" and by the runs' folders; their compiled step may be deferred."""
    set_threads()
    if device().type == "cpu" and not deferred:
        kernels.begin()  # meanwhile the weights are loaded
    malloc.keep_freed_heap()
    first = chosen[0]
    settings = TrainConfig.from_json(first.trained_config()["settings"])
    base_path = base_folder(first, reporter)
    reporter.stage("loading", 0, weights_bytes(base_path))
    dtype = answering_precision()
    _check_memory(base_path, first, settings)
    if settings.task == "seq2seq":
        return _pair_sides(base_path, chosen, dtype, settings)
    if first.has_adapter:
        model, rows = _with_adapters(base_path, chosen, dtype, settings.quantization)
        names = tuple(str(run.path) for run in chosen)
        if saved_modules.shares_base(first):
            return [answering(model, ("base", *names), rows, deferred)]
        base = load_base(base_path, dtype, settings.quantization)
        return [answering(base, ("base",), None, deferred), answering(model, names, rows, deferred)]
    paths = {"base": base_path, str(first.path): first.model_path}
    return [answering(load_base(path, dtype), (name,), None, deferred) for name, path in paths.items()]


def _pair_sides(base_path: Path, chosen: Sequence[runs.Run], dtype: torch.dtype, settings: TrainConfig) -> list[Side]:
    """The sides of sequence-to-sequence runs: one copy of the weights with each run's adapter, or two models."""
    names = ("base", *(str(run.path) for run in chosen))
    words = tokenizer_for(settings, base_path, chosen[0].model_path)
    if settings.method == "lora":
        model: Any = load_base(base_path, dtype, settings.quantization, settings.task)
        seq2seq.complete_config(model, words)
        for number, run in enumerate(chosen):
            model = add_adapter(model, run.model_path, str(number))
        models = {names: model}
    else:
        paths = (base_path, chosen[0].model_path)
        models = {(name,): load_base(path, dtype, task=settings.task) for name, path in zip(names, paths, strict=True)}
        for model in models.values():
            seq2seq.complete_config(model, words)
    return [Side(model.eval(), names) for names, model in models.items()]


def base_folder(run: runs.Run, reporter: Reporter = TO_LOG) -> Path:
    """The folder of the run's base model, fetched again where it no longer lies where the training found it."""
    config = run.trained_config()
    path = Path(config["base_model"])
    return (
        path
        if (path / "config.json").is_file()
        else download.find(config["settings"]["model"], reporter, config["settings"].get("task", "chat"))[0]
    )


def weight_bytes(run: runs.Run) -> dict[str, int]:
    """How large "base" and "tuned" are with 16 bits a number where they aren't quantized; LoRA counts as merged, but beside a
    quantized base."""
    settings = TrainConfig.from_json(run.trained_config()["settings"])
    quantization = settings.quantization if run.has_adapter else "none"
    base = memory_estimate.Model.read(base_folder(run)).weights(2, quantization)
    tuned = base
    if settings.method == "frozen":  # beside a head of no weight; its base only counts labels
        return {"base": 0, "tuned": tuned}
    if not run.has_adapter:
        tuned = memory_estimate.Model.read(run.model_path).weights(2)
    elif quantization != "none":
        tuned += 2 * memory_estimate.parameters(run.model_path)
    return {"base": base, "tuned": tuned}


def version(run: runs.Run) -> str:
    """A run's name for as long as its config and its model stay as they are; a training that is resumed changes the latter."""
    with run.reading("config.json"):
        stamps = [(run.path / "config.json").stat().st_mtime_ns]
    with run.reading("model"):
        stamps += [file.stat().st_mtime_ns for file in sorted(run.model_path.glob("*"))]
    return f"{run.path}@{'.'.join(map(str, stamps))}"


def check_memory(chosen: Sequence[runs.Run]) -> None:
    """Raise UserError where there is no memory for these runs of one base; nothing is said of a base yet to be downloaded."""
    config = chosen[0].trained_config()
    if (Path(config["base_model"]) / "config.json").is_file():
        _check_memory(Path(config["base_model"]), chosen[0], TrainConfig.from_json(config["settings"]))


def _check_memory(base_path: Path, run: runs.Run, settings: TrainConfig) -> None:
    # Adapters stand beside one copy of the weights, other runs beside another.
    copies = (
        [base_path] if saved_modules.shares_base(run) else [base_path, base_path if run.has_adapter else run.model_path]
    )
    memory_estimate.check_loading(
        copies, answering_precision().itemsize, settings.quantization if run.has_adapter else "none"
    )


def shown_names(chosen: Sequence[runs.Run]) -> dict[str, str]:
    """What the sides of `load_sides` are called when these runs answer: "tuned", or several by their names."""
    tuned = ["tuned"] if len(chosen) == 1 else [run.name for run in chosen]
    return {"base": "base"} | dict(zip((str(run.path) for run in chosen), tuned, strict=True))


def side_by_side(sides: Sequence[Side], chosen: Sequence[runs.Run], lock: FairLock | None = None) -> SideBySide:
    """The base and these runs of it, of all that the sides hold, with the first run's tokenizer."""
    from transformers import GenerationConfig

    shown = shown_names(chosen)
    named = [replace(side, names=tuple(shown.get(name, name) for name in side.names)) for side in sides]
    path = chosen[0].model_path
    name = " ".join(run.name for run in chosen)
    stops = GenerationConfig.from_pretrained(path, trust_remote_code=False)
    settings = TrainConfig.from_json(chosen[0].trained_config()["settings"])
    kind = Seq2SeqSides if settings.task == "seq2seq" else SideBySide
    words = tokenizer_for(settings, base_folder(chosen[0]), path)
    return kind(words, named, stops, name, tuple(shown.values()), lock or FairLock())


def answering(
    model: PreTrainedModel, names: tuple[str, ...], rows: AdapterRouting | None = None, deferred: bool = False
) -> Side:
    """A loaded model under these names, made fast at answering; with adapters by row under one for each and the base's."""
    model.eval()
    grouped_attention.group(model)
    if rows:
        stack(model)
    if device().type == "cpu":
        store_by_input(model)
    last = last_layer.enable(model, rows)
    if device().type != "cpu":
        return Side(model, names, rows, last)
    compiled = CompiledStep(model, len(rows.chosen) if rows else 0, deferred)
    side = Side(model, names, rows, last, compiled)
    compiled.trial = partial(step_trial.pairs, side)
    compiled.ready()  # now rather than before the first answer
    return side


def _with_adapters(
    path: Path, chosen: Sequence[runs.Run], dtype: torch.dtype, quantization: str
) -> tuple[PreTrainedModel, AdapterRouting]:
    model: Any = load_base(path, dtype, quantization)
    for number, run in enumerate(chosen):
        model = add_adapter(model, run.model_path, str(number))
    rows = route_adapters(model, [str(number) for number in range(len(chosen))], dtype)
    return model.get_base_model(), rows


def check_together(chosen: Sequence[runs.Run]) -> None:
    """Each run needs a model; several answer in one batch if they are different LoRA runs of one base."""
    for run in chosen:
        if not run.model_path.is_dir():
            raise UserError(
                "Run {name} has no model to talk to ({state}); finish a training first.",
                name=run.name,
                state=Text(run.state),
            )
    if other := next((run for run in chosen if run.kind in kinds.LABELLING), None):
        raise UserError(
            "Run {name} is of the kind {kind}, which isn't talked to in turns; evaluate it, or choose a run of the kind chat.",
            name=other.name,
            kind=Text(other.kind),
        )
    if len(chosen) == 1:
        return
    if len(chosen) > MOST_RUNS or len({run.name for run in chosen}) < len(chosen):
        names = [run.name for run in chosen]
        raise UserError("{names}: give at most {most} runs, each once.", names=names, most=MOST_RUNS)
    for run in chosen:
        if not run.has_adapter:
            raise UserError(
                "Run {name} has full weights; only LoRA runs answer together, talk to it alone.", name=run.name
            )
        if not saved_modules.shares_base(run):
            raise UserError(
                "Run {name} has embeddings or a head of its own, and such runs answer alone; talk to it by itself.",
                name=run.name,
            )
        if not runs.same_base(chosen[0], run):
            raise UserError(
                "Runs {name} and {other} have different bases; talk to them one at a time.",
                name=chosen[0].name,
                other=run.name,
            )
