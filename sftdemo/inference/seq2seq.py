"""Sequence-to-sequence models side by side: each side translates a source by transformers' own `generate`."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sftdemo.config.generate import LEAST_TEMPERATURE, GenerateConfig
from sftdemo.encoding import source_target
from sftdemo.encoding.chat_template import Messages, Tools
from sftdemo.encoding.detokenizer import Answer, Detokenizer
from sftdemo.encoding.encode import answer_ids
from sftdemo.encoding.source_target_batch import IGNORED, padded, sources
from sftdemo.errors import UserError
from sftdemo.inference.decoding import Chunk
from sftdemo.inference.request import Request, Side
from sftdemo.inference.side_by_side import ALTERNATIVES, SideBySide, Wanted
from sftdemo.log import Reporter
from sftdemo.model import seq2seq

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel

MOST_ROWS = 64  # sources decoded together, each beam counted


@contextmanager
def answering_as(side: Side, name: str) -> Iterator[PreTrainedModel]:
    """The side's weights as one of its names has them: of LoRA runs the base without an adapter, or with the run's."""
    model: Any = side.model
    place = side.names.index(name)
    if not hasattr(model, "peft_config"):
        yield model
    elif place == 0:
        with model.disable_adapter():
            yield model
    else:
        model.set_adapter(str(place - 1))
        yield model


@dataclass(frozen=True)
class Written:
    """A target as it was decoded, without what begins and ends it; `finish_reason` as a Chunk has it."""

    tokens: list[int]
    finish_reason: str


class Seq2SeqSides(SideBySide):
    """A base and its tuned models that write a target for a source. Each question is a source alone, without history;
    sides answer one after the other, each exactly as it would alone."""

    generation_config: GenerationConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        pairs = source_target.of(self.tokenizer)
        assert pairs is not None, "the tokenizer of a sequence-to-sequence run encodes pairs"
        self.pairs = pairs
        self.context = pairs.longest_source or 2**31
        self.longest_target = pairs.longest_target or 2**31

    def _prompt(self, messages: Messages, tools: Tools | None) -> list[int]:
        return super()._prompt(_alone(messages), None)

    def _row(self, side: str, index: int, prompt: list[int], config: GenerateConfig) -> Request:
        if len(prompt) > self.context:
            raise UserError(
                "The text has {n} tokens and the model reads {context}; shorten it.",
                n=len(prompt),
                context=self.context,
            )
        limit = min(config.max_new_tokens, self.longest_target)
        return Request(
            side, index, prompt, limit, config=config, stop_ids=self.stop_ids, decoding=self.generation_config
        )

    def stream(
        self,
        messages: Messages | Mapping[str, Messages],
        config: GenerateConfig | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        tools: Tools | None = None,
    ) -> Iterator[Chunk]:
        """Each side's answer to the last user's text, chunk by chunk, one side after the other."""
        config = (config or GenerateConfig()).check()
        requests = self.requests(messages, config)
        chunks: queue.SimpleQueue[Chunk | Exception] = queue.SimpleQueue()
        left = threading.Event()

        def work() -> None:
            try:
                for request in requests:
                    text, side = Answer(self.tokenizer, request.prompt), self._side(request.side)
                    write(side, request, text, chunks.put, lambda: left.is_set() or should_stop())
            except Exception as error:  # noqa: BLE001 (raised below, where somebody hears it)
                chunks.put(error)

        with self.lock:
            worker = threading.Thread(target=work, name="write", daemon=True)
            worker.start()
            try:
                for _ in requests:
                    while True:
                        chunk = chunks.get()
                        if isinstance(chunk, Exception):
                            raise chunk
                        yield chunk
                        if chunk.finish_reason:
                            break
            finally:
                left.set()
                worker.join()

    def has_room(self, prompt: int, answer: int) -> bool:
        return self.pairs.has_room(prompt, answer)

    def _side(self, name: str) -> Side:
        return next(side for side in self.sides if name in side.names)

    def _ids(self, messages: Messages, tools: Tools | None) -> list[int]:
        return super()._ids(_alone(messages), None)

    def _answers(
        self, prompts: list[list[int]], waiting: list[int], wanted: Wanted, reporter: Reporter
    ) -> Iterator[dict[int, dict[str, Any]]]:
        size = max(1, min(wanted.batch_size, MOST_ROWS // wanted.config.beams))
        for start in range(0, len(waiting), size):
            if reporter.should_stop():
                return
            chosen = waiting[start : start + size]
            finished: dict[int, dict[str, Any]] = {index: {} for index in chosen}
            for name in self.names:
                with self.lock, answering_as(self._side(name), name) as model:
                    self._fill(finished, name, model, [prompts[index] for index in chosen], wanted)
                if reporter.should_stop():
                    return
            reporter.prefilled(len(prompts) - len(waiting) + start + len(chosen))
            yield finished

    def _fill(
        self,
        finished: dict[int, dict[str, Any]],
        name: str,
        model: PreTrainedModel,
        texts: list[list[int]],
        wanted: Wanted,
    ) -> None:
        """One side's answers and likelihoods to the sources of a batch."""
        limit = min(wanted.config.max_new_tokens, self.longest_target)
        written = decode(model, texts, self.generation_config, wanted.config, limit)
        for answer, target in zip(finished.values(), written, strict=True):
            answer[name] = self._text(target.tokens).strip()
            if target.finish_reason == "length":
                answer[f"{name}_cut"] = True
        if wanted.references:
            targets = [wanted.references[index] for index in finished]
            for answer, log_probs in zip(finished.values(), likelihoods(model, texts, targets), strict=True):
                answer[f"{name}_nll"] = -log_probs.sum().item()
        for label in wanted.labels:
            log_probs_of_label = likelihoods(model, texts, [label] * len(texts))
            for answer, log_probs in zip(finished.values(), log_probs_of_label, strict=True):
                answer.setdefault(f"{name}_likelihoods", []).append(log_probs.sum().item())

    def _text(self, tokens: list[int]) -> str:
        return Detokenizer(self.tokenizer).text(tokens)

    def explain(self, messages: Messages, answer: str, tools: Tools | None = None) -> dict[str, list[dict[str, Any]]]:
        source, target = self._prompt(messages, None), answer_ids(self.tokenizer, _alone(messages), answer)
        if not self.pairs.has_room(len(source), len(target)):
            raise UserError(
                "Prompt and answer have {n} tokens and the model takes {context}.",
                n=len(source) + len(target),
                context=self.context,
            )
        explained: dict[str, list[dict[str, Any]]] = {}
        for name in self.names:
            with self.lock, answering_as(self._side(name), name) as model:
                probabilities = distributions(model, [source], [target])[0].exp()
            top, which = probabilities.topk(ALTERNATIVES)
            chosen = probabilities.gather(1, torch.tensor(target, device=top.device)[:, None])[:, 0]
            explained[name] = self._words(target, chosen, top, which)
        return explained


