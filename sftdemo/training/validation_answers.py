"""A metric of the answers that a model gives to validation rows while it is trained, and some of them to read."""

from __future__ import annotations

import contextlib
import inspect
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from sftdemo.data.types import turn_text
from sftdemo.encoding import encode, source_target
from sftdemo.encoding.detokenizer import Detokenizer
from sftdemo.errors import UserError
from sftdemo.evaluation import scoring
from sftdemo.inference.kv_cache import is_recurrent
from sftdemo.runs import samples
from sftdemo.system import distributed

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

    from sftdemo.config.train import TrainConfig
    from sftdemo.data import Example
    from sftdemo.runs import Run

LOSS = "loss"
ROWS = 24  # that are answered in words
LONGEST_ANSWER = 256  # tokens; a row with a longer right answer isn't asked
SHOWN, SHOWN_CHARACTERS = 4, 2000
Pair = tuple[list[int], list[int]]  # tokens of a prompt, and of its right answer
_WRITTEN_WITH_MARKS = {"reasoning_content", "tool_calls"}


def fitting(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, longest: int) -> list[Example]:
    """The first examples, as many as are answered in words, that have so many tokens at most. Thoughts and calls, which a
    model writes with marks of its own, become references as it writes them. Raises UserError where all answers are too long."""
    text = Detokenizer(tokenizer).text
    stops = encode.stop_ids(tokenizer)
    chosen: list[Example] = []
    can_answer = False
    for example in examples:
        prompt, answer = _prompt_and_answer(tokenizer, example)
        if len(answer) > LONGEST_ANSWER:
            continue
        can_answer = True
        if not _has_room(tokenizer, len(prompt), len(answer), longest):
            continue
        if _WRITTEN_WITH_MARKS & example["messages"][-1].keys() and not example.get("references"):
            example = {**example, "references": [text(_until(stops, answer)).strip()]}
        chosen.append(example)
        if len(chosen) == ROWS:
            break
    if examples and not can_answer:
        raise UserError(
            "best_by has validation rows answered in {most} tokens at most, and all their right answers are longer; leave it out.",
            most=LONGEST_ANSWER,
        )
    return chosen


def _prompt_and_answer(tokenizer: PreTrainedTokenizerBase, example: Example) -> Pair:
    """The tokens that are read, and those of the example's own answer with the end of its turn."""
    *messages, answer = example["messages"]
    tools = example.get("tools")
    prompt = encode.encode_prompt(tokenizer, messages, tools)
    unlearned = [{**message, "weight": 0} for message in messages]
    row = encode.encode(tokenizer, [*unlearned, {**answer, "weight": 1}], tools)
    return prompt, row.ids[len(prompt) :]


def _has_room(tokenizer: PreTrainedTokenizerBase, prompt: int, answer: int, longest: int) -> bool:
    """Whether a row of so many tokens is within `longest`; of a sequence-to-sequence model, whose target stands apart from
    its source, whether each is, and has positions."""
    if pairs := source_target.of(tokenizer):
        return max(prompt, answer) <= longest and pairs.has_room(prompt, answer)
    return prompt + answer <= longest


def _until(stops: Collection[int], answer: Sequence[int]) -> list[int]:
    return list(itertools.takewhile(lambda token: token not in stops, answer))


def references(example: Example) -> list[str]:
    return example.get("references") or [turn_text(example["messages"][-1])]


def score(metric: str, examples: Sequence[Example], answers: Sequence[str], labels: Sequence[str]) -> float | None:
    """A metric of answers to these examples, the higher the better; None where it doesn't apply to them."""
    rows: list[dict[str, Any]] = [
        {"prediction": answer, "references": references(example), **({"label": example["label"]} if labels else {})}
        for example, answer in zip(examples, answers, strict=True)
    ]
    value = scoring.score(rows, labels=labels or None).get(metric)
    return None if value is None else float(value)


def labels_of(examples: Sequence[Example], known: Sequence[str]) -> list[str]:
    """The labels, where every example has one."""
    return sorted(known) if all(example.get("label") for example in examples) else []


def check(config: TrainConfig, examples: Sequence[Example], known: Sequence[str]) -> None:
    """Raise UserError for a metric that can't be taken of these rows."""
    if config.best_by == LOSS:
        return
    if distributed.count() > 1:
        raise UserError(
            "best_by {metric} is for one process; leave it out, or start without accelerate launch.",
            metric=config.best_by,
        )
    right = [references(example)[0] for example in examples]
    if score(config.best_by, examples, right, labels_of(examples, known)) is None:
        raise UserError(
            "best_by is {metric}, which doesn't apply to the answers of these validation rows; choose another metric, such as "
            "exact_match or chrf.",
            metric=config.best_by,
        )


