"""Base against tuned on the same held-out rows: greedy answers, label likelihoods, scores and their uncertainty."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from sftdemo import files, runs
from sftdemo.config import kinds
from sftdemo.config.evaluate import EvaluateConfig
from sftdemo.config.generate import GenerateConfig
from sftdemo.data.conversion.wording import wordings_of
from sftdemo.encoding import encode
from sftdemo.encoding.thoughts import answer_of
from sftdemo.errors import Text, UserError
from sftdemo.evaluation import summary
from sftdemo.evaluation.scorecard import SIDES, likeliest, score_outputs
from sftdemo.inference import load_run
from sftdemo.log import TO_LOG, Reporter
from sftdemo.runs.partial import Partial
from sftdemo.schema.evaluation import General, OutputRow, Scores
from sftdemo.systems import spec
from sftdemo.systems.system import Task
from sftdemo.verbs import answer_rows, forgetting, other_systems
from sftdemo.verbs.evaluation_rows import add_spelled_calls, all_labels, choices_of, fits, held_out, rows_of, taken

if TYPE_CHECKING:
    from sftdemo.data import Example
    from sftdemo.inference.side_by_side import SideBySide

LONGEST_ANSWER = 256  # tokens, where the references would allow more
SHORTEST_ROOM = 40  # tokens, where they would allow fewer: a base that answers a label with a sentence can end it


def evaluate(
    run: runs.Run | str,
    config: EvaluateConfig | None = None,
    pair: SideBySide | None = None,
    reporter: Reporter = TO_LOG,
    by_visitor: bool = False,
) -> Scores:
    """Evaluate a run and return its scores.json (keys in design order: n, base, tuned, difference, outputs, …).

    `pair` is the run's loaded models, if the caller has them. Answers are kept batch by batch: an evaluation that was stopped
    (by `reporter`) or killed goes on where it was when the same is asked again. Raises UserError when stopped, or when there
    is nothing to evaluate on. One `by_visitor` of the app isn't what raters are asked about.
    """
    run = runs.find(run) if isinstance(run, str) else run
    config = (config or EvaluateConfig()).check()
    began = time.perf_counter()
    systems = spec.parse(config.against, run)
    spec.check_asked(config, systems)
    examples = held_out(run, config, reporter)
    choices = choices_of([*cast("list[Example]", run.examples("train")), *examples])
    chats = run.kind not in kinds.LABELLING
    pair = (pair or load_run.load(run, reporter)) if chats else None
    fitting = _fitting(examples, pair, reporter) if pair else examples
    rows = rows_of(fitting)
    if pair:
        add_spelled_calls(rows, pair.tokenizer)
    longest = config.max_new_tokens or (_longest_answer(pair, rows) if pair else LONGEST_ANSWER)
    # Texts and labels in one set: only what can be said of all its rows is, and the rest of each task.
    labels = all_labels(choices) if all(row["label"] for row in rows) else []
    task = _task(run, rows, labels, longest, config, pair, reporter) if systems else None
    if task:
        for system in systems:
            system.check(task)
    generate = GenerateConfig(max_new_tokens=longest, beams=config.beams)
    weights = sorted((file.name, file.stat().st_mtime_ns) for file in run.model_path.glob("*.safetensors"))
    partial = Partial.of(run, [rows, choices, generate.to_json(), weights], OutputRow)
    more: dict[str, Any] = {
        "left_out": len(examples) - len(fitting),
        "bytes": load_run.weight_bytes(run),
        **({"by_visitor": True} if by_visitor else {}),
    }
    general = None
    if pair:
        ms_per_answer = _answer(pair, rows, choices, generate, config.batch_size, partial, reporter)
        _say_unfinished(rows, longest, reporter)
        general = forgetting.measure(pair, config.batch_size, config.seed, reporter) if config.general else None
        more |= {"ms_per_answer": ms_per_answer} if ms_per_answer else {}
    else:
        more |= answer_rows.fill(run, rows, longest, config, reporter)
    result = _write(run, config, cast("list[OutputRow]", rows), labels, began, general, more)
    if task:  # after one that can't answer, the next try needn't ask base and tuned again
        result = other_systems.add_systems(run, result["evaluation"], systems, task, config)
    partial.remove()
    return result


def _fitting(examples: list[Example], pair: SideBySide, reporter: Reporter) -> list[Example]:
    """The rows that the model's template takes and its context holds; UserError where there are none."""
    accepted, _ = taken(examples, pair, reporter)
    fitting = [example for example in accepted if fits(example, pair)]
    if passing := len(accepted) - len(fitting):
        reporter.info(
            Text(
                "Rows left out, since prompt and answer would pass the model's {context} tokens: {n}.",
                context=pair.context,
                n=passing,
            )
        )
    if not fitting:
        raise UserError(
            "No row fits into the model's {context} tokens; give shorter ones with --data.", context=pair.context
        )
    return fitting


