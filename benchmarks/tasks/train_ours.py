"""Train with sftdemo through its Python call, and count the arithmetic that this training can't do without."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from torch import nn

import sftdemo
from benchmarks.tasks.neighbours import neighbours
from sftdemo import runs
from sftdemo.encoding import encode
from sftdemo.model import download, loading
from sftdemo.system import compute, resources


def needed_flops(config: sftdemo.TrainConfig, train: list[Any]) -> dict[str, Any]:
    """Products of one LoRA epoch: 4 N a token computed (forward, and back to the inputs; frozen weights need no gradient),
    6 n for the n LoRA weights, 4 V H a learned token in the head. Attention's own products, small for short rows, are left
    out. Tokens computed: what all rows of a batch begin with counts once a batch, and a row ends before its last learned
    token, as we compute it.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    path, _ = download.find(config.model)
    words = loading.tokenizer(path)
    rows = [encode.encode(words, example["messages"]) for example in train]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(path, trust_remote_code=False), trust_remote_code=False
        )
    head = model.get_output_embeddings()
    linear = [module for module in model.modules() if isinstance(module, nn.Linear) and module is not head]
    weights = sum(module.weight.numel() for module in linear)
    added = config.lora_r * sum(module.in_features + module.out_features for module in linear)
    first, last = min(row.ids for row in rows), max(row.ids for row in rows)
    differ = [one != other for one, other in zip(first, last, strict=False)]
    prefix = min(differ.index(True) if True in differ else len(differ), *(row.prompt_length - 1 for row in rows))
    tokens = sum(len(row.ids) for row in rows)
    batches = -(-len(rows) // config.batch_size)
    computed = sum(len(row.inputs) for row in rows) - prefix * (len(rows) - batches)
    learned = sum(sum(row.supervised) for row in rows)
    flops = computed * (4 * weights + 6 * added) + learned * 4 * head.weight.numel()
    return {"row_tokens": tokens, "computed_tokens": computed, "learned_tokens": learned, "needed_flops": flops}


def main(spec: dict[str, Any]) -> dict[str, Any]:
    config = sftdemo.TrainConfig(**spec["settings"])
    with neighbours(spec.get("neighbours", 0)):
        summary = sftdemo.train(config)
    found = summary | {
        "peak_bytes": resources.resident_peak(),
        "precision": str(compute.training_precision(config.precision)[0]),
    }
    if spec.get("count"):
        found |= needed_flops(config, runs.find(summary["run"]).examples("train"))
    return found


if __name__ == "__main__":
    print("RESULT", json.dumps(main(json.loads(sys.argv[1]))))
