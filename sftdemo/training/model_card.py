"""The model card of a run: what was trained on what, how, and what came out."""

from __future__ import annotations

from sftdemo.runs import Run
from sftdemo.schema import Summary


def model_card(run: Run, summary: Summary) -> str:
    """README.md of a run folder, with the front matter of a model on the Hub."""
    config = run.config()
    settings, data = config["settings"], config["data"]
    sizes = ", ".join(f"{count} {split}" for split, count in data["sizes"].items())
    versions = ", ".join(f"{name} {version}" for name, version in config["versions"].items())
    loss = ""
    if summary["eval_loss"] is not None:
        loss = f"Validation loss {summary['first_eval_loss']:.3f} → {summary['eval_loss']:.3f}. "
    targets = f" LoRA on the layers {', '.join(names)}." if (names := summary["lora_targets"]) else ""
    quantization = "" if settings["quantization"] == "none" else f", base weights in {settings['quantization']}"
    return f"""---
base_model: {settings["model"]}
library_name: {"peft" if settings["method"] == "lora" else "transformers"}
tags: [sft, {settings["method"]}]
---

# {run.name}

{settings["model"]} ({config["model_source"]}), fine-tuned by sftdemo: method {settings["method"]}{quantization}.

- **Data**: {data["source"]} ({data["task"]}), {sizes} rows; SHA-256 `{data["sha256"]}`.
- **Training**: {summary["steps"]} steps, {summary["seconds"]:.0f} s, {summary["tokens_per_s"]:.0f} tokens/s, \
{summary["status"]}. {loss}Loss only on the assistant's tokens and their end of turn.{targets}
- **Settings**: every one is in `config.json`, seed {settings["seed"]} included.
- **Libraries**: {versions}.

`python -m sftdemo evaluate {run.name}` measures it against its base; `model/` is all that is needed to load it.
"""
