"""What each command does: flags in, a JSON value and a text for people out."""

from __future__ import annotations

import argparse
import csv
import shlex
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftdemo import runs
from sftdemo.cli.flags import flags_given, from_flags
from sftdemo.cli.progress_bar import Bar
from sftdemo.config import settings_file
from sftdemo.config.evaluate import EvaluateConfig
from sftdemo.config.read import ReadConfig
from sftdemo.config.train import TrainConfig
from sftdemo.errors import Fault, UsageError, UserError
from sftdemo.evaluation.registry import METRICS
from sftdemo.evaluation.systems_table import sides_as_systems
from sftdemo.log import Reporter
from sftdemo.runs import starter, voting
from sftdemo.runs.voting import Contest
from sftdemo.schema.evaluation import Scores
from sftdemo.ui.access.settings import AppConfig

if TYPE_CHECKING:
    pass

DEMO = {"data": "support_tickets", "epochs": 1.0}


@dataclass(frozen=True)
class Result:
    """A command's JSON value, its text for people, and its exit status."""

    value: Any
    text: str = ""
    exit_code: int = 0


class Notes(Reporter):
    """Keeps what is said, for the JSON."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def info(self, text: str) -> None:
        self.texts.append(text)
        super().info(text)


def check(options: argparse.Namespace) -> Result:
    from sftdemo.verbs.check import inspect

    value = inspect(from_flags(options, TrainConfig), options.row)
    lines = [f"{value['examples']} examples, layout {value['format']}, task {value['task']}.", *_of_data(value)]
    if value["labels"]:
        lines.append("Labels: " + ", ".join(f"{label} {count}" for label, count in value["labels"].items()))
    if value["tokens"]:
        lines.append(
            "Tokens a row: median {p50}, 95 % under {p95}, longest {max}; ".format(**value["tokens"])
            + f"{value['supervised_tokens']} learned in all."
        )
        lines += _of_lengths_and_template(value)
    repeated = "{duplicates} duplicate rows ({near_duplicates} with those nearly the same)".format(**value)
    lines.append(f"{repeated}, {value['leaked']} held-out rows that also stand in train.")
    for token in value.get("xray", []):
        lines.append(f"{token['id']:>7} {'learned' if token['supervised'] else '       '} {token['text']!r}")
    return Result(value, "\n".join(lines), 1 if value["faults"] else 0)


def _of_lengths_and_template(value: dict[str, Any]) -> list[str]:
    """What `check` says of rows over the limit and of the chat template."""
    lengths, template = value["lengths"], value["template"]
    lines = []
    if lengths["over"]:
        lines.append(
            "{over} rows are over max_length {max_length}; on_long {on_long}: {dropped} left out, {cut} cut, "
            "{split} split into {chunks} chunks.".format(**lengths)
        )
    if template:
        failed = ", ".join(check for check in template["reasons"])
        lines.append(f"Template: {f'fails {failed}' if failed else 'all checks hold'}.")
    return lines


TOLD = {"faults": "fault", "dropped": "left out", "fixed": "repaired", "warnings": "warning"}
SHOWN = 100  # lines of each kind in the text; --json lists all


def _of_data(value: dict[str, Any]) -> list[str]:
    """What `check` says of columns, faults, warnings, cleaning and sizes."""
    lines = []
    if mapping := ", ".join(f"{role} is {column!r}" for role, column in value["mapping"].items()):
        lines.append(f"Columns: {mapping}.")
    lines += ["{name}: {task}, weight {weight:g}, rows {rows}.".format(**part) for part in value["sources"]]
    for key, word in TOLD.items():
        faults = value[key]
        lines += [f"{word}: {Fault(**fault)}" for fault in faults[:SHOWN]]
        if len(faults) > SHOWN:
            lines.append(f"{word}: … and {len(faults) - SHOWN} more; --json lists all.")
    for step in value["cleaning"]:
        kinds = "".join(f", {kind} {count}" for kind, count in step["kinds"].items())
        lines.append(f"Cleaning, {step['step']}: {step['count']} rows{kinds}.")
        for example in step["examples"]:
            like = f", as line {example['like']}" if example["like"] else ""
            after = f"taken out{like}" if example["after"] is None else repr(example["after"])
            lines.append(f"  line {example['line']}: {example['before']!r} → {after}")
    lines += value["notes"]
    if sizes := value["split_sizes"]:
        lines.append("Rows: " + ", ".join(f"{name} {rows}" for name, rows in sizes.items()) + ".")
    if balance := value["balance"]:
        lines.append("Balance {method}: {before} → {after}.".format(**balance))
    return lines


def train(options: argparse.Namespace) -> Result:
    from sftdemo.training.resume import settings
    from sftdemo.training.train import train

    run = None
    if options.run:
        run = runs.find(options.run)
        config = settings(run)
        if options.stop_after is not None:
            from sftdemo.verbs import jobs

            limit = (run, options.stop_after)
            threading.Thread(target=jobs.stop_after, args=limit, name="limit", daemon=True).start()
    else:
        from_file = settings_file.read(options.config, TrainConfig) if options.config else {}
        config = TrainConfig.from_json({**from_file, **flags_given(options, TrainConfig)})
        if options.save_config:
            settings_file.write(config, options.save_config)
            return Result(config.to_json(), f"The settings are in {options.save_config}.")
        if not (config.data or config.resume or config.teacher):
            raise UsageError("data is empty; give a file, a folder, the name of a sample set, or a Hub id.")
    left = starter.minutes_left(runs.find(config.resume)) if config.resume else None  # of a run that a visitor began
    return of_training(train(config, run, Bar(), left and 60 * left, wait=not options.no_wait))


def of_training(summary: Mapping[str, Any]) -> Result:
    """What is said of a training that has ended."""
    text = (
        f"Run {summary['run']}: {summary['status']} after {summary['steps']} steps in {summary['seconds']:.0f} s, "
        f"{summary['tokens_per_s']:.0f} tokens/s."
    )
    if summary["eval_loss"] is not None:
        text += f" Validation loss {summary['first_eval_loss']:.3f} → {summary['eval_loss']:.3f}."
    if summary.get("eval_score") is not None:
        text += f" Metric of answers to validation rows: {summary['eval_score']:.3f}."
    if summary["best_step"] is not None:
        early = "Stopped early, as it got no better. " if summary["early_stopped"] else ""
        text += f" {early}Kept: the model of step {summary['best_step']}."
    if summary["status"] == "stopped":
        text += f" It goes on with: python -m sftdemo train --resume {shlex.quote(summary['run'])}"
    return Result(summary, text, 130 if summary["status"] == "stopped" else 0)


def compress(options: argparse.Namespace) -> Result:
    from sftdemo.training.train import train
    from sftdemo.verbs.compress import student_settings

    config = student_settings(runs.find(options.run), flags_given(options, TrainConfig))
    return of_training(train(config, None, Bar(), wait=not options.no_wait))


def evaluate(options: argparse.Namespace) -> Result:
    from sftdemo.verbs.evaluate import rescore

    run = runs.find(options.run)
    if options.rescore:
        scores = rescore(run, options.rescore)
        return Result(scores, table(scores))
    scores = _evaluated(run, from_flags(options, EvaluateConfig))
    return Result(scores, table(scores))


def _evaluated(run: runs.Run | str, config: EvaluateConfig | None = None) -> Scores:
    from sftdemo.verbs.evaluate import evaluate

    return evaluate(run, config, reporter=Bar())


def table(scores: Scores) -> str:
    """Base, tuned and their difference, a line a metric, and the sentence that sums up."""
    lines = [
        f"{'on ' + str(scores['n']) + ' rows':<30} {'base':>8} {'tuned':>8} {'difference':>12}   95 % interval        p   Holm"
    ]
    for metric, difference in scores["difference"].items():
        digits = METRICS[metric].digits
        low, high = (f"{difference[end]:+.{digits}f}" for end in ("low", "high"))
        lines.append(
            f"{metric:<30} {scores['base'][metric]:>8.{digits}f} {scores['tuned'][metric]:>8.{digits}f} "
            f"{difference['delta']:>+12.{digits}f}   {low:>8} to {high:<8} {difference['p']:>6.4f} {difference['p_holm']:>6.4f}"
        )
    for name, baseline in scores.get("baselines", {}).items():
        value = baseline[scores["leading"]]
        lines.append(f"baseline {name}: {scores['leading']} {value:.{METRICS[scores['leading']].digits}f}")
    for task, task_scores in scores.get("by_task", {}).items():
        lines.append(f"{task}: {task_scores['summary']['en']}")
    if "general" in scores:
        lines.append(scores["general"]["summary"]["en"])
    systems = scores.get("systems", {})
    if systems:
        lines += ["", *_systems(scores), ""]
    of_systems = (
        scores["to"]["summary"] if "to" in scores else {name: facts["summary"] for name, facts in systems.items()}
    )
    return "\n".join([*lines, scores["summary"]["en"], *(sentence["en"] for sentence in of_systems.values())])


def _systems(scores: Scores) -> list[str]:
    """Each system's score by the leading metric, what the tuned model, or another one, has more, and what it costs."""
    metric, systems = scores["leading"], scores.get("systems", {})
    to, differences = "tuned", {name: facts["difference"] for name, facts in systems.items()}
    if "to" in scores:
        to, differences = scores["to"]["system"], scores["to"]["difference"]
    every = {**sides_as_systems(scores), **systems}
    width = max(30, *map(len, every))
    lines = [
        f"{'system':<{width}} {metric:>12} {'95 % interval':>18} {to[:20] + ' − it':>24}   95 % interval       Holm   training s"
        "   ms an answer         MB"
    ]
    intervals = scores.get("intervals", {})
    for name, facts in every.items():
        interval, difference = intervals.get(name, {}).get(metric), differences.get(name, {}).get(metric)
        lines.append(f"{name:<{width}} {_system(facts, metric, interval, difference)}")
    for name, system in systems.items():
        if tokens := system.get("tokens"):
            cost = f", which cost {system['cost']:.4g}" if "cost" in system else ""
            counts = (
                f"{tokens.get('prompt_tokens', 0):,} prompt and {tokens.get('completion_tokens', 0):,} answer tokens"
            )
            lines.append(f"{name}: {counts}{cost}")
    return lines


