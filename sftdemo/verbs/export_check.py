"""Is an export the run? Greedy answers to a few held-out rows, the run's beside those of the export in a new process."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sftdemo import files
from sftdemo.config.train import TrainConfig
from sftdemo.data.sources import GENERAL_QUESTIONS
from sftdemo.encoding import encode, source_target
from sftdemo.encoding.chat_template import TemplateError
from sftdemo.errors import Text, UserError
from sftdemo.inference import load_run
from sftdemo.log import TO_LOG, Reporter
from sftdemo.model import fresh_answers, loading, seq2seq
from sftdemo.model.fresh_process import ask, runtime_for
from sftdemo.runs import DamagedRun

if TYPE_CHECKING:
    from sftdemo.runs import Run

__all__ = ["Agreement", "AnswerAgreement", "Reference", "ask", "reference", "runtime_for"]
ROWS, TOKENS, LONGEST_PROMPT = 10, 32, 1024
ROUNDING = 1e-2  # by how much a token may be ahead of the next one, in logits, and sums in another order change it


@dataclass(frozen=True)
class Agreement(ABC):
    """How far an export is the run: to how many of the rows that both were asked it answers the same."""

    runtime: str
    rows: int
    same_rows: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    @abstractmethod
    def exact(self) -> bool:
        """Whether nothing differs but by rounding."""

    @property
    @abstractmethod
    def sentence(self) -> Text:
        """It in words, for who exports and for the export's model card."""


@dataclass(frozen=True)
class AnswerAgreement(Agreement):
    """How far an export's answers are the run's; `tokens` are the run's, `same_tokens` those before the first difference."""

    tokens: int
    same_tokens: int
    ties: int  # rows that part where the run's own two best tokens are equal but for rounding
    prompts_same: int  # of the rows' prompts, those that the runtime's tokenizer makes the same tokens of

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

    def compare(self, reply: dict[str, Any], runtime: str) -> AnswerAgreement:
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
        return AnswerAgreement(runtime=runtime, rows=len(self.answers), prompts_same=reply["prompts_same"], **counts)


def reference(run: Run, model: Any, reporter: Reporter = TO_LOG) -> Reference:
    """The answers of a run's own model, in float32 and as it was trained, to rows that it wasn't trained on; KeyboardInterrupt
    where it is told to stop."""
    from transformers import GenerationConfig

    settings = TrainConfig.from_json(run.trained_config()["settings"])
    tokenizer = loading.tokenizer_for(settings, load_run.base_folder(run), run.model_path)
    own = GenerationConfig.from_pretrained(run.model_path, trust_remote_code=False)
    stops = sorted(encode.stop_ids(tokenizer, own))
    question: dict[str, Any] = {"stop_ids": stops, "max_new_tokens": TOKENS, "prompts": [], "texts": []}
    question |= {"task": settings.task, "decoding": None, "languages": {}}
    if pairs := source_target.of(tokenizer):
        kept = {name: getattr(own, name, None) for name in seq2seq.KEPT_SETTINGS}
        languages = {"src_lang": settings.source_language, "tgt_lang": settings.target_language}
        question |= {"decoding": kept, "languages": {name: value for name, value in languages.items() if value}}
    for example in _asked(run):
        try:
            ids = encode.encode_prompt(tokenizer, example["messages"][:-1], example.get("tools"))
        except TemplateError:
            continue
        if ids and len(ids) <= LONGEST_PROMPT:
            question["prompts"].append(ids)
            question["texts"].append(
                source_target.source_text(pairs, example["messages"][:-1])
                if pairs
                else tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            )
        if len(question["prompts"]) == ROWS:
            break
    if not question["prompts"]:
        raise UserError("Run {name} has no row to compare the export's answers on; give --no-verify.", name=run.name)
    asked = _until_stopped(reporter, question["prompts"])
    answers, leads = fresh_answers.greedy(model.eval(), asked, stops, TOKENS, question["decoding"])
    return Reference(question, answers, leads)


def _asked(run: Run) -> list[Any]:
    """What a run is asked: its rows, held-out ones first; general questions where it came without any, as an adapter does
    that was imported, or where they are lost."""
    own: list[Any] = []
    for split in ("test", "validation", "train"):
        with contextlib.suppress(DamagedRun):
            own += run.examples(split)
    return own or list(files.read_jsonl(GENERAL_QUESTIONS))


def _until_stopped(reporter: Reporter, prompts: list[list[int]]) -> Iterator[list[int]]:
    for prompt in prompts:
        reporter.raise_if_stopped()
        yield prompt


def answers_otherwise(same_rows: int, rows: int) -> UserError:
    """The refusal of an export that isn't the run."""
    return UserError(
        "The export answers otherwise than the run, so nothing was kept: {same} of {rows} rows are the same.",
        same=same_rows,
        rows=rows,
    )
