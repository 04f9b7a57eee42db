"""What an exported encoder says of texts by transformers' own pipeline, in a process of its own (see `fresh_answers`).

A head that was fitted to the mean of a text's tokens, or to its first token (`pooling`), has no pipeline: it stands at each
token, and their logits are pooled instead, which comes to the same, since it is linear.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

RUNTIME = "transformers.pipeline"
APPLIES = 0.5  # the probability from which on one of several labels applies
TASKS = {"classification": "text-classification", "tokens": "token-classification"}


def labelled(model: Any, tokenizer: Any, question: dict[str, Any]) -> list[dict[str, Any]]:
    """{"answer": labels, "scores": probabilities} of each text: those that apply with the probabilities of all, by name; or each
    token's tag, and how probable it is."""
    from transformers import pipeline

    parts = {"model": model.eval(), "tokenizer": tokenizer, "device": model.device}
    pipe = pipeline(TASKS[question["task"]], trust_remote_code=False, **parts)
    if question["task"] == "tokens":
        tagged = [pipe(text, aggregation_strategy="none", ignore_labels=[]) for text in question["texts"]]
        return [
            {"answer": [token["entity"] for token in tokens], "scores": [float(token["score"]) for token in tokens]}
            for tokens in tagged
        ]
    options = {"top_k": None, "function_to_apply": "sigmoid" if question["several"] else "softmax"}
    answers = []
    for text in question["texts"]:
        scores = {part["label"]: float(part["score"]) for part in pipe([text], **options)[0]}
        answers.append(_applying(scores, question["several"]))
    return answers


def read_off(logits: Tensor, labels: Sequence[str], question: dict[str, Any]) -> list[dict[str, Any]]:
    """The same from logits [texts, labels], or for task tokens [tokens, labels] of one text."""
    if question["task"] == "tokens":
        best = logits.softmax(-1).max(-1)
        return [{"answer": [labels[place] for place in best.indices.tolist()], "scores": best.values.tolist()}]
    probabilities = logits.sigmoid() if question["several"] else logits.softmax(-1)
    return [_applying(dict(zip(labels, row, strict=True)), question["several"]) for row in probabilities.tolist()]


def _applying(scores: dict[str, float], several: bool) -> dict[str, Any]:
    applying = [label for label, score in sorted(scores.items()) if score >= APPLIES]
    answer = applying if several else [max(scores, key=scores.__getitem__)]
    return {"answer": answer, "scores": [score for _, score in sorted(scores.items())]}


def _pooled(model: Any, tokenizer: Any, question: dict[str, Any]) -> list[dict[str, Any]]:
    """As the export's card does it."""
    import torch

    logits = []
    for text in question["texts"]:
        with torch.inference_mode():
            of_tokens = model(**tokenizer(text, truncation=True, return_tensors="pt")).logits[0]
        logits.append(of_tokens.mean(0) if question["pooling"] == "mean" else of_tokens[0])
    labels = [model.config.id2label[place] for place in range(model.config.num_labels)]
    return read_off(torch.stack(logits), labels, question)


def by_pipeline(question: dict[str, Any]) -> dict[str, Any]:
    """The answers of a folder's weights, or of an adapter on its base."""
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

    path, base = Path(question["path"]), question["base"]
    at_tokens = question["task"] == "tokens" or question["pooling"]
    kind = AutoModelForTokenClassification if at_tokens else AutoModelForSequenceClassification
    options: dict[str, Any] = {"use_safetensors": True}
    if base:
        from peft import PeftModel

        named = {"id2label": dict(enumerate(question["labels"])), "num_labels": len(question["labels"])}
        model = kind.from_pretrained(base, trust_remote_code=False, ignore_mismatched_sizes=True, **named, **options)
        model = PeftModel.from_pretrained(model, str(path), trust_remote_code=False).merge_and_unload()
    else:
        model = kind.from_pretrained(path, trust_remote_code=False, **options)
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    began, ask = time.perf_counter(), _pooled if question["pooling"] else labelled
    return {"answers": ask(model.float().eval(), tokenizer, question), "seconds": time.perf_counter() - began}