def _task(
    run: runs.Run,
    rows: list[dict[str, Any]],
    labels: list[str],
    longest: int,
    config: EvaluateConfig,
    pair: SideBySide | None,
    reporter: Reporter,
) -> Task:
    """What other systems answer; a training row that balancing or a mixture's weight repeats is there once."""
    once = {
        json.dumps([example.get("meta"), example["messages"]], sort_keys=True): example
        for example in cast("list[Example]", run.examples("train"))
    }
    validation = cast("list[Example]", run.examples("validation"))
    train, counts, templates = (
        list(once.values()),
        trained_labels(run),
        [each.template for each in wordings_of(run.config())],
    )
    answering = (longest, config.batch_size, config.seed, pair, reporter, templates, config.beams)
    return Task(rows, train, validation, counts, labels, *answering, system=run.system_message)


def _reference_ids(pair: SideBySide, row: dict[str, Any]) -> list[int]:
    return encode.answer_ids(
        pair.tokenizer, row["messages"], row.get("answer") or row["references"][0], row.get("tools")
    )


def _answer(
    pair: SideBySide,
    rows: list[dict[str, Any]],
    choices: dict[str, list[str]],
    generate: GenerateConfig,
    batch_size: int,
    partial: Partial,
    reporter: Reporter,
) -> float | None:
    """Fill in both sides' answers, what each holds likeliest among a task's labels, and the likelihood of the reference.

    Returns the milliseconds that an answer of one side took, None where all were there before.
    """
    began = time.perf_counter()
    done = partial.read()
    before = len(done)
    for number, row in done.items():
        rows[number] |= row
    reporter.answered(len(done), len(rows))
    prompts = [row["messages"] for row in rows]
    labels = all_labels(choices)
    place = {label: number for number, label in enumerate(labels)}
    tools = [row.get("tools") for row in rows]
    label_ids = [encode.answer_ids(pair.tokenizer, prompts[0], label, tools[0]) for label in labels]
    references = [_reference_ids(pair, row) for row in rows]
    # A label's likelihood is that of the reference too; it needn't be computed twice.
    unscored = [] if all(row["label"] for row in rows) else references
    for answers in pair.answers(prompts, generate, batch_size, label_ids, unscored, done, reporter, tools):
        for index, answer in answers.items():
            row = rows[index]
            for side in SIDES:
                row[side] = answer[side]
                if answer.get(f"{side}_cut"):
                    row[f"{side}_cut"] = True
                if row["label"]:
                    among = choices[row["task"] or ""]
                    scores = [answer[f"{side}_likelihoods"][place[label]] for label in among]
                    row |= {f"{side}_{kind}": label for kind, label in likeliest(among, scores).items()}
                    row[f"{side}_nll"] = -scores[among.index(row["label"])]
                else:
                    row[f"{side}_nll"] = answer[f"{side}_nll"]
            row |= {"answer_tokens": len(references[index]), "answer_bytes": len(row["references"][0].encode())}
            done[index] = row
        partial.add([rows[index] for index in answers])
        reporter.answered(len(done), len(rows))
    if len(done) < len(rows):
        raise UserError(
            "Stopped after {done} of {n} rows; the same evaluation asked again goes on from there.",
            done=len(done),
            n=len(rows),
        )
    new = len(SIDES) * (len(done) - before)
    return 1000 * (time.perf_counter() - began) / new if new else None


def _longest_answer(pair: SideBySide, rows: list[dict[str, Any]]) -> int:
    """Room for half as much again as the longest reference needs, and for a sentence: a wordier base is judged, by metrics
    and by raters, on a whole answer."""
    answers = [text for row in rows for text in row["references"]]
    thoughts = [row["answer"]["reasoning_content"] for row in rows if "reasoning_content" in row.get("answer", {})]

    def room(texts: list[str]) -> int:
        longest = max(map(len, pair.tokenizer(texts, add_special_tokens=False)["input_ids"]))
        return longest + longest // 2 + 8

    return max(SHORTEST_ROOM, min(LONGEST_ANSWER, room(answers))) + (room(thoughts) if thoughts else 0)


