"""The memory a process holds after answering one prompt: by `generate` with the base, by ours with the base, with both sides."""

from __future__ import annotations

import gc
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft  # noqa: F401 (both processes import the same, so that only the weights differ)
import psutil

import sftdemo
from sftdemo import runs
from sftdemo.decode import kernels
from sftdemo.inference import load_run
from sftdemo.inference.side_by_side import SideBySide
from sftdemo.model import loading
from sftdemo.system import compute, malloc

NEW_TOKENS = 16


def main(spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    run = runs.find(spec["run"])
    if spec["who"] == "generate":
        model = loading.load_base(Path(run.config()["base_model"]), compute.answering_precision()).eval()
        words = loading.tokenizer(run.model_path)
        inputs = words.apply_chat_template(
            spec["prompt"], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        model.generate(**inputs.to(compute.device()), max_new_tokens=NEW_TOKENS, do_sample=False)
    else:
        kernels.wait()  # else who comes first would answer by torch
        pair = sftdemo.load(run) if spec["who"] == "both" else _base_alone(run)
        for _ in pair.stream(spec["prompt"], sftdemo.GenerateConfig(max_new_tokens=NEW_TOKENS)):
            pass
        model = pair.sides[0].model
    found["weights_bytes"] = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    gc.collect()
    return found | {"resident_bytes": psutil.Process().memory_info().rss}


def _base_alone(run: runs.Run) -> SideBySide:
    """What answers as both sides do, without the run's adapter."""
    compute.set_threads()
    malloc.keep_freed_heap()
    base = loading.load_base(Path(run.config()["base_model"]), compute.answering_precision())
    pair = load_run.side_by_side([load_run.answering(base, ("base",))], [run])
    return replace(pair, names=("base",))


if __name__ == "__main__":
    print("RESULT", json.dumps(main(json.loads(sys.argv[1]))))
