"""What an exported model answers in a process of its own: `python -m sftdemo.model.fresh_answers`, a question on stdin.

The question is {"runtime", "path", "base", "quantization", "prompts": [[id, …], …], "stop_ids", "max_new_tokens", "texts"};
the reply on stdout is {"answers": [[id, …], …], "prompts_same": how many `texts` became the ids in `prompts`}.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from pathlib import Path
from typing import Any


def greedy(
    model: Any, prompts: list[list[int]], stop_ids: list[int], most: int
) -> tuple[list[list[int]], list[list[float]]]:
    """Greedy answers by the library's own `generate`, stop token included, and of each token by how much it was ahead."""
    import torch
    from transformers import GenerationConfig

    # Without the model's own settings, of which a repetition penalty would count even here.
    model.generation_config = GenerationConfig(eos_token_id=stop_ids, pad_token_id=stop_ids[0])
    answers, leads = [], []
    for prompt in prompts:
        ids = torch.tensor([prompt], device=model.device)
        with torch.no_grad():
            result = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=most,
                return_dict_in_generate=True,
                output_logits=True,
            )
        answers.append(result.sequences[0, len(prompt) :].tolist())
        best = [logits[0].float().topk(2).values for logits in result.logits]
        leads.append([float(first - second) for first, second in best])
    return answers, leads


def by_transformers(question: dict[str, Any]) -> dict[str, Any]:
    """The answers of a folder's weights, of an adapter on its base, or of a GGUF file, by transformers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from sftdemo.model import loading

    path, base = Path(question["path"]), question["base"]
    if base:
        model = loading.load_base(Path(base), torch.float32, question["quantization"])
        model = loading.add_adapter(model, path)
    elif path.suffix == ".gguf":
        model = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
            trust_remote_code=False,
        )
    else:
        model = AutoModelForCausalLM.from_pretrained(path, dtype="auto", use_safetensors=True, trust_remote_code=False)
    folder = path.parent if path.suffix == ".gguf" else path
    options = {"gguf_file": path.name} if path.suffix == ".gguf" else {}
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **options)
    same = sum(
        tokenizer(text, add_special_tokens=False)["input_ids"] == ids
        for text, ids in zip(question["texts"], question["prompts"], strict=True)
    )
    answers, _ = greedy(model.eval(), question["prompts"], question["stop_ids"], question["max_new_tokens"])
    return {"answers": answers, "prompts_same": same}


def by_llama_cpp(question: dict[str, Any]) -> dict[str, Any]:
    """The answers of a GGUF file by llama.cpp itself."""
    import urllib.request

    xllamacpp: Any = importlib.import_module("xllamacpp")  # not among the requirements

    params = xllamacpp.CommonParams()
    params.model.path = question["path"]
    longest = max(map(len, question["prompts"])) + question["max_new_tokens"]
    params.n_ctx, params.n_parallel, params.n_gpu_layers, params.warmup = longest + 64, 1, 0, False
    server = xllamacpp.Server(params)

    def ask(prompt: list[int]) -> list[int]:
        asked = {
            "prompt": prompt,
            "max_tokens": question["max_new_tokens"],
            "temperature": 0,
            "logprobs": 1,  # each token's id comes with its probability
            "cache_prompt": False,
        }
        [choice] = server.handle_completions(asked)["choices"]
        return [token["id"] for token in choice["logprobs"]["content"]]

    def tokenize(text: str) -> list[int]:
        data = json.dumps({"content": text, "add_special": False, "parse_special": True}).encode()
        request = urllib.request.Request(
            f"{server.listening_address}/tokenize", data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            tokens: list[int] = json.load(reply)["tokens"]
        return tokens

    same = sum(tokenize(text) == ids for text, ids in zip(question["texts"], question["prompts"], strict=True))
    return {"answers": [ask(prompt) for prompt in question["prompts"]], "prompts_same": same}


RUNTIMES = {"transformers": by_transformers, "llama.cpp": by_llama_cpp}

if __name__ == "__main__":
    asked = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        replied = RUNTIMES[asked["runtime"]](asked)
    json.dump(replied, sys.stdout)
