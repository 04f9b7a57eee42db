"""A run whose encoder answers a text at once, in memory: the frozen encoder with its logistic head, and the tuned one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from sftdemo import runs
from sftdemo.config.train import TrainConfig
from sftdemo.encoding.own_text import own_text
from sftdemo.errors import Text, UserError
from sftdemo.inference.load_run import base_folder
from sftdemo.log import TO_LOG, Reporter
from sftdemo.model import encoders, frozen_head, loading, memory_estimate
from sftdemo.model.frozen_head import FrozenHead
from sftdemo.model.label_facts import LabelFacts
from sftdemo.system.compute import set_threads

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SIDES = ("base", "tuned")


@dataclass
class Labeller(ABC):
    """`facts` say how texts are read. A side is one of `heads` on `encoder`, or else the model `tuned`."""

    facts: LabelFacts
    tokenizer: PreTrainedTokenizerBase
    encoder: PreTrainedModel
    heads: dict[str, FrozenHead]
    tuned: Any = None

    names = SIDES

    def own_texts(self, texts: Sequence[str]) -> list[str]:
        """What is typed as it is read: as in training without the words of the run's templates."""
        return [own_text([{"role": "user", "content": text}], self.facts.templates) for text in texts]

    def answers(
        self,
        rows: Sequence[Mapping[str, Any]],
        longest: int = 0,
        batch_size: int = 256,
        skip: Container[int] = (),
        reporter: Reporter = TO_LOG,
        sides: Sequence[str] = SIDES,
        templates: Sequence[str] = (),
    ) -> Iterator[dict[int, dict[str, Any]]]:
        """Label rows of outputs.jsonl, `batch_size` at a time, without the words of the run's templates and of these.

        Yields {row: its keys of outputs.jsonl, as `answer_rows` gives them}. Stops early when `reporter` says so.
        """
        known = [*self.facts.templates, *templates]
        left = [place for place in range(len(rows)) if place not in skip]
        for start in range(0, len(left), batch_size):
            if reporter.should_stop():
                return
            part = left[start : start + batch_size]
            texts = [own_text(rows[place]["messages"], known) for place in part]
            answers: dict[int, dict[str, Any]] = {place: {} for place in part}
            for keys in self.answer_rows(texts, [rows[place] for place in part], sides):
                for place, own in zip(part, keys, strict=True):
                    answers[place] |= own
            yield answers

    @abstractmethod
    def answer_rows(
        self, texts: Sequence[str], rows: Sequence[Mapping[str, Any]], sides: Sequence[str]
    ) -> Iterator[list[dict[str, Any]]]:
        """By side what outputs.jsonl says of each row, whose text alone is given."""

    @classmethod
    def load(cls, run: runs.Run, reporter: Reporter = TO_LOG) -> Self:
        """The run's models, ready to answer. Raises UserError where it has no model, or its files aren't sound."""
        set_threads()
        if not run.model_path.is_dir():
            raise UserError(
                "Run {name} has no model to talk to ({state}); finish a training first.",
                name=run.name,
                state=Text(run.state),
            )
        settings = TrainConfig.from_json(run.trained_config()["settings"])
        facts = LabelFacts.read(run.model_path)
        base = base_folder(run, reporter)
        reporter.stage("loading", 0, loading.weights_bytes(base))
        # In float32 the encoder and, but for method frozen, a second one that is tuned.
        memory_estimate.check_loading([base] * (1 if settings.method == "frozen" else 2), torch.float32.itemsize)
        tokenizer, head = loading.tokenizer(run.model_path), FrozenHead.read(run.model_path)
        if settings.method == "frozen":
            heads = {"base": FrozenHead.read(run.model_path, frozen_head.PRIOR), "tuned": head}
            return cls(facts, tokenizer, encoders.load(base), heads)
        return cls(facts, tokenizer, encoders.load(base), {"base": head}, tuned_model(run, base, facts, settings))


def tuned_model(run: runs.Run, base: Path, facts: LabelFacts, settings: TrainConfig) -> Any:
    """The tuned encoder with its head, in float32."""
    if settings.method == "lora":
        with torch.random.fork_rng():
            model, _ = encoders.load_with_head(base, facts.labels, facts.several, task=settings.task)
        return loading.add_adapter(model, run.model_path).eval()
    return encoders.load_with_head(run.model_path, facts.labels, facts.several, False, settings.task)[0].eval()
