"""Every key of every file in a run folder, as types: docs/run-folder.md is written from them."""

from __future__ import annotations

from typing import Annotated as Doc
from typing import Any, Literal, NotRequired, TypedDict

from sftdemo.json_types import ALWAYS
from sftdemo.stages import Stage

State = Literal["queued", "running", "stopping", "finished", "stopped", "failed"]
Side = Literal["base", "tuned"]


class DataConfig(TypedDict):
    """What was read, and what was done to it."""

    source: Doc[str, "as it was given: a path, a sample's name, a Hub id, or a mixture"]
    name: Doc[str, "a short name for it"]
    format: Doc[str, "the layout that was found or asked for"]
    task: Doc[str, "`classification`, `translation`, `summarisation`, `generation` …"]
    sha256: Doc[str, "of the bytes that were read; where rows were edited, of those and the edits"]
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


class Edit(TypedDict):
    """A line of `data/edits.jsonl`: one edit of the rows as they were read, in the order in which they were made."""

    action: Doc[
        Literal["change", "leave_out", "add", "undo"],
        "`change` a value, `leave_out` or `add` a row, or `undo`: take back the last edit before it that still counts",
        ALWAYS,
    ]
    file: NotRequired[Doc[str, "the file's name; where the data is one file it may be left out"]]
    line: NotRequired[Doc[int, "the row's line, as faults name it; an added row gets one after the last"]]
    nth: NotRequired[Doc[int, "which of the rows that begin on that line, from 1; where it isn't the first"]]
    field: NotRequired[
        Doc[str | list[str | int], 'the column, or the way to a value inside it, as `["messages", 1, "content"]`']
    ]
    old: NotRequired[
        Doc[Any, "what stood there, the whole row where it is left out; with anything else there it is a fault"]
    ]
    new: NotRequired[Doc[Any, "what stands there now"]]
    row_hash: NotRequired[
        Doc[str, "of a changed value's whole row as it was; the page writes it, and a row with another hash is a fault"]
    ]
    values: NotRequired[Doc[dict[str, Any], "the columns of an added row"]]
    at: NotRequired[Doc[str, "when, in UTC"]]


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

    step: Doc[int, "optimizer steps done", ALWAYS]
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
    best_step: Doc[int | None, "with `keep_best` or `patience`: the step whose model was kept; `eval_loss` is its loss"]
    early_stopped: Doc[bool, "`patience` ended it"]


class StageState(TypedDict):
    """What the process is doing now, and how far it is with that."""

    name: Doc[
        Stage,
        "`reading`, `fetching`, `converting`, `encoding`, `loading`, `first_validation`, `training`, `validating` or `saving`",
        ALWAYS,
    ]
    done: Doc[int, "of `total` bytes (`fetching`, `loading`), batches (both validations) or steps (`training`)", ALWAYS]
    total: Doc[int, "how many in all; 0 where that isn't known", ALWAYS]
    began: Doc[float, "when the stage began, seconds since 1970", ALWAYS]


class Status(Summary, total=False):
    """Replaced at each change; the process that writes it is the one named in it."""

    state: Doc[State, "`queued`, `running`, `stopping`, `finished`, `stopped` or `failed`", ALWAYS]
    pid: Doc[int, "the training process"]
    process_start: Doc[float | None, "when that process began, seconds since the machine did: tells a reused pid apart"]
    boot_id: Doc[str, "which start of the machine that was; empty where the system doesn't say"]
    updated: Doc[float, "when this was written, seconds since 1970"]
    phase: Doc[str, "`preparing` or `training`"]
    stage: Doc[StageState, "what it is doing, see below; in a run that has ended it is missing"]
    epoch: Doc[float, "this and the next three: as in the newest row of `metrics.jsonl`"]
    loss: Doc[float, ""]
    learning_rate: Doc[float, ""]
    grad_norm: Doc[float, ""]
    step: Doc[int, "optimizer steps done"]
    total: Doc[int, "optimizer steps in all"]
    eta_s: Doc[float | None, "seconds left, about"]
    turn: Doc[int, "of a run that is queued: the lowest of all goes first"]
    expected_s: Doc[float | None, "of a run that is queued: how many seconds it will train, where that is known"]
    before: Doc[
        Any, "of a run that is queued to be resumed: its status before, which it has again where it is cancelled"
    ]
    error: Doc[str, "why it failed or was stopped before its first step, in one line"]
    error_key: Doc[Any, "the template of `error`, by which the page finds it in another language"]
    error_values: Doc[Any, "what the template was filled with; what is a text itself is `{text, key, values}`"]
    cut_off: Doc[bool, "it was ended from outside (killed, SIGTERM, out of time): `train --resume` goes on from there"]