@dataclass(frozen=True)
class ValidationAnswers:
    """What is measured by `metric`: `answer` gives the model's answers to `examples`, as it is then."""

    run: Run
    metric: str
    examples: Sequence[Example]
    labels: Sequence[str]
    answer: Callable[[Sequence[Example]], list[str]]

    def measure(self, step: int, written: bool) -> float:
        """The metric now; `written`, some of the answers are kept in the run's folder."""
        answers = self.answer(self.examples)
        if written:
            pairs = list(zip(self.examples, answers, strict=True))[:SHOWN]
            samples.append(self.run, [_sample(step, example, answer) for example, answer in pairs])
        return score(self.metric, self.examples, answers, self.labels) or 0.0


def _sample(step: int, example: Example, answer: str) -> samples.Sample:
    asked = turn_text(example["messages"][-2]) if len(example["messages"]) > 1 else ""
    return {
        "step": step,
        "asked": asked[-SHOWN_CHARACTERS:],
        "reference": references(example)[0][:SHOWN_CHARACTERS],
        "answer": answer[:SHOWN_CHARACTERS],
    }


def written_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    attention: str | None,
    config: GenerationConfig,
    longest: int,
    examples: Sequence[Example],
) -> list[str]:
    """Greedy answers in words by the library's own `generate`, with the attention that the model came with; `examples` are
    `fitting` ones of `longest` tokens."""
    rows = [_prompt_and_answer(tokenizer, example) for example in examples]
    alone = is_recurrent(model.config)  # it would take padding for something read
    pairs, ids = source_target.of(tokenizer), list[list[int]]()
    with _answering(model, attention, config):
        for part in [[row] for row in rows] if alone else _batches(tokenizer, rows, longest):
            room = max(len(answer) for _, answer in part) + 1  # one more, so that a right answer that goes on is none
            config.max_new_tokens = min(room, (pairs and pairs.longest_target) or room)
            ids += _greedy(model, [prompt for prompt, _ in part], config)
    text = Detokenizer(tokenizer).text
    return [text(answer).strip() for answer in ids]


def _batches(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Pair], longest: int) -> list[list[Pair]]:
    """The rows in their order, as many together as have room for the longest prompt and the longest answer among them."""
    batches: list[list[Pair]] = []
    for row in rows:
        joined = [*batches[-1], row] if batches else [row]
        prompt, answer = (max(map(len, side)) for side in zip(*joined, strict=True))
        if batches and _has_room(tokenizer, prompt, answer, longest):
            batches[-1] = joined
        else:
            batches.append([row])
    return batches


@contextlib.contextmanager
def _answering(model: PreTrainedModel, attention: str | None, config: GenerationConfig) -> Iterator[None]:
    """The model as `generate` takes it; then as it was."""
    before, own, was_training = model.config._attn_implementation, model.generation_config, model.training
    plain = model.forward

    def forward(*ids: Any, **inputs: Any) -> Any:
        return plain(*ids, **inputs)

    forward.__signature__ = inspect.signature(type(model).forward.__get__(model))  # type: ignore[attr-defined]
    try:
        model.eval()
        model.generation_config = config
        if attention and attention != before:
            model.set_attn_implementation(attention)
        model.forward = forward  # `generate` looks at what may be passed
        yield
    finally:
        model.forward = plain
        if attention and attention != before:
            model.set_attn_implementation(before)  # type: ignore[arg-type]
        model.generation_config = own
        model.train(was_training)


@torch.no_grad()
def _greedy(model: PreTrainedModel, prompts: list[list[int]], config: GenerationConfig) -> list[list[int]]:
    """The answer of each prompt up to its stop token, which is left out."""
    writes_behind = not model.config.is_encoder_decoder
    width, pad = max(map(len, prompts)), config.pad_token_id
    fill = [[pad] * (width - len(prompt)) for prompt in prompts]
    ends = [[0] * len(part) for part in fill]
    pairs = list(zip(prompts, fill, ends, strict=True))
    ids = torch.tensor([part + prompt if writes_behind else prompt + part for prompt, part, _ in pairs])
    mask = torch.tensor([end + [1] * len(prompt) if writes_behind else [1] * len(prompt) + end for prompt, _, end in pairs])  # fmt: skip
    result: Any = model.generate(  # type: ignore[operator]
        input_ids=ids.to(model.device), attention_mask=mask.to(model.device), do_sample=False
    )
    stops = set(config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id])
    return [_until(stops, answer) for answer in result[:, width if writes_behind else 1 :].tolist()]
