"""Every key of every file in a run folder, as types; docs/run-folder.md is written from them."""

from __future__ import annotations

from typing import Annotated as Doc
from typing import Any, Literal, NotRequired, TypedDict

State = Literal["queued", "running", "stopping", "finished", "stopped", "failed"]
Side = Literal["base", "tuned"]


class DataConfig(TypedDict):
    """What was read, and what was done to it."""

    source: Doc[str, "as it was given: a path, a sample's name, a Hub id, or a mixture"]
    name: Doc[str, "a short name for it"]
    format: Doc[str, "the layout that was found or asked for"]
    task: Doc[str, "`classification`, `translation`, `summarisation`, `generation` …"]
    sha256: Doc[str, "of the bytes that were read"]
    labels: Doc[dict[str, int], "how many examples have each label"]
    mapping: Doc[dict[str, str], "the column behind each role"]
    instruction: Doc[str, "the template that user turns were written with, or empty"]
    sizes: Doc[dict[str, int], "examples in each split"]
    too_long: Doc[dict[str, int], "examples of each split that were left out as over `max_length`"]
    lengths: Doc[dict[str, dict[str, int]], "of each split: `over`, `dropped`, `cut`, `split`, `chunks`"]
    files: Doc[dict[str, str], "SHA-256 of each file in `data/`"]
    sources: Doc[list[dict[str, Any]], "the parts of a mixture"]
    dropped: Doc[list[dict[str, Any]], "the faults of rows left out: `line`, `field`, `problem`, `remedy`, `file`"]
    fixed: Doc[list[dict[str, Any]], "the faults of rows repaired; `remedy` says how"]
    cleaning: Doc[list[dict[str, Any]], "each step: `step`, `count`, `kinds`, `examples`"]
    balance: Doc[dict[str, Any], "`method`, `before`, `after`, where labels were balanced"]
    notes: Doc[list[str], "what a reader of the data should know"]


class RunConfig(TypedDict):
    """Written before training begins. The web app writes `settings` alone; the training process adds the rest."""

    settings: Doc[dict[str, Any], "every setting of `train`, by the names of [its flags](commands.md#train)"]
    data: Doc[DataConfig, "see below"]
    base_model: Doc[str, "the folder the base's weights were read from"]
    model_source: Doc[str, "what served the base: a local folder, a cache, the Hub …"]
    precision: Doc[str, "the compute dtype, and why"]
    versions: Doc[dict[str, str], "of the libraries that decide the outcome"]


class MetricsRow(TypedDict):
    """One logged step of training."""

    step: Doc[int, "optimizer steps done"]
    epoch: Doc[float, "passes over the data done"]
    loss: NotRequired[Doc[float, "mean over learned tokens since the last row, nats a token"]]
    learning_rate: NotRequired[Doc[float, "of this step"]]
    grad_norm: NotRequired[Doc[float, "of this step"]]
    tokens_per_s: NotRequired[Doc[float, "tokens of the rows trained on, padding not, since the first step"]]
    eval_loss: NotRequired[
        Doc[float, "mean over the learned tokens of the validation rows; stands in a row of its own"]
    ]


class Summary(TypedDict, total=False):
    """What `train` returns; it stays in the status of a run that has ended."""

    run: Doc[str, "the folder's name"]
    status: Doc[State, "`finished`, or `stopped` where it kept what was learned until then"]
    steps: Doc[int, "optimizer steps done"]
    train_loss: Doc[float, "mean over all steps"]
    eval_loss: Doc[float | None, "after the last step; none without validation rows"]
    first_eval_loss: Doc[float | None, "before the first step"]
    tokens_per_s: Doc[float, "as in `metrics.jsonl`"]
    seconds: Doc[float, "from loading to the last step"]
    model_source: Doc[str, "as in `config.json`"]
    peak_memory: Doc[int, "bytes that the process took at most"]
    estimated_memory: Doc[int, "bytes that were expected"]
    lora_targets: Doc[list[str], "the names of the layers that LoRA was put beside; with `full`, none"]
    resumed: Doc[list[int], "the steps from which an interrupted training went on"]


class Status(Summary, total=False):
    """Replaced at each change; the process that writes it is the one named in it."""

    state: Doc[State, "`queued`, `running`, `stopping`, `finished`, `stopped` or `failed`"]
    pid: Doc[int, "the training process"]
    process_start: Doc[float | None, "when that process began, seconds since the machine did: tells a reused pid apart"]
    boot_id: Doc[str, "which start of the machine that was; empty where the system doesn't say"]
    updated: Doc[float, "when this was written, seconds since 1970"]
    phase: Doc[str, "`preparing` or `training`"]
    epoch: Doc[float, "this and the next three: as in the newest row of `metrics.jsonl`"]
    loss: Doc[float, ""]
    learning_rate: Doc[float, ""]
    grad_norm: Doc[float, ""]
    step: Doc[int, "optimizer steps done"]
    total: Doc[int, "optimizer steps in all"]
    eta_s: Doc[float | None, "seconds left, about"]
    error: Doc[str, "why it failed or was stopped before its first step, in one line"]
    error_key: Doc[str, "the template of `error`, by which the page finds it in another language"]
    error_values: Doc[
        dict[str, Any], "what the template was filled with; what is a text itself is `{text, key, values}`"
    ]
    cut_off: Doc[bool, "it was ended from outside (killed, SIGTERM, out of time): `train --resume` goes on from there"]


