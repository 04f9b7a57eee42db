"""A run's model as one model of plain float32 weights, for what takes no adapter: exports, quantization, students."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sftdemo.inference.load_run import base_folder
from sftdemo.log import TO_LOG, Reporter
from sftdemo.model import gguf_export, loading
from sftdemo.runs import Run

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def adapter_base(run: Run, reporter: Reporter = TO_LOG) -> Path | None:
    """The folder of the base whose adapter the run is; None where the run has weights of its own."""
    return base_folder(run, reporter) if run.has_adapter else None


def merged_model(run: Run, base: Path | None) -> PreTrainedModel:
    """The run's model in float32, an adapter merged into its unquantized `base`."""
    model: Any = loading.load_base(base or run.model_path, torch.float32, task=run.kind)
    return loading.add_adapter(model, run.model_path).merge_and_unload() if base else model  # type: ignore[no-any-return]


def save(run: Run, base: Path | None, folder: Path, dtype: str = "float32", shard_mb: int = 5000) -> None:
    """Write it to a folder as safetensors, with tokenizer, template and stop tokens."""
    model: Any = merged_model(run, base)
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=f"{shard_mb}MB")
    loading.tokenizer(run.model_path).save_pretrained(folder)
    shutil.copy(run.model_path / "generation_config.json", folder)


def save_gguf(run: Run, base: Path | None, target: Path, kind: str) -> list[str]:
    """Write it as one GGUF file (f16, q8_0, q4_0); returns the texts of the tokens that end an answer."""
    from transformers import GenerationConfig

    tokenizer = loading.tokenizer(run.model_path)
    stops = GenerationConfig.from_pretrained(run.model_path, trust_remote_code=False).eos_token_id
    stop_ids = sorted(stops if isinstance(stops, list) else [stops], key=lambda token: token != tokenizer.eos_token_id)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".plain-") as plain:
        save(run, base, Path(plain))
        gguf_export.write(Path(plain), target, kind, str(tokenizer.chat_template), stop_ids, run.name)
    return [str(tokenizer.decode([token])) for token in stop_ids]
