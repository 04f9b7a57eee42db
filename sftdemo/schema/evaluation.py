"""What a run folder says of an evaluation: scores.json, and the rows of outputs.jsonl and general.jsonl."""

from __future__ import annotations

from typing import Annotated as Doc
from typing import Any, NotRequired, TypedDict

from sftdemo.schema.json_types import ALWAYS
from sftdemo.schema.run import Turn


class Difference(TypedDict):
    """Tuned minus base, for one metric."""

    delta: Doc[float, "tuned minus base"]
    low: Doc[float, "lower end of the 95 % interval"]
    high: Doc[float, "upper end"]
    p: Doc[float, "how often chance alone differs as much"]
    p_holm: Doc[float, "the same, corrected for all metrics asked"]


class Sentence(TypedDict):
    """What is said in both languages."""

    en: Doc[str, "in English", ALWAYS]
    zh: NotRequired[Doc[str, "in Chinese"]]


class TaskScores(TypedDict):
    """The scores of one part of a mixture; more keys as in all scores."""

    summary: Doc[Sentence, "what the differences mean", ALWAYS]


class FieldScores(TypedDict):
    """How well one field of JSON answers was filled in."""

    f1: Doc[float, "of its values", ALWAYS]
    support: Doc[int, "how often the references have it", ALWAYS]


class FieldsBySide(TypedDict):
    """By side, the scores of each field."""

    base: Doc[dict[str, FieldScores], "the base's", ALWAYS]
    tuned: Doc[dict[str, FieldScores], "the tuned model's", ALWAYS]


class Confusion(TypedDict):
    """By side, true labels down and answers across."""

    base: Doc[list[list[int]], "the base's", ALWAYS]
    tuned: Doc[list[list[int]], "the tuned model's", ALWAYS]


class GeneralScores(TypedDict):
    """One side's on general questions."""

    answered: Doc[float, "share of right answers", ALWAYS]
    perplexity: Doc[float, "of the right answers", ALWAYS]


class General(TypedDict):
    """What was forgotten of general questions."""

    n: Doc[int, "questions", ALWAYS]
    base: Doc[GeneralScores, "the base's", ALWAYS]
    tuned: Doc[GeneralScores, "the tuned model's", ALWAYS]
    difference: Doc[dict[str, Difference], "by measure"]
    kinds: Doc[dict[str, dict[str, float]], "share of right answers by kind of question and side"]
    forgotten: Doc[bool, "whether something clearly was", ALWAYS]
    summary: Doc[Sentence, "what that means", ALWAYS]


class SystemScores(TypedDict):
    """Another system on the rows of an evaluation (`evaluate --against`)."""

    scores: Doc[dict[str, float], "by metric", ALWAYS]
    difference: Doc[dict[str, Difference], "tuned minus the system; `p_holm` is corrected over the systems", ALWAYS]
    summary: Doc[Sentence, "whether the tuned model is better", ALWAYS]
    key: Doc[str, "a hash of what decides its answers: with the same one they are taken from here", ALWAYS]
    answers: Doc[str, "its file of answers, under `evaluations/`: `row`, `answer`", ALWAYS]
    ms_per_answer: NotRequired[Doc[float, "milliseconds an answer, in the batches that it was answered in"]]
    training_seconds: NotRequired[Doc[float, "that it was trained"]]
    bytes: NotRequired[Doc[int, "of the model, 16 bits a number where it isn't quantized; LoRA counts as merged"]]
    tokens: NotRequired[Doc[dict[str, int], "that an endpoint counted: `prompt_tokens`, `completion_tokens`"]]
    cost: NotRequired[Doc[float, "of these tokens, by `--prices`"]]
    answered: NotRequired[Doc[float, "when it answered, seconds since 1970"]]
    about: NotRequired[
        Doc[
            dict[str, str],
            "what an endpoint said of itself: `model`, `system_fingerprint`, `created`, `owned_by`; of GGUF its `runtime`",
        ]
    ]


class ComparedTo(TypedDict):
    """How the system that `--to` names differs from every other."""

    system: Doc[str, "its name", ALWAYS]
    difference: Doc[dict[str, dict[str, Difference]], "by the other's name and metric: it minus the other", ALWAYS]
    summary: Doc[dict[str, Sentence], "by the other's name: whether it is better", ALWAYS]


class Calibration(TypedDict):
    """How far probabilities can be believed."""

    ece: Doc[float, "expected calibration error: mean distance of accuracy from confidence, by answers", ALWAYS]
    bins: Doc[
        list[dict[str, float]], "0.1 wide, from `low`: `n` answers, mean `confidence`, share right (`accuracy`)", ALWAYS
    ]