def _alone(messages: Messages) -> Messages:
    """The last user's message and what the system says: a source has no history."""
    last = max((at for at, message in enumerate(messages) if message["role"] == "user"), default=None)
    system = [message for message in messages if message["role"] == "system"]
    return messages if last is None else [*system, messages[last]]


def _settings(plain: GenerationConfig, config: GenerateConfig, limit: int) -> GenerationConfig:
    """What `generate` is told: the model's tokens, and how the answer is wanted."""
    from transformers import GenerationConfig

    drawn: dict[str, Any] = {"do_sample": False}
    if config.temperature:
        temperature = max(config.temperature, LEAST_TEMPERATURE)
        drawn = {"do_sample": True, "temperature": temperature, "top_p": config.top_p}
    kept = {name: getattr(plain, name, None) for name in seq2seq.KEPT_SETTINGS}
    return GenerationConfig(**kept, max_new_tokens=limit, num_beams=config.beams, **drawn)


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    texts: list[list[int]],
    plain: GenerationConfig,
    config: GenerateConfig,
    limit: int,
    on_token: Callable[[int], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Written]:
    """The targets of some sources by `generate`, at most `limit` tokens each; with `on_token`, of one source alone, each
    token as it comes, of beams all at the end."""
    from transformers import StoppingCriteriaList

    def stopped(ids: Tensor, scores: Any, **options: Any) -> Tensor:
        return torch.full((len(ids),), should_stop(), device=ids.device)

    settings = _settings(plain, config, limit)
    inputs = {name: value.to(model.device) for name, value in sources(texts, int(settings.pad_token_id or 0)).items()}
    streamer = _streamer(on_token) if on_token and config.beams == 1 else None
    with torch.random.fork_rng(enabled=bool(config.temperature)):
        if config.temperature:
            torch.manual_seed(config.seed)
        sequences = model.generate(  # type: ignore[operator]
            **inputs, generation_config=settings, stopping_criteria=StoppingCriteriaList([stopped]), streamer=streamer
        )
    stops = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    written = [_written(ids[1:], stops, limit) for ids in sequences.tolist()]
    if on_token and streamer is None:
        for token in written[0].tokens:
            on_token(token)
    return written


