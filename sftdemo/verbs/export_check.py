"""Is an export the run? Greedy answers to a few held-out rows, the run's beside those of the export in a new process."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftdemo.encoding import encode
from sftdemo.encoding.chat_template import TemplateError
from sftdemo.errors import Text, UserError
from sftdemo.model import fresh_answers, loading
from sftdemo.system import hub

if TYPE_CHECKING:
    from sftdemo.runs import Run

ROWS, TOKENS, LONGEST_PROMPT = 10, 32, 1024
SECONDS = 1800  # for the new process, which has the whole model to read
ROUNDING = 1e-2  # by how much a token may be ahead of the next one, in logits, and sums in another order change it


@dataclass(frozen=True)
class Agreement:
    """How far an export's answers are the run's; `tokens` are the run's, `same_tokens` those before the first difference."""

    runtime: str
    rows: int
    same_rows: int
    tokens: int
    same_tokens: int
    ties: int  # rows that part where the run's own two best tokens are equal but for rounding
    prompts_same: int  # of the rows' prompts, those that the runtime's tokenizer makes the same tokens of

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def exact(self) -> bool:
        return self.same_rows + self.ties == self.rows

    @property
    def sentence(self) -> Text:
        return Text(
            "Opened again by {runtime} in a new process, it gives the run's own greedy answer (up to {most} tokens, float32) "
            "to {same_rows} of {rows} rows; {same_tokens} of {tokens} tokens come before any difference. Prompts with the "
            "same tokens: {prompts_same} of {rows}.",
            runtime=self.runtime,
            most=TOKENS,
            same_rows=self.same_rows,
            rows=self.rows,
            same_tokens=self.same_tokens,
            tokens=self.tokens,
            prompts_same=self.prompts_same,
        )


@dataclass(frozen=True)
class Reference:
    """What the run itself answers, and what it was asked."""

    question: dict[str, Any]
    answers: list[list[int]]
    leads: list[list[float]]

    def compare(self, reply: dict[str, Any], runtime: str) -> Agreement:
        """The export's reply beside the run's answers; stop tokens aside, which some runtimes keep to themselves."""
        stops = set(self.question["stop_ids"])
        counts = {"same_rows": 0, "tokens": 0, "same_tokens": 0, "ties": 0}
        for own, other, leads in zip(self.answers, reply["answers"], self.leads, strict=True):
            answer, exported = ([token for token in ids if token not in stops] for ids in (own, other))
            pairs = enumerate(zip(answer, exported, strict=False))
            first = next((place for place, (ours, theirs) in pairs if ours != theirs), min(len(answer), len(exported)))
            counts["tokens"] += len(answer)
            counts["same_tokens"] += first
            if answer == exported:
                counts["same_rows"] += 1
            elif leads[first] <= ROUNDING:
                counts["ties"] += 1
        return Agreement(runtime=runtime, rows=len(self.answers), prompts_same=reply["prompts_same"], **counts)


def reference(run: Run, model: Any) -> Reference:
    """The answers of a run's own model, in float32 and as it was trained, to rows that it wasn't trained on."""
    from transformers import GenerationConfig

    tokenizer = loading.tokenizer(run.model_path)
    stops = encode.stop_ids(tokenizer, GenerationConfig.from_pretrained(run.model_path, trust_remote_code=False))
    question: dict[str, Any] = {"stop_ids": sorted(stops), "max_new_tokens": TOKENS, "prompts": [], "texts": []}
    for example in [*run.examples("test"), *run.examples("validation"), *run.examples("train")]:
        try:
            ids = encode.encode_prompt(tokenizer, example["messages"][:-1], example.get("tools"))
        except TemplateError:
            continue
        if ids and len(ids) <= LONGEST_PROMPT:
            question["prompts"].append(ids)
            question["texts"].append(
                tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            )
        if len(question["prompts"]) == ROWS:
            break
    if not question["prompts"]:
        raise UserError("Run {name} has no row to compare the export's answers on; give --no-verify.", name=run.name)
    answers, leads = fresh_answers.greedy(model.eval(), question["prompts"], question["stop_ids"], TOKENS)
    return Reference(question, answers, leads)


def ask(question: dict[str, Any], path: Path, runtime: str, base: Path | None, quantization: str) -> dict[str, Any]:
    """The reply of an export in a process of its own; raises UserError with its last line where it can't be opened."""
    asked = question | {
        "runtime": runtime,
        "path": str(path.resolve()),
        "base": str(base or ""),
        "quantization": quantization,
    }
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "sftdemo.model.fresh_answers"],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            errors="replace",
            env=hub.environment(HF_HUB_OFFLINE="1"),
            cwd=Path(__file__).parents[2],
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            "The export did not answer within {minutes} minutes; nothing was kept.", minutes=SECONDS // 60
        ) from error
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or ["no reason given"]
        raise UserError(
            "The export can't be opened by {runtime}, so nothing was kept: {reason}",
            runtime=runtime,
            reason=lines[-1][:300],
        )
    reply: dict[str, Any] = json.loads(ended.stdout)
    return reply


def runtime_for(form: str) -> str:
    """Who opens an export of this format: for GGUF llama.cpp, where its Python package is there."""
    return "llama.cpp" if form.startswith("gguf") and importlib.util.find_spec("xllamacpp") else "transformers"