class Scores(TypedDict):
    """What an evaluation found; [metrics.md](metrics.md) says what each metric is."""

    n: Doc[int, "rows evaluated", ALWAYS]
    groups: NotRequired[
        Doc[int, "groups that the rows are of, where some share one: intervals and tests are over these"]
    ]
    base: Doc[dict[str, float], "the base's score by metric", ALWAYS]
    tuned: Doc[dict[str, float], "the tuned model's", ALWAYS]
    difference: Doc[dict[str, Difference], "by metric, see below", ALWAYS]
    leading: Doc[str, "the metric to decide by"]
    summary: Doc[Sentence, "what the differences mean, one or two sentences: `en`, `zh`"]
    baselines: Doc[dict[str, dict[str, float | str]], "scores that need no model: `majority`, or `copy` and `lead`"]
    language: Doc[str, "what the words were counted as"]
    labels: Doc[list[str], "the labels scored by, or none"]
    signatures: Doc[dict[str, str], "how each score was made, with versions"]
    confusion: NotRequired[Doc[Confusion, "by side, true labels down and answers across; up to 1,000 labels"]]
    classes: NotRequired[Doc[dict[str, dict[str, Any]], "by side: precision, recall and F1 of each label"]]
    fields: NotRequired[Doc[FieldsBySide, "of JSON answers, by side: `f1` and `support` of each field"]]
    entities: NotRequired[Doc[FieldsBySide, "the same of each kind of entity"]]
    by_task: NotRequired[Doc[dict[str, TaskScores], "the same for each part of a mixture"]]
    systems: NotRequired[Doc[dict[str, SystemScores], "by the name of each other system, see below"]]
    intervals: NotRequired[
        Doc[
            dict[str, dict[str, list[float]]],
            "with `systems`: by system, base and tuned too, and metric the score's 95 % interval",
        ]
    ]
    to: NotRequired[Doc[ComparedTo, "with `--to`: how that system differs from every other, see below"]]
    training_seconds: NotRequired[Doc[float, "with `systems`: that the tuned model was trained"]]
    ms_per_answer: NotRequired[Doc[float, "milliseconds an answer of one side took, both answered in one batch"]]
    ms_by_side: NotRequired[Doc[dict[str, float], "of a run that labels texts: the same of base and tuned, each alone"]]
    bytes: NotRequired[
        Doc[dict[str, int], "of base and tuned, 16 bits a number where they aren't quantized; LoRA counts as merged"]
    ]
    calibration: NotRequired[
        Doc[
            dict[str, dict[str, Calibration]],
            "of a run that labels texts, by side: its probabilities `before` and `after` they were scaled by a temperature",
        ]
    ]
    general: NotRequired[
        Doc[General, "what was forgotten: `n`, `base`, `tuned`, `difference`, `kinds`, `forgotten`, `summary`"]
    ]
    outputs: Doc[str, "the path of `outputs.jsonl`"]
    evaluation: Doc[str, "the folder's name"]
    run: Doc[str, "the run's name"]
    task: Doc[str, "as in `config.json`"]
    settings: Doc[dict[str, Any], "every setting of `evaluate`, by the names of [its flags](commands.md#evaluate)"]
    by_visitor: NotRequired[
        Doc[bool, "true where a visitor of the app asked for it: raters aren't asked about it by itself"]
    ]
    left_out: Doc[int, "rows that the template refuses or the model's context can't hold"]
    seconds: Doc[float, "that the evaluation took"]


class OutputRow(TypedDict):
    """One held-out row and what both sides answered."""

    row: Doc[int, "from 0, in the order of the split", ALWAYS]
    task: Doc[str | None, "the part of a mixture it comes from"]
    messages: Doc[list[Turn], "the conversation up to the answer", ALWAYS]
    references: Doc[list[str], "right answers", ALWAYS]
    label: Doc[str | None, "the right label, where there is one"]
    labels: NotRequired[Doc[list[str], "the right labels, where several may apply"]]
    group: NotRequired[Doc[str, "what keeps rows together that don't stand alone, resampled as one"]]
    tools: NotRequired[Doc[list[dict[str, Any]], "the functions that the conversation may call"]]
    answer: NotRequired[Doc[dict[str, Any], "the whole reference turn, where it has thoughts or calls"]]
    base: Doc[str, "the base's answer, its thoughts included", ALWAYS]
    tuned: Doc[str, "the tuned model's", ALWAYS]
    base_cut: NotRequired[Doc[bool, "true where the base's answer ended at the limit of tokens and not by itself"]]
    tuned_cut: NotRequired[Doc[bool, "and the tuned model's"]]
    base_nll: NotRequired[Doc[float, "negative log-likelihood of the reference under the base, nats"]]
    tuned_nll: NotRequired[Doc[float, "under the tuned model"]]
    base_likelihood: NotRequired[Doc[str, "the label that the base holds likeliest"]]
    tuned_likelihood: NotRequired[Doc[str, "and the tuned model"]]
    base_likelihood_per_byte: NotRequired[Doc[str, "the likeliest by log-likelihood over its length in bytes"]]
    tuned_likelihood_per_byte: NotRequired[Doc[str, "and for the tuned model"]]
    base_probabilities: NotRequired[Doc[dict[str, float], "of each label, of a run that labels texts; calibrated"]]
    tuned_probabilities: NotRequired[Doc[dict[str, float], "and of the tuned model"]]
    base_confidence: NotRequired[Doc[float, "of the likeliest label before calibration"]]
    tuned_confidence: NotRequired[Doc[float, "and of the tuned model"]]
    answer_tokens: NotRequired[Doc[int, "tokens of the reference, its end of turn included"]]
    answer_bytes: NotRequired[Doc[int, "bytes of the reference"]]


class AnswerRow(TypedDict):
    """A line of another system's answers."""

    answer: Doc[str, "to the row of that place in `outputs.jsonl`", ALWAYS]


class GeneralRow(TypedDict):
    """One general question of `evaluate --general`, and what both sides answered."""

    kind: Doc[str, "what it asks for", ALWAYS]
    messages: Doc[list[Turn], "the question", ALWAYS]
    references: Doc[list[str], "what a right answer has in it", ALWAYS]
    base: Doc[str, "the base's answer", ALWAYS]
    tuned: Doc[str, "the tuned model's", ALWAYS]
    base_nll: Doc[float, "negative log-likelihood of the right answer under the base, nats", ALWAYS]
    tuned_nll: Doc[float, "under the tuned model", ALWAYS]
    answer_tokens: Doc[int, "tokens of the right answer", ALWAYS]
    answer_bytes: Doc[int, "its bytes", ALWAYS]
