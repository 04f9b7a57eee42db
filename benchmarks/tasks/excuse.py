"""Whether answers that differ do so only after a tie: the plain model's two top logits within 1e-4, and we took the other."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftdemo import runs

TIE = 1e-4


def is_tie(model: Any, tokenizer: Any, prompt: list[Any], plain: list[int], ours: str) -> bool:
    """`plain` are generate's tokens, `ours` is our text."""
    start = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
    logits = model(input_ids=torch.tensor([start + plain])).logits[0, len(start) - 1 : -1].float()
    values, tokens = logits.topk(2, -1)

    def text(ids: list[int]) -> str:
        decoded = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(decoded).lstrip().rstrip("\ufffd")

    for position in range(len(plain)):
        if not ours.lstrip().startswith(text(plain[:position])):
            return False  # the answers had parted before, and not at a tie
        gap = (values[position, 0] - values[position, 1]).item()
        other = next(token for token in tokens[position].tolist() if token != plain[position])
        ended = other == tokenizer.eos_token_id and ours.strip() == text(plain[:position]).strip()
        goes_on = other != tokenizer.eos_token_id and ours.lstrip().startswith(text([*plain[:position], other]))
        if gap < TIE and (ended or goes_on):
            return True
    return False


def main(spec: dict[str, Any]) -> dict[str, Any]:
    run = runs.find(spec["run"])
    tokenizer = AutoTokenizer.from_pretrained(run.model_path, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(
        Path(run.config()["base_model"]), dtype=torch.float32, trust_remote_code=False
    ).eval()
    ties = 0
    with torch.inference_mode():
        for side in ("base", "tuned"):
            if side == "tuned":
                from peft import PeftModel

                model = PeftModel.from_pretrained(model, str(run.model_path), trust_remote_code=False).eval()
            ties += sum(
                is_tie(model, tokenizer, case["prompt"], case["plain"], case["ours"])
                for case in spec["cases"]
                if case["side"] == side
            )
    return {"ties": ties}


if __name__ == "__main__":
    print("RESULT", json.dumps(main(json.loads(sys.argv[1]))))
