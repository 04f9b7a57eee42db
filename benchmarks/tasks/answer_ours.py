"""Answer prompts with base and tuned model of a run: streamed one by one as in the chat, or batched as in evaluation."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import sftdemo
from benchmarks.tasks.neighbours import neighbours
from sftdemo.decode import kernels
from sftdemo.evaluation.scorecard import SIDES


def main(spec: dict[str, Any]) -> dict[str, Any]:
    with neighbours(spec.get("neighbours", 0)):
        return answered(spec)


def answered(spec: dict[str, Any]) -> dict[str, Any]:
    pair = sftdemo.load(spec["run"])
    kernels.wait()  # the step is compiled once, before the first answer that is timed
    config = sftdemo.GenerateConfig(max_new_tokens=spec["max_new_tokens"])
    prompts = spec["prompts"]
    for _ in pair.stream(prompts[0], sftdemo.GenerateConfig(max_new_tokens=4)):
        pass  # warm
    if spec["to_the_limit"]:
        pair.stop_ids = frozenset()  # every answer is as long as any other
    tokens = dict.fromkeys(SIDES, 0)
    began = time.perf_counter()
    if spec["streamed"]:
        texts = []
        for prompt in prompts:
            answer = dict.fromkeys(SIDES, "")
            counts = dict.fromkeys(SIDES, 0)
            for chunk in pair.stream(prompt, config):
                answer[chunk.side] += chunk.text
                counts[chunk.side] = chunk.tokens
            texts.append(answer)
            tokens = {side: tokens[side] + counts[side] for side in SIDES}
    else:
        texts = pair.complete(prompts, config)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "texts": texts} | ({"tokens": tokens} if spec["streamed"] else {})


if __name__ == "__main__":
    print("RESULT", json.dumps(main(json.loads(sys.argv[1]))))
