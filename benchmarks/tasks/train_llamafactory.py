"""Train with LLaMA-Factory through the entry point of its command line, with the settings of its LoRA example."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import sys
from pathlib import Path

import torch

try:
    import torchaudio  # type: ignore[import-not-found, unused-ignore] # noqa: F401
except (ImportError, OSError):
    # Its package is built for CUDA and doesn't load beside a CPU build of torch; LLaMA-Factory imports it for audio only.
    blank = importlib.machinery.ModuleSpec("torchaudio", None)
    sys.modules["torchaudio"] = importlib.util.module_from_spec(blank)

from llamafactory.train.tuner import run_exp  # type: ignore[import-not-found, unused-ignore]

from benchmarks.tasks.clock import Clock

spec = json.loads(sys.argv[1])
folder = Path(spec["out"])
folder.mkdir(parents=True, exist_ok=True)
lines = Path(spec["rows"]).read_text(encoding="utf-8").splitlines()
rows = [{"messages": json.loads(line)["messages"]} for line in lines]
(folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
rows_entry = {
    "file_name": "rows.json",
    "formatting": "sharegpt",
    "columns": {"messages": "messages"},
    "tags": tags | {"system_tag": "system"},
}
(folder / "dataset_info.json").write_text(json.dumps({"rows": rows_entry}), encoding="utf-8")
clock = Clock()
settings = {
    "model_name_or_path": spec["model"],
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "lora",
    "lora_rank": 16,
    "lora_alpha": 32,
    "lora_target": "all",
    "dataset_dir": str(folder),
    "dataset": "rows",
    "template": "smollm2",
    "cutoff_len": 1024,
    "output_dir": str(folder / "model"),
    "per_device_train_batch_size": spec["batch_size"],
    "gradient_accumulation_steps": 1,
    "learning_rate": spec["learning_rate"],
    "num_train_epochs": 1,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "bf16": spec["dtype"] == "bfloat16",
    "use_cpu": not torch.cuda.is_available(),
    "seed": spec["seed"],
}
run_exp(args=settings, callbacks=[clock])
print("RESULT", json.dumps(clock.result()))