def _system(facts: Mapping[str, Any], metric: str, interval: Sequence[float] | None, difference: Any) -> str:
    """A line of the table of systems, behind the name."""
    digits = METRICS[metric].digits
    own = f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}" if interval else ""
    more = ""
    if difference:
        low, high = (f"{difference[end]:+.{digits}f}" for end in ("low", "high"))
        more = f"{difference['delta']:>+24.{digits}f}   {low:>8} to {high:<8} {difference['p_holm']:>6.4f}"
    costs = f"{_cost('.1f', facts.get('training_seconds')):>12} {_cost('.2f', facts.get('ms_per_answer')):>14}"
    return f"{facts['scores'][metric]:>12.{digits}f} {own:>18} {more:>54} {costs} {_megabytes(facts.get('bytes')):>10}"


def _megabytes(count: int | None) -> str:
    return _cost(",.1f", None if count is None else count / 10**6)


def _cost(form: str, value: float | None) -> str:
    return "–" if value is None else f"{value:{form}}"


def score(options: argparse.Namespace) -> Result:
    from sftdemo.evaluation.predictions import read_predictions
    from sftdemo.evaluation.scoring import score

    notes = Notes()
    rows = read_predictions(options.file, from_flags(options, ReadConfig), notes)
    value = score(rows, language=options.language, tokenizer=options.tokenizer) | {"notes": notes.texts}
    lines = [f"{key:<12} {number:.4f}" for key, number in value.items() if isinstance(number, float)]
    return Result(value, "\n".join([f"{value['n']} rows", *lines, *value["signatures"].values()]))


