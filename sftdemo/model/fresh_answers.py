"""What an exported model answers in a process of its own: `python -m sftdemo.model.fresh_answers`, a question on stdin.

The question is {"runtime", "path", "base", "quantization", "task", "languages": what its tokenizer is told, "prompts":
[[id, …], …], "stop_ids", "decoding" as `greedy` takes it, "max_new_tokens", "texts"};
the reply on stdout is {"answers": [[id, …], …], "prompts_same": how many `texts` became the ids in `prompts`, "seconds":
that the answers took}.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sftdemo.model import fresh_labels


def greedy(
    model: Any, prompts: Iterable[list[int]], stop_ids: list[int], most: int, decoding: dict[str, Any] | None = None
) -> tuple[list[list[int]], list[list[float]]]:
    """Greedy answers by the library's own `generate`, stop token included, and of each token by how much it was ahead.

    `decoding` are the tokens that a sequence-to-sequence model's targets begin and end with.
    """
    import torch
    from transformers import GenerationConfig

    # Without the model's own settings, of which a repetition penalty would count even here.
    model.generation_config = GenerationConfig(**(decoding or {"eos_token_id": stop_ids, "pad_token_id": stop_ids[0]}))
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
        begun = 1 if model.config.is_encoder_decoder else len(prompt)
        answers.append(result.sequences[0, begun:].tolist())
        best = [logits[0].float().topk(2).values for logits in result.logits]
        leads.append([float(first - second) for first, second in best])
    return answers, leads


def by_transformers(question: dict[str, Any]) -> dict[str, Any]:
    """The answers of a folder's weights, of an adapter on its base, or of a GGUF file, by transformers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, GgufConfig

    from sftdemo.model import loading

    path, base = Path(question["path"]), question["base"]
    if base:
        model = loading.load_base(Path(base), torch.float32, question["quantization"], question["task"])
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
        kind = AutoModelForSeq2SeqLM if question["task"] == "seq2seq" else AutoModelForCausalLM
        model = kind.from_pretrained(path, dtype="auto", use_safetensors=True, trust_remote_code=False)
    folder = path.parent if path.suffix == ".gguf" else path
    options = {"gguf_file": path.name} if path.suffix == ".gguf" else {}
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **options)
    for name, language in question["languages"].items():
        setattr(tokenizer, name, language)
    whole = question["task"] == "seq2seq"  # a source comes without its special tokens, a prompt with them
    same = sum(
        tokenizer(text, add_special_tokens=whole, split_special_tokens=whole)["input_ids"] == ids
        for text, ids in zip(question["texts"], question["prompts"], strict=False)
    )
    most, decoding = question["max_new_tokens"], question["decoding"]
    began = time.perf_counter()
    answers, _ = greedy(model.eval(), question["prompts"], question["stop_ids"], most, decoding)
    return {"answers": answers, "prompts_same": same, "seconds": time.perf_counter() - began}


def by_llama_cpp(question: dict[str, Any]) -> dict[str, Any]:
    """The answers of a GGUF file by llama.cpp itself."""
    import urllib.request

    xllamacpp: Any = importlib.import_module("xllamacpp")  # not among the requirements

    params = xllamacpp.CommonParams()
    params.model.path = question["path"]
    longest = max(map(len, question["prompts"])) + question["max_new_tokens"]
    params.n_ctx, params.n_parallel, params.n_gpu_layers, params.warmup = longest + 64, 1, 0, False
    server = xllamacpp.Server(params)

    def post(path: str, value: dict[str, Any]) -> list[int]:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{server.listening_address}/{path}", json.dumps(value).encode(), headers)
        with urllib.request.urlopen(request) as reply:
            tokens: list[int] = json.load(reply)["tokens"]
        return tokens

    def ask(prompt: list[int]) -> list[int]:
        request = {"prompt": prompt, "n_predict": question["max_new_tokens"], "temperature": 0, "cache_prompt": False}
        # Its other lists of tokens leave out those that are a part of a character.
        return post("completion", {**request, "return_tokens": True})

    def tokenize(text: str) -> list[int]:
        return post("tokenize", {"content": text, "add_special": False, "parse_special": True})

    same = sum(tokenize(text) == ids for text, ids in zip(question["texts"], question["prompts"], strict=False))
    began = time.perf_counter()
    answers = [ask(prompt) for prompt in question["prompts"]]
    return {"answers": answers, "prompts_same": same, "seconds": time.perf_counter() - began}


RUNTIMES = {"transformers": by_transformers, "llama.cpp": by_llama_cpp, fresh_labels.RUNTIME: fresh_labels.by_pipeline}

if __name__ == "__main__":
    question = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        reply = RUNTIMES[question["runtime"]](question)
    json.dump(reply, sys.stdout)
