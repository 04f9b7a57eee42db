"""Answer prompts with llama.cpp twice in turns, as one would compare a base and a tuned model with it.

One context stands for both: the idle threads of a second one would spin and make either four times slower.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import xllamacpp  # type: ignore[import-not-found,import-untyped,unused-ignore]


def server(path: str) -> Any:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = path
    parameters.n_ctx = 2048
    parameters.n_parallel = 1
    parameters.n_gpu_layers = 0
    parameters.cpuparams.n_threads = os.cpu_count() or 1
    return xllamacpp.Server(parameters)


def answer(to: Any, prompt: list[dict[str, str]], tokens: int) -> int:
    """Answer to the limit; how many tokens."""
    asked = {"messages": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
    answers: list[Any] = []
    to.handle_chat_completions(asked, answers.append)
    told = answers[-1] if isinstance(answers[-1], dict) else json.loads(answers[-1])
    return int(told["usage"]["completion_tokens"])


def main(spec: dict[str, Any]) -> dict[str, Any]:
    context = server(spec["path"])
    answer(context, spec["prompts"][0], 4)
    tokens = {"base": 0, "tuned": 0}
    began = time.perf_counter()
    for prompt in spec["prompts"]:
        for side in tokens:
            tokens[side] += answer(context, prompt, spec["max_new_tokens"])
    return {"seconds": time.perf_counter() - began, "tokens": tokens}


if __name__ == "__main__":
    print("RESULT", json.dumps(main(json.loads(sys.argv[1]))), flush=True)
    os._exit(0)  # its servers' threads don't end by themselves