def votes(options: argparse.Namespace) -> Result:
    from sftdemo.votes import Store
    from sftdemo.votes.pairing import open_contest

    run, store = runs.find(options.run), Store()
    voting.check_kind(run)
    for rater, excluded in ((options.exclude, True), (options.include, False)):
        if rater:
            store.exclude(run, rater, excluded)
    if options.open:
        voting.open_for_votes(run, options.open)
    contest = None
    if options.between:
        open_contest(run, *_two_systems(options.between))
        contest = voting.open_contest(run)
    if options.export:
        text = store.export(run, options.export, contest)
        return Result({"format": options.export, "text": text}, text.rstrip("\n"))
    value = store.report(run, contest).to_json() | {"ranking": [vars(standing) for standing in store.ranking(run)]}
    of_contest = Contest.parse(contest or "")
    value |= {"base_is": of_contest.base_is, "tuned_is": of_contest.tuned_is}
    lines = [] if of_contest.is_usual else [f"base is {of_contest.base_is}, and tuned is {of_contest.tuned_is}"]
    lines += [f"{key:<10} {value}" for key, value in store.totals(run, contest).to_json().items()]
    return Result(value, "\n".join(lines))


def _two_systems(text: str) -> list[str]:
    names = [name.strip() for name in next(csv.reader([text], skipinitialspace=True), [])]
    if len(names) != 2:
        raise UsageError("between is {value!r}; give two systems, as linear,tuned.", value=text)
    return names


def report(options: argparse.Namespace) -> Result:
    from sftdemo.ui.report.document import report

    path = report(options.runs, options.to, options.language)
    return Result({"path": str(path)}, f"The report is in {path}.")


def backup(options: argparse.Namespace) -> Result:
    from sftdemo.verbs.backup import backup

    value = backup(Path(options.file), options.models)
    size = f"{value['bytes'] / 10**6:.1f} MB"
    return Result(value, f"{value['runs']} runs and {value['votes']} votes are in {value['path']} ({size}).")


def restore(options: argparse.Namespace) -> Result:
    from sftdemo.verbs.backup import restore

    value = restore(Path(options.file))
    return Result(value, f"{value['runs']} runs and {value['votes']} votes of {value['created']} are back.")


def app(options: argparse.Namespace) -> Result:
    from sftdemo.ui import launch

    launch(config=AppConfig.from_environment(**flags_given(options, AppConfig)))
    return Result({"status": "closed"})


def mcp(options: argparse.Namespace) -> Result:
    from sftdemo.cli import mcp_server

    mcp_server.serve()
    return Result({"status": "closed"})


def demo(options: argparse.Namespace) -> Result:
    from sftdemo.training.train import train

    summary = train(TrainConfig.from_json(DEMO), reporter=Bar())
    if summary["status"] == "stopped":
        raise UserError("Stopped; run {run} keeps what was learned.", run=summary["run"])
    scores = _evaluated(summary["run"])
    return Result({"train": summary, "evaluate": scores}, table(scores))
