"""A run whose encoder labels texts, to take away: its adapter or merged weights, as transformers opens them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sftdemo import files, runs
from sftdemo.config.export import ExportConfig
from sftdemo.config.train import TrainConfig
from sftdemo.encoding.own_text import own_text
from sftdemo.errors import Text, UserError
from sftdemo.inference import labeller
from sftdemo.log import Reporter
from sftdemo.model import encoders, fresh_labels, frozen_head, loading
from sftdemo.model.frozen_head import FrozenHead
from sftdemo.model.label_facts import FILE, LabelFacts
from sftdemo.verbs.export_check import Agreement, answers_otherwise, ask

ROWS = 10
ROUNDING = 1e-3  # by how much a probability may differ where nothing is rounded


@dataclass(frozen=True)
class LabelAgreement(Agreement):
    """How far an export's labels are the run's: of how many texts all are, and how far a label's probability is off at most."""

    largest_difference: float

    @property
    def exact(self) -> bool:
        return self.same_rows == self.rows and self.largest_difference <= ROUNDING

    @property
    def sentence(self) -> Text:
        return Text(
            "Opened again by {runtime} in a new process, it labels {same_rows} of {rows} texts as the run does "
            "(float32); a label's probability is off by {difference:.2g} at most.",
            runtime=self.runtime,
            same_rows=self.same_rows,
            rows=self.rows,
            difference=self.largest_difference,
        )


def check_frozen(run: runs.Run, base: Path) -> None:
    """Raise UserError for a head on a frozen encoder that transformers can't put together."""
    if not encoders.has_linear_head(base):
        raise UserError(
            "Run {name} is a linear head on a frozen encoder, and encoders of this family get more than a linear head from "
            "transformers; train with method lora or full to export it.",
            name=run.name,
        )


def write(
    run: runs.Run,
    settings: TrainConfig,
    base: Path | None,
    form: str,
    config: ExportConfig,
    folder: Path,
    reporter: Reporter,
) -> LabelAgreement | None:
    """Fill the folder and compare. Raises UserError where what isn't rounded labels otherwise, and KeyboardInterrupt where
    it is told to stop."""
    facts = LabelFacts.read(run.model_path)
    tokenizer, head = loading.tokenizer(run.model_path), None
    question: dict[str, Any] = {"task": settings.task, "labels": facts.labels, "several": facts.several, "pooling": ""}
    if settings.method == "frozen" and base:
        head = FrozenHead.read(run.model_path)
        question["pooling"] = "" if settings.task == "tokens" else facts.pooling
        model: Any = encoders.with_linear_head(base, facts.labels, head.weight, head.bias)
    else:
        model = labeller.tuned_model(run, base or run.model_path, facts, settings)
    own: list[dict[str, Any]] = []
    if config.verify:
        question["texts"] = _texts(run, facts, tokenizer)
        reporter.raise_if_stopped()
        reporter.info(Text("Asking the run itself …"))
        own = (
            _by_features(encoders.load(base), head, tokenizer, question)
            if base and head
            else fresh_labels.labelled(model, tokenizer, question)
        )
    reporter.raise_if_stopped()
    reporter.info(Text("Writing the export …"))
    tokenizer.model_max_length = facts.window
    if form == "merged":
        model = model.merge_and_unload() if run.has_adapter else model
        model.to(getattr(torch, config.dtype)).save_pretrained(folder, max_shard_size=f"{config.shard_mb}MB")
        files.write_text(folder / FILE, (run.model_path / FILE).read_text(encoding="utf-8"))
    tokenizer.save_pretrained(folder)
    reporter.raise_if_stopped()
    if not config.verify:
        return None
    reporter.info(Text("Opening the export in a new process …"))
    adapter_base = base if form == "adapter" else None
    reply = ask(question, folder, fresh_labels.RUNTIME, adapter_base, should_stop=reporter.should_stop)
    agreement = compared(own, reply["answers"], "transformers" if question["pooling"] else fresh_labels.RUNTIME)
    if not agreement.same_rows or (not agreement.exact and (form == "adapter" or config.dtype == "float32")):
        raise answers_otherwise(agreement.same_rows, agreement.rows)
    reporter.info(agreement.sentence)
    return agreement


def _by_features(encoder: Any, head: FrozenHead, tokenizer: Any, question: dict[str, Any]) -> list[dict[str, Any]]:
    """What the run itself says: its head on what the encoder makes of the texts, or of their tokens but the special ones."""
    encoded = tokenizer(question["texts"], return_special_tokens_mask=True)
    ids, pad = encoded["input_ids"], tokenizer.pad_token_id or 0
    if question["task"] != "tokens":
        features = frozen_head.features(encoder, ids, pad, question["pooling"])
        return fresh_labels.read_off(head.logits(features), question["labels"], question)
    places = [[place for place, special in enumerate(mask) if not special] for mask in encoded["special_tokens_mask"]]
    logits = torch.split(head.logits(frozen_head.features_at(encoder, ids, places, pad)), list(map(len, places)))
    return [row for own in logits for row in fresh_labels.read_off(own, question["labels"], question)]


def compared(own: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]], runtime: str) -> LabelAgreement:
    """Two lists of what `fresh_labels` says of texts."""
    same, largest = 0, 0.0
    for ours, theirs in zip(own, other, strict=True):
        same += ours["answer"] == theirs["answer"]
        differences = [abs(one - two) for one, two in zip(ours["scores"], theirs["scores"], strict=False)]
        largest = max([largest, *differences])
    return LabelAgreement(runtime, len(own), same, largest)


def _texts(run: runs.Run, facts: LabelFacts, tokenizer: Any) -> list[str]:
    """Held-out texts, the first half of one that is longer than the encoder reads, and so on."""
    texts = []
    for example in [*run.examples("test"), *run.examples("validation"), *run.examples("train")]:
        text = own_text(example["messages"][:-1], facts.templates)
        while len(tokenizer(text, verbose=False)["input_ids"]) > facts.window:
            text = text[: len(text) // 2]
        if text.strip():
            texts.append(text)
        if len(texts) == ROWS:
            return texts
    if not texts:
        raise UserError("Run {name} has no row to compare the export's answers on; give --no-verify.", name=run.name)
    return texts