def _written(ids: list[int], stops: Sequence[int | None], limit: int) -> Written:
    """A target up to what ends it; the decoder's first token is no part of `ids`."""
    end = next((place for place, token in enumerate(ids) if token in stops), None)
    if end is not None:
        return Written(ids[:end], "stop")
    return Written(ids, "length" if len(ids) >= limit else "stopped")


def _streamer(on_token: Callable[[int], None]) -> Any:
    from transformers.generation.streamers import BaseStreamer

    class Tokens(BaseStreamer):  # type: ignore[misc]
        """Hands on each token behind the decoder's first."""

        def __init__(self) -> None:
            self.begun = False

        def put(self, value: Tensor) -> None:
            if self.begun:
                on_token(int(value[0]))
            self.begun = True

        def end(self) -> None:
            pass

    return Tokens()


def write(
    side: Side, request: Request, text: Answer, put: Callable[[Chunk], None], should_stop: Callable[[], bool]
) -> None:
    """Answer one request, its chunks handed on as they come; the last has the finish reason. Who calls holds the lock."""
    began = time.perf_counter()

    def add(token: int) -> None:
        if token in request.stop_ids:
            return
        request.tokens += 1
        if piece := text.add(token):
            put(Chunk(request.side, piece, request.tokens, request.tokens / (time.perf_counter() - began)))

    assert request.decoding is not None
    with answering_as(side, request.side) as model:
        [written] = decode(model, [request.prompt], request.decoding, request.config, request.limit, add, should_stop)
    request.finish_reason = "stopped" if should_stop() and written.finish_reason != "stop" else written.finish_reason
    speed = request.tokens / max(time.perf_counter() - began, 1e-6)
    put(Chunk(request.side, "", request.tokens, speed, request.finish_reason))


@torch.inference_mode()
def distributions(model: PreTrainedModel, texts: list[list[int]], targets: list[list[int]]) -> list[Tensor]:
    """For each source the log-probabilities [T, vocabulary] of what comes next, before each of its target's tokens."""
    config: Any = model.config
    inputs = {name: value.to(model.device) for name, value in sources(texts, config.pad_token_id or 0).items()}
    read = seq2seq.decoder_inputs(model, padded(targets, IGNORED).to(model.device))
    logits = model(**inputs, decoder_input_ids=read, use_cache=False).logits
    return [logits[row, : len(target)].float().log_softmax(-1) for row, target in enumerate(targets)]


def likelihoods(model: PreTrainedModel, texts: list[list[int]], targets: list[list[int]]) -> list[Tensor]:
    """The log-probability of each token of the targets, each given its source and the tokens before."""
    return [
        rows.gather(1, torch.tensor(target, device=rows.device)[:, None])[:, 0]
        for rows, target in zip(distributions(model, texts, targets), targets, strict=True)
    ]
