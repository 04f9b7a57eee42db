"""A run's model as a folder of its own: the adapter as it is, or merged into the base weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from sftdemo import runs
from sftdemo.config import TrainConfig
from sftdemo.errors import Text, UserError
from sftdemo.log import TO_LOG, Reporter
from sftdemo.model import download, loading
from sftdemo.system import resources


def export(run: runs.Run | str, to: Path, merge: bool = False, reporter: Reporter = TO_LOG) -> Path:
    """Copy model/ and the model card to a new folder; with `merge`, plain weights that need no PEFT.

    Merging is done in float32 into unquantized base weights and saved in float32. Refuses a folder with files in it.
    """
    run = runs.find(run) if isinstance(run, str) else run
    config = run.trained_config()
    settings = TrainConfig.from_json(config["settings"])
    if not run.model_path.is_dir():
        raise UserError("Run {name} has no model to export; finish a training first.", name=run.name)
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UserError("{path} is not an empty folder; give a new one.", path=to)
    merge = merge and settings.method == "lora"
    if merge and settings.quantization != "none":
        reporter.info(f"The adapter was trained on {settings.quantization} weights and is merged into the plain ones.")
    base = Path(config["base_model"])
    if merge and not (base / "config.json").is_file():
        base, _ = download.find(settings.model, reporter)
    resources.check_disk(to, loading.weights_bytes(base if merge else run.model_path), Text("The export"))
    if merge:
        model = loading.add_adapter(loading.load_base(base, torch.float32), run.model_path)
        model.merge_and_unload().save_pretrained(to)
        loading.tokenizer(run.model_path).save_pretrained(to)
        shutil.copy(run.model_path / "generation_config.json", to)
    else:
        shutil.copytree(run.model_path, to, dirs_exist_ok=True)
    shutil.copy(run.path / "README.md", to)
    return to
