"""Loading runs to talk to: a base and its tuned models side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sftdemo import runs
from sftdemo.config import TrainConfig
from sftdemo.errors import Text, UserError
from sftdemo.inference import grouped_attention
from sftdemo.inference.adapters import route_adapters, stack, store_by_input
from sftdemo.inference.fair_lock import FairLock
from sftdemo.inference.request import Side
from sftdemo.inference.side_by_side import SideBySide
from sftdemo.log import TO_LOG, Reporter
from sftdemo.model import download, last_layer, memory_estimate
from sftdemo.model.adapter_routing import AdapterRouting
from sftdemo.model.loading import add_adapter, load_base, tokenizer, weights_bytes
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


def load_sides(chosen: Sequence[runs.Run], reporter: Reporter = TO_LOG) -> list[Side]:
    """The weights of runs of one base, as sides named "base" and by the runs' folders."""
    set_threads()
    malloc.keep_freed_heap()
    first = chosen[0]
    settings = TrainConfig.from_json(first.trained_config()["settings"])
    base_path = base_folder(first, reporter)
    reporter.stage("loading", 0, weights_bytes(base_path))
    dtype = answering_precision()
    _check_memory(base_path, first, settings)
    if settings.method == "lora":
        model, rows = _with_adapters(base_path, chosen, dtype, settings.quantization)
        return [answering(model, ("base", *(str(run.path) for run in chosen)), rows)]
    paths = {"base": base_path, str(first.path): first.model_path}
    return [answering(load_base(path, dtype), (name,)) for name, path in paths.items()]


def base_folder(run: runs.Run, reporter: Reporter = TO_LOG) -> Path:
    """The folder of the run's base model, fetched again where it no longer lies where the training found it."""
    config = run.trained_config()
    path = Path(config["base_model"])
    return path if (path / "config.json").is_file() else download.find(config["settings"]["model"], reporter)[0]


def check_memory(chosen: Sequence[runs.Run]) -> None:
    """Raise UserError where there is no memory for these runs of one base; nothing is said of a base yet to be downloaded."""
    config = chosen[0].trained_config()
    if (Path(config["base_model"]) / "config.json").is_file():
        _check_memory(Path(config["base_model"]), chosen[0], TrainConfig.from_json(config["settings"]))


def _check_memory(base_path: Path, run: runs.Run, settings: TrainConfig) -> None:
    # Adapters stand beside one copy of the weights, a run with full weights beside another.
    copies = [base_path] if settings.method == "lora" else [base_path, run.model_path]
    memory_estimate.check_loading(copies, answering_precision().itemsize, settings.quantization)


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
    return SideBySide(tokenizer(path), named, stops, name, tuple(shown.values()), lock or FairLock())


def answering(model: PreTrainedModel, names: tuple[str, ...], rows: AdapterRouting | None = None) -> Side:
    """A loaded model under these names, made fast at answering; with adapters by row under one for each and the base's."""
    model.eval()
    grouped_attention.group(model)
    if rows:
        stack(model)
    if device().type == "cpu":
        store_by_input(model)
    return Side(model, names, rows, last_layer.enable(model, rows))


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
    if len(chosen) == 1:
        return
    if len(chosen) > MOST_RUNS or len({run.name for run in chosen}) < len(chosen):
        names = [run.name for run in chosen]
        raise UserError("{names}: give at most {most} runs, each once.", names=names, most=MOST_RUNS)
    for run in chosen:
        if run.config().get("settings", {}).get("method") != "lora":
            raise UserError(
                "Run {name} has full weights; only LoRA runs answer together, talk to it alone.", name=run.name
            )
        if not runs.same_base(chosen[0], run):
            raise UserError(
                "Runs {name} and {other} have different bases; talk to them one at a time.",
                name=chosen[0].name,
                other=run.name,
            )