class BudgetState(TypedDict):
    """What a checkpoint keeps of a budget of minutes."""

    spent: Doc[float, "seconds of it, with loading"]
    share: Doc[float, "of the training's own time, from 0 to 1; decides the learning rate"]
    evaluation: Doc[float, "seconds that the validation loss takes"]


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
    budget: NotRequired[Doc[BudgetState, "with `max_minutes`"]]
    best_step: NotRequired[Doc[int, "with `keep_best` or `patience`: the step of lowest validation loss so far"]]
    files: Doc[dict[str, str], "SHA-256 of each file in the folder"]


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
    bytes: NotRequired[Doc[int, "of the model; of a run with LoRA of the adapter"]]
    tokens: NotRequired[Doc[dict[str, int], "that an endpoint counted: `prompt_tokens`, `completion_tokens`"]]


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
    confusion: NotRequired[Doc[Confusion, "by side, true labels down and answers across"]]
    classes: NotRequired[Doc[dict[str, dict[str, Any]], "by side: precision, recall and F1 of each label"]]
    fields: NotRequired[Doc[FieldsBySide, "of JSON answers, by side: `f1` and `support` of each field"]]
    entities: NotRequired[Doc[FieldsBySide, "the same of each kind of entity"]]
    by_task: NotRequired[Doc[dict[str, TaskScores], "the same for each part of a mixture"]]
    systems: NotRequired[Doc[dict[str, SystemScores], "by the name of each other system, see below"]]
    ms_per_answer: NotRequired[Doc[float, "milliseconds an answer of one side took, both answered in one batch"]]
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


class Turn(TypedDict):
    """One message of a conversation; it may have more keys."""

    role: Doc[str, "`system`, `user`, `assistant` or `tool`", ALWAYS]
    content: Doc[str, "its text", ALWAYS]


class ExampleRow(TypedDict):
    """A line of `data/*.jsonl`, as far as it is checked when it is read again."""

    messages: Doc[list[Turn], "the conversation", ALWAYS]
    label: NotRequired[Doc[str | None, "the right label"]]
    references: NotRequired[Doc[list[str], "right answers"]]
    meta: NotRequired[Doc[dict[str, Any], "where it comes from"]]


class Voting(TypedDict, total=False):
    """voting.json: what the owner decided about votes on the run."""

    evaluation: Doc[str, "the evaluation that is open for votes"]
    tell_each_vote: Doc[
        bool, "whether raters are told after each vote which model wrote what, and not at the end alone"
    ]


class RunNotes(TypedDict, total=False):
    """notes.json: what the owner wrote about the run. The folder keeps its own name, which links, votes and exports use."""

    display_name: Doc[str, "what the run is called where people read it; without one, the folder's name"]
    notes: Doc[str, "for the owner alone"]
    tags: Doc[list[str], "for the filter of the list"]


class OutputRow(TypedDict):
    """One held-out row and what both sides answered."""

    row: Doc[int, "from 0, in the order of the split", ALWAYS]
    task: Doc[str | None, "the part of a mixture it comes from"]
    messages: Doc[list[Turn], "the conversation up to the answer", ALWAYS]
    references: Doc[list[str], "right answers", ALWAYS]
    label: Doc[str | None, "the right label, where there is one"]
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
    answer_tokens: NotRequired[Doc[int, "tokens of the reference, its end of turn included"]]
    answer_bytes: NotRequired[Doc[int, "bytes of the reference"]]


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
