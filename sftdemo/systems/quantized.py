"""The run itself in fewer bits: what its answers lose, what it weighs, and how fast it is."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftdemo.config import kinds
from sftdemo.encoding.detokenizer import Answer, without_empty_thoughts
from sftdemo.encoding.encode import encode_prompt
from sftdemo.errors import Text, UserError
from sftdemo.model import fresh_process, gguf_export, memory_estimate
from sftdemo.runs import Run
from sftdemo.system import resources
from sftdemo.systems.one_side import answer_alone
from sftdemo.systems.system import Answers, Task

if TYPE_CHECKING:
    from sftdemo.inference.side_by_side import SideBySide

# What each is called, and what it is for those who load or write it. `merged` has all its bits, and is asked alone as they are.
LOADED = {"merged": "none", "int8": "int8", "nf4": "nf4"}
GGUF = {"gguf-q8_0": "q8_0", "gguf-q4_0": "q4_0"}
NAMES = (*LOADED, *GGUF)


@dataclass(frozen=True)
class Quantized:
    """The run's tuned model, its adapter merged, in the numbers that `name` says."""

    name: str
    run: Run

    def check(self, task: Task) -> None:
        from sftdemo.inference import merged  # torch, which the page doesn't wait for

        if self.run.kind != kinds.CHAT:
            raise UserError(
                "{name} is for runs of the kind chat, and this one is {kind}; leave it out.",
                name=self.name,
                kind=Text(self.run.kind),
            )
        folder = merged.adapter_base(self.run) or self.run.model_path
        if self.name in GGUF:
            gguf_export.check(folder)
            gguf_export.check_opened_by(folder, fresh_process.runtime_for(self.name))
        memory_estimate.check_loading([folder], 4)
        resources.check_disk(self.run.path, 5 * memory_estimate.Model.read(folder).parameters, Text("The model"))

    def identity(self) -> Any:
        files = sorted((file.name, file.stat().st_mtime_ns) for file in self.run.model_path.glob("*.safetensors"))
        return [fresh_process.runtime_for(self.name), *files]

    def answer(self, task: Task) -> Answers:
        from sftdemo.inference import merged  # torch, which the page doesn't wait for

        base = merged.adapter_base(self.run)
        # Beside the run, so that nothing is written outside of the home; gone when it has answered.
        with tempfile.TemporaryDirectory(dir=self.run.path, prefix=".quantized-") as part:
            if self.name in GGUF:
                return self._by_llama_cpp(task, base, Path(part))
            merged.save(self.run, base, Path(part))
            pair = self._loaded(Path(part))
            began = time.perf_counter()
            texts = answer_alone(pair, self.name, [row["messages"] for row in task.rows], task, self.name)
            seconds = time.perf_counter() - began
            size = memory_estimate.Model.read(Path(part)).weights(2, LOADED[self.name])
        del pair
        gc.collect()
        return Answers(texts, seconds, self.run.status().get("seconds"), size)

    def _loaded(self, folder: Path) -> SideBySide:
        from transformers import GenerationConfig

        from sftdemo.inference import load_run
        from sftdemo.inference.side_by_side import SideBySide
        from sftdemo.model import loading
        from sftdemo.system.compute import answering_precision

        model = loading.load_base(folder, answering_precision(), LOADED[self.name])
        stops = GenerationConfig.from_pretrained(folder, trust_remote_code=False)
        side = load_run.answering(model, (self.name,))
        return SideBySide(loading.tokenizer(folder), [side], stops, self.name)

    def _by_llama_cpp(self, task: Task, base: Path | None, folder: Path) -> Answers:
        """In a process of its own, one row after the other; without llama.cpp by transformers, whose time tells nothing."""
        from sftdemo.inference import merged  # torch, which the page doesn't wait for

        path = folder / "model.gguf"
        merged.save_gguf(self.run, base, path, GGUF[self.name])
        assert task.pair  # of a chat model
        tokenizer, stops = task.pair.tokenizer, task.pair.stop_ids
        prompts = [encode_prompt(tokenizer, row["messages"], row.get("tools")) for row in task.rows]
        question = {"stop_ids": sorted(stops), "max_new_tokens": task.longest, "prompts": prompts, "texts": []}
        question |= {"task": kinds.CHAT, "decoding": None, "languages": {}}
        runtime = fresh_process.runtime_for(self.name)
        try:
            reply = fresh_process.ask(question, path, runtime, should_stop=task.reporter.should_stop)
        except KeyboardInterrupt as stopped:
            if not task.reporter.should_stop():
                raise
            raise UserError(
                "Stopped while {name} answered; the evaluation itself is saved.", name=self.name
            ) from stopped
        answers = zip(prompts, reply["answers"], strict=True)
        texts = [_text(Answer(tokenizer, prompt), ids, stops) for prompt, ids in answers]
        about = {"runtime": f"{runtime}, one row at a time"}
        seconds = reply["seconds"] if runtime == "llama.cpp" else None
        return Answers(texts, seconds, self.run.status().get("seconds"), path.stat().st_size, about=about)


def _text(answer: Answer, ids: Sequence[int], stops: frozenset[int]) -> str:
    return without_empty_thoughts("".join(answer.add(token) for token in ids if token not in stops)).strip()
