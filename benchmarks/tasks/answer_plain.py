"""Answer prompts as transformers' documentation shows: one `generate` a prompt, by the base, then by PEFT's tuned model."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftdemo import runs
from sftdemo.system import compute


def answers(model: Any, tokenizer: Any, spec: dict[str, Any]) -> dict[str, Any]:
    """{"seconds", "tokens": how many in all, "ids": each answer's tokens, its end included, "texts"}."""
    device = compute.device()

    def generate(prompt: list[Any], most: int) -> list[int]:
        inputs = tokenizer.apply_chat_template(
            prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(device)
        out = model.generate(**inputs, max_new_tokens=most, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        return out[0, inputs["input_ids"].shape[1] :].tolist()  # type: ignore[no-any-return]

    generate(spec["prompts"][0], 4)  # warm
    began = time.perf_counter()
    ids = [generate(prompt, spec["max_new_tokens"]) for prompt in spec["prompts"]]
    seconds = time.perf_counter() - began
    texts = [tokenizer.decode(answer, skip_special_tokens=True, clean_up_tokenization_spaces=False) for answer in ids]
    return {"seconds": seconds, "tokens": sum(map(len, ids)), "ids": ids, "texts": texts}


def main(spec: dict[str, Any]) -> dict[str, Any]:
    run = runs.find(spec["run"])
    base = Path(run.config()["base_model"])
    tokenizer = AutoTokenizer.from_pretrained(run.model_path, trust_remote_code=False)
    model = (
        AutoModelForCausalLM.from_pretrained(base, dtype=compute.answering_precision(), trust_remote_code=False)
        .to(compute.device())
        .eval()
    )
    if spec["to_the_limit"]:
        model.generation_config.eos_token_id = None  # every answer is as long as any other
    with torch.inference_mode():
        found = {"base": answers(model, tokenizer, spec)}
        if "tuned" in spec["sides"]:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(run.model_path), trust_remote_code=False).eval()
            found["tuned"] = answers(model, tokenizer, spec)
    return found


if __name__ == "__main__":
    print("RESULT", json.dumps(main(json.loads(sys.argv[1]))))