SIDE_NAMES = {"base": Text("base"), "tuned": Text("tuned")}


def _say_unfinished(rows: list[dict[str, Any]], longest: int, reporter: Reporter) -> None:
    """Thoughts that never ended leave no answer: what is measured then is the limit, not the model."""
    for side in SIDES:
        if cut := sum(not answer_of(row[side]) and bool(row[side]) for row in rows):
            reporter.info(
                Text(
                    "{cut} of {n} answers of {side} end amid their thoughts, after {longest} tokens; raise "
                    "--max-new-tokens, or train with --thinking off where the model has both modes.",
                    cut=cut,
                    n=len(rows),
                    side=SIDE_NAMES[side],
                    longest=longest,
                )
            )


def _write(
    run: runs.Run,
    config: EvaluateConfig,
    outputs: list[OutputRow],
    labels: list[str],
    began: float,
    general: dict[str, Any] | None,
    more: dict[str, Any],
) -> Scores:
    """Score, and save both files, outputs first, so that scores.json says the evaluation is whole; with `more` of its keys."""
    task = run.trained_config()["data"]["task"]
    name = run.new_evaluation()
    folder = run.path / "evaluations" / name
    path = folder / "outputs.jsonl"
    scores = _scored(run, outputs, labels, config.seed) | {
        "outputs": str(path),
        "evaluation": name,
        "run": run.name,
        "task": task,
        "settings": config.to_json(),
        **more,
        "seconds": round(time.perf_counter() - began, 1),
    }
    with run.unless_deleted():
        if general:
            files.write_jsonl(folder / "general.jsonl", general.pop("outputs"), parents=False)
            scores["general"] = general
        files.write_jsonl(path, outputs, parents=False)
        files.write_json(folder / "scores.json", scores, parents=False)
    return cast("Scores", scores)


def _scored(run: runs.Run, outputs: Sequence[OutputRow], labels: list[str], seed: int) -> dict[str, Any]:
    """The scores of a run's outputs; the verdict says what its base is where that is no model as it came."""
    scores = score_outputs(outputs, labels, seed, trained_labels(run))
    if run.kind in kinds.LABELLING:
        several = any("labels" in row for row in outputs)
        english, chinese = summary.base_of_labels(run.trained_config()["settings"]["method"], run.kind, several)
        said = scores["summary"]
        scores["summary"] = {"en": f"{said['en']} {english}", "zh": f"{said['zh']}{chinese}"}
    return scores


def trained_labels(run: runs.Run) -> Counter[str]:
    """How often each label occurs in the run's training rows, before any balancing."""
    before = run.config().get("data", {}).get("balance", {}).get("before")
    after = Counter(str(example["label"]) for example in run.examples("train") if example.get("label"))
    # Of several sources each label is counted there with its source's name.
    return Counter(before) if before and before.keys() == after.keys() else after


def rescore(run: runs.Run | str, name: str) -> Scores:
    """The scores of a saved evaluation made anew from its outputs, without a model; scores.json is replaced."""
    run = runs.find(run) if isinstance(run, str) else run
    if name not in run.evaluations():
        raise UserError(
            "Run {name} has no evaluation {evaluation!r}; there are: {known}.",
            name=run.name,
            evaluation=name,
            known=run.evaluations() or Text("none yet"),
        )
    old = run.scores(name)
    seed = old.get("settings", {}).get("seed", EvaluateConfig.seed)
    scores = _scored(run, run.outputs(name), old.get("labels", []), seed)
    result = cast("Scores", {**old, **scores})
    folder = run.path / "evaluations" / name
    if systems := old.get("systems"):
        files.write_json(folder / "scores.json", result)  # the systems are compared with what stands there
        result = other_systems.compared(run, name, result, systems)
        result = cast("Scores", {**result, **other_systems.chosen(run, name, result)})
    if general := run.general_outputs(name):
        result["general"] = cast("General", forgetting.judge(cast("list[dict[str, Any]]", general), seed))
    files.write_json(folder / "scores.json", result)
    return result