class Checkpoint(TypedDict):
    """What training goes on from, beside the files that the Trainer wrote: weights, optimizer, schedule, random states."""

    step: Doc[int, "optimizer steps done"]
    total: Doc[int, "optimizer steps in all"]
    processes: Doc[int, "how many trained together"]
    dtype: Doc[str, "the compute dtype"]
    rows: Doc[str, "SHA-256 of the rows as token ids, training and validation"]
    base: Doc[str, "of samples spread over the base's weights"]
    versions: Doc[dict[str, str], "of the libraries, as in `config.json`"]
    row_tokens: Doc[int, "tokens of the rows trained on so far"]
    training_seconds: Doc[float, "from the first step's start to the last step's end, without interruptions"]
    seconds: Doc[float, "the same from loading on"]
    first_eval_loss: Doc[float | None, "before the first step"]
    loss_sum: Doc[float, "sum of the logged steps' losses"]
    pending_loss: Doc[float, "sum of the losses of the steps since the last row of `metrics.jsonl`"]
    logged_step: Doc[int, "the step of that row"]
    peak_memory: Doc[int, "bytes that a process took at most so far"]
    resumed: Doc[list[int], "the steps from which the training went on before"]
    files: Doc[dict[str, str], "SHA-256 of each file in the folder"]


class Difference(TypedDict):
    """Tuned minus base, for one metric."""

    delta: Doc[float, "tuned minus base"]
    low: Doc[float, "lower end of the 95 % interval"]
    high: Doc[float, "upper end"]
    p: Doc[float, "how often chance alone differs as much"]
    p_holm: Doc[float, "the same, corrected for all metrics asked"]


class Scores(TypedDict):
    """What an evaluation found; [metrics.md](metrics.md) says what each metric is."""

    n: Doc[int, "rows evaluated"]
    base: Doc[dict[str, float], "the base's score by metric"]
    tuned: Doc[dict[str, float], "the tuned model's"]
    difference: Doc[dict[str, Difference], "by metric, see below"]
    leading: Doc[str, "the metric to decide by"]
    summary: Doc[dict[str, str], "what the differences mean, one or two sentences: `en`, `zh`"]
    baselines: Doc[dict[str, dict[str, Any]], "scores that need no model: `majority`, or `copy` and `lead`"]
    language: Doc[str, "what the words were counted as"]
    labels: Doc[list[str], "the labels scored by, or none"]
    signatures: Doc[dict[str, str], "how each score was made, with versions"]
    confusion: NotRequired[Doc[dict[str, list[list[int]]], "by side, true labels down and answers across"]]
    classes: NotRequired[Doc[dict[str, dict[str, Any]], "by side: precision, recall and F1 of each label"]]
    by_task: NotRequired[Doc[dict[str, dict[str, Any]], "the same for each part of a mixture"]]
    general: NotRequired[
        Doc[dict[str, Any], "what was forgotten: `n`, `base`, `tuned`, `difference`, `kinds`, `forgotten`, `summary`"]
    ]
    outputs: Doc[str, "the path of `outputs.jsonl`"]
    evaluation: Doc[str, "the folder's name"]
    run: Doc[str, "the run's name"]
    task: Doc[str, "as in `config.json`"]
    settings: Doc[dict[str, Any], "every setting of `evaluate`, by the names of [its flags](commands.md#evaluate)"]
    left_out: Doc[int, "rows that the template refuses or the model's context can't hold"]
    seconds: Doc[float, "that the evaluation took"]


class OutputRow(TypedDict):
    """One held-out row and what both sides answered."""

    row: Doc[int, "from 0, in the order of the split"]
    task: Doc[str | None, "the part of a mixture it comes from"]
    messages: Doc[list[dict[str, Any]], "the conversation up to the answer"]
    references: Doc[list[str], "right answers"]
    label: Doc[str | None, "the right label, where there is one"]
    tools: NotRequired[Doc[list[dict[str, Any]], "the functions that the conversation may call"]]
    answer: NotRequired[Doc[dict[str, Any], "the whole reference turn, where it has thoughts or calls"]]
    base: Doc[str, "the base's answer, its thoughts included"]
    tuned: Doc[str, "the tuned model's"]
    base_nll: NotRequired[Doc[float, "negative log-likelihood of the reference under the base, nats"]]
    tuned_nll: NotRequired[Doc[float, "under the tuned model"]]
    base_likelihood: NotRequired[Doc[str, "the label that the base holds likeliest"]]
    tuned_likelihood: NotRequired[Doc[str, "and the tuned model"]]
    base_likelihood_per_byte: NotRequired[Doc[str, "the likeliest by log-likelihood over its length in bytes"]]
    tuned_likelihood_per_byte: NotRequired[Doc[str, "and for the tuned model"]]
    answer_tokens: NotRequired[Doc[int, "tokens of the reference, its end of turn included"]]
    answer_bytes: NotRequired[Doc[int, "bytes of the reference"]]


class GeneralRow(TypedDict):
    """One general question of `evaluate --general`, and what both sides answered."""

    kind: Doc[str, "what it asks for"]
    messages: Doc[list[dict[str, str]], "the question"]
    references: Doc[list[str], "what a right answer has in it"]
    base: Doc[str, "the base's answer"]
    tuned: Doc[str, "the tuned model's"]
    base_nll: Doc[float, "negative log-likelihood of the right answer under the base, nats"]
    tuned_nll: Doc[float, "under the tuned model"]
    answer_tokens: Doc[int, "tokens of the right answer"]
    answer_bytes: Doc[int, "its bytes"]
