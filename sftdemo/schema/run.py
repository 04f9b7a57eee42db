"""What a run folder says of a training: config.json, status.json, metrics.jsonl, checkpoint.json, and the rows in data/."""

from __future__ import annotations

from typing import Annotated as Doc
from typing import Any, Literal, NotRequired, TypedDict

from sftdemo.schema.json_types import ALWAYS
from sftdemo.schema.lineage import Origin, StudentConfig
from sftdemo.schema.owner import Imported
from sftdemo.stages import Stage

State = Literal["queued", "running", "stopping", "finished", "stopped", "failed"]


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


_FromRun = TypedDict(
    "_FromRun", {"from": NotRequired[Doc[Origin, "with `from_run`: where it comes from, see below"]]}, total=False
)


class RunConfig(_FromRun):
    """Written before training begins. The web app writes `settings` alone; the training process adds the rest."""

    settings: Doc[dict[str, Any], "every setting of `train`, by the names of [its flags](commands.md#train)"]
    data: Doc[DataConfig, "see below"]
    base_model: Doc[str, "the folder the base's weights were read from"]
    model_source: Doc[str, "what served the base: a local folder, a cache, the Hub …"]
    precision: Doc[str, "the compute dtype, and why"]
    versions: Doc[dict[str, str], "of the libraries that decide the outcome"]
    sweep: NotRequired[Doc[dict[str, Any], "of settings that a sweep chose: its `file`, the `trial`, `of` how many"]]
    student: NotRequired[Doc[StudentConfig, "with `teacher`, see below"]]
    imported: NotRequired[Doc[Imported, "of a run that wasn't trained here: where it comes from, see below"]]


class MetricsRow(TypedDict):
    """One logged step of training."""

    step: Doc[int, "optimizer steps done", ALWAYS]
    epoch: Doc[float, "passes over the data done"]
    loss: NotRequired[
        Doc[float, "mean over learned tokens since the last row, nats a token; of a run that labels texts, a row"]
    ]
    learning_rate: NotRequired[Doc[float, "of this step"]]
    grad_norm: NotRequired[Doc[float, "of this step"]]
    tokens_per_s: NotRequired[Doc[float, "tokens of the rows trained on, padding not, since the first step"]]
    eval_loss: NotRequired[Doc[float, "the same over the validation rows; stands in a row of its own"]]
    eval_score: NotRequired[Doc[float, "the metric of `best_by`, beside `eval_loss`"]]


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
    trained_parameters: Doc[int, "numbers that were trained: of the weights, or of what LoRA adds"]
    resumed: Doc[list[int], "the steps from which an interrupted training went on"]
    best_step: Doc[int | None, "with `keep_best` or `patience`: the step whose model was kept; `eval_loss` is its loss"]
    early_stopped: Doc[bool, "`patience` ended it"]
    eval_score: Doc[float | None, "with `best_by`: that metric of the model that was kept"]


class StageState(TypedDict):
    """What the process is doing now, and how far it is with that."""

    name: Doc[
        Stage,
        "`reading`, `fetching`, `converting`, `encoding`, `sweeping`, `loading`, `first_validation`, `training`, `validating` or "
        "`saving`",
        ALWAYS,
    ]
    done: Doc[
        int,
        "of `total` bytes (`fetching`, `loading`), batches (both validations) or steps (`training`, `sweeping`)",
        ALWAYS,
    ]
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
    step: NotRequired[Doc[float, "seconds that the last step took"]]
    saving: NotRequired[Doc[float, "seconds that the last checkpoint took"]]


class Checkpoint(TypedDict):
    """What training goes on from, beside the files that the Trainer wrote: weights, optimizer, schedule, random states."""

    step: Doc[int, "optimizer steps done"]
    total: Doc[int, "optimizer steps in all"]
    processes: Doc[int, "how many trained together"]
    dtype: Doc[str, "the compute dtype"]
    device: NotRequired[Doc[str, "`cpu`, `cuda` …: what it was trained on"]]
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


class Turn(TypedDict):
    """One message of a conversation; it may have more keys."""

    role: Doc[str, "`system`, `user`, `assistant` or `tool`", ALWAYS]
    content: Doc[str, "its text", ALWAYS]


class ExampleRow(TypedDict):
    """A line of `data/*.jsonl`, as far as it is checked when it is read again."""

    messages: Doc[list[Turn], "the conversation", ALWAYS]
    label: NotRequired[Doc[str | None, "the right label"]]
    labels: NotRequired[Doc[list[str], "the right labels, where several may apply"]]
    references: NotRequired[Doc[list[str], "right answers"]]
    meta: NotRequired[Doc[dict[str, Any], "where it comes from"]]
