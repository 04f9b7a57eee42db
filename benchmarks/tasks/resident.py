"""The memory a process holds after answering one prompt: with the base alone, or with both sides."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

import peft  # noqa: F401 (both processes import the same, so that only the weights differ)
import psutil

import sftdemo
from sftdemo import runs
from sftdemo.model import loading
from sftdemo.system import compute

NEW_TOKENS = 16


def main(spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    run = runs.find(spec["run"])
    if spec["sides"] == 2:
        pair = sftdemo.load(run)
        for _ in pair.stream(spec["prompt"], sftdemo.GenerateConfig(max_new_tokens=NEW_TOKENS)):
            pass
    else:
        model = loading.load_base(Path(run.config()["base_model"]), compute.answering_precision()).eval()
        words = loading.tokenizer(run.model_path)
        inputs = words.apply_chat_template(
            spec["prompt"], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        model.generate(**inputs.to(compute.device()), max_new_tokens=NEW_TOKENS, do_sample=False)
        found["weights_bytes"] = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    gc.collect()
    return found | {"resident_bytes": psutil.Process().memory_info().rss}


if __name__ == "__main__":
    print("RESULT", json.dumps(main(json.loads(sys.argv[1]))))
