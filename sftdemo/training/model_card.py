"""The model card of a run: what was trained on what, how, what came out, and how it is used elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sftdemo import files
from sftdemo.config.kinds import LABELLING
from sftdemo.config.start import DEFAULT_MODEL
from sftdemo.config.train import SOURCES, TrainConfig
from sftdemo.data.sources import card_path, front_matter
from sftdemo.evaluation.registry import METRICS
from sftdemo.runs import DamagedRun, Run
from sftdemo.schema.evaluation import Scores
from sftdemo.training import card_pictures, card_words
from sftdemo.training.card_use import HEAD, how_to_use, is_hub_id, pipeline_of, pooling_of
from sftdemo.votes import Store

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"  # of the default model, whose licence is known
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Terms:
    """What a card says of where the model goes: the repository's id, of its data set too, and the licences, as the Hub
    writes them; "" where that isn't known."""

    repository: str = ""
    dataset: str = ""
    license: str = ""
    data_license: str = ""


def write_card(run: Run, folder: Path, form: str, check: str, terms: Terms | None = None) -> None:
    """README.md of an export and its pictures, in the export's folder."""
    scores = _newest_scores(run)
    pictures = ""
    if card_pictures.draw_curve(run.metrics(), folder / card_pictures.CURVE):
        pictures += f"![Loss over the steps of the training]({card_pictures.CURVE})\n\n"
    if scores and card_pictures.draw_scores(scores, folder / card_pictures.SCORES):
        pictures += f"![Scores of base and tuned model]({card_pictures.SCORES})\n\n"
    card = model_card(run, run.status(), form, check, terms or Terms(), pictures)
    files.write_text(folder / "README.md", card)


def model_card(
    run: Run,
    summary: Mapping[str, Any],
    form: str = "",
    check: str = "",
    terms: Terms | None = None,
    pictures: str = "",
) -> str:
    """README.md of a run folder, or of an export as `form` with what its check said: a model card as the Hub takes it."""
    config, terms = run.trained_config(), terms or Terms()
    settings = TrainConfig.from_json(config["settings"]).to_json()
    # What says how the run was made; it has a model without that too.
    data: dict[str, Any] = {"source": UNKNOWN, "sha256": UNKNOWN, **config["data"]}
    sizes = ", ".join(f"{count} {split}" for split, count in data.get("sizes", {}).items()) or UNKNOWN
    versions = ", ".join(f"{name} {version}" for name, version in config.get("versions", {}).items()) or UNKNOWN
    votes = _votes(run) if form else ""  # of a run that has just been trained there are none
    head = HEAD if settings["method"] == "frozen" else "merged"
    form = form or ("adapter" if run.has_adapter else head)
    loss = ""
    if summary.get("eval_loss") is not None and summary.get("first_eval_loss") is not None:
        loss = f"Validation loss {summary['first_eval_loss']:.3f} → {summary['eval_loss']:.3f}. "
    if (step := summary.get("best_step")) is not None:
        by = "validation loss" if settings["best_by"] == "loss" else f"{settings['best_by']} on validation rows"
        early = f"Stopped early, as it got no better by {by}. " if summary.get("early_stopped") else ""
        loss += f"{early}This is the model of step {step}, kept for its {by}. "
    targets = f" LoRA on the layers {', '.join(names)}." if (names := summary.get("lora_targets")) else ""
    if count := summary.get("trained_parameters"):
        targets += f" {count:,} parameters were trained."
    if student := config.get("student"):
        kept = student.get("layers_kept")
        begin = f"began with {len(kept)} of its {len(student['block_influence'])} layers and " if kept else ""
        targets += f" A student of the run {student['teacher']}: it {begin}learned its probabilities."
    quantization = "" if settings["quantization"] == "none" else f", base weights in {settings['quantization']}"
    scores, words = _newest_scores(run), card_words.of(run)
    state = summary.get("status") or summary.get("state")
    data_license = terms.data_license or licence_of_data(data["source"])
    imported = config.get("imported")
    origin = f" It was imported from {imported['source']} ({imported['kind']})." if imported else ""
    training = f"""- **Data**: {data_name(data["source"])} ({data["task"]}), {sizes} rows; SHA-256 `{data["sha256"]}`; \
licence: {data_license or UNKNOWN}.
- **Training**: {summary.get("steps", 0)} steps, {summary.get("seconds", 0):.0f} s, \
{summary.get("tokens_per_s", 0):.0f} tokens/s, {state}. {loss}{words.loss}{targets}
{_lineage(config)}- **Settings**: {_settings(settings)}."""
    if imported and imported["kind"] != "run":
        training = "- **Data and training**: unknown; it wasn't trained here."
    return f"""{_metadata(run, settings, form, scores, terms)}
# {run.name}

{base_name(config)} ({config.get("model_source", UNKNOWN)}), {words.made} by \
{"others" if imported else "sftdemo"}: method {settings["method"]}{quantization}.{origin}

{training}
- **Libraries**: {versions}.

## What for

{words.purpose} Nothing else was tried.

## Measured

{pictures}{_measured(scores, run.kind, words.base)}

{votes}

## Limits

{words.limits}\
{"" if data_license else " The data's licence isn't known here: see that you may share what was learned from it."}

## Use

{how_to_use(run, form, base_name(config), settings, terms.repository)}

{check or f"`python -m sftdemo evaluate {run.name}` measures it against its base."}
"""


def licence_of_data(source: object) -> str:
    """The licence of a sample of ours, as the Hub writes it; of other data, ""."""
    return front_matter(card_path(str(source))).get("license", "").lower()


def base_name(config: Mapping[str, Any]) -> str:
    """The base of a run's config as others may know it: a Hub id, or of a local folder its name alone."""
    model = str(config["settings"]["model"])
    if model == DEFAULT_MODEL:
        return HUB_ID
    known = config.get("model_source") not in (None, "local folder")  # before a training it may be either
    return model if known and is_hub_id(model) else Path(model).name


def data_name(source: object) -> str:
    return str(source).rsplit("/", 1)[-1]


def _lineage(config: Mapping[str, Any]) -> str:
    """A line on the earlier runs that it went on from, the nearest first."""
    if not (origin := config.get("from")):
        return ""
    steps = [origin, *origin.get("before", [])]
    named = " ← ".join(f"{step['run']} ({step['method']}, weights `{step['weights'][:12]}`)" for step in steps)
    return f"- **Went on from**: {named}; data SHA-256 `{origin['data']}`.\n"


def _settings(settings: Mapping[str, Any]) -> str:
    of_this_home = {"name", "resume", "from_run", "teacher", "report_to"}
    hidden = {*SOURCES, *of_this_home, "columns", "instruction", "system"}
    if settings["method"] != "lora":
        hidden |= {spec.name for spec in fields(TrainConfig) if spec.metadata["group"] == "LoRA"}
    return ", ".join(f"{key} {value}" for key, value in settings.items() if key not in hidden and value is not None)


def _metadata(run: Run, settings: Mapping[str, Any], form: str, scores: Scores | None, terms: Terms) -> str:
    """The front matter, with the newest evaluation as its model-index."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type=pipeline_of(run),
            dataset_type="private",
            dataset_name="held-out rows",
            metric_type=metric,
            metric_name=METRICS[metric].names[0],
            metric_value=value,
        )
        for metric, value in (scores["tuned"] if scores else {}).items()
        if metric in METRICS and isinstance(value, int | float)
    ]
    base = base_name(run.config())
    card = ModelCardData(
        base_model=base if is_hub_id(base) else None,
        library_name={"adapter": "peft", "merged": "transformers", HEAD: "transformers"}.get(form, "gguf"),
        license=terms.license or ("apache-2.0" if settings["model"] == DEFAULT_MODEL else "other"),
        datasets=[terms.dataset] if terms.dataset else None,
        # The pipeline of that name would put a new head before the labels.
        pipeline_tag=None if form == "merged" and pooling_of(run) else pipeline_of(run),
        tags=["sft", settings["method"]],
        model_name=run.name,
        eval_results=results or None,
    )
    return f"---\n{card.to_yaml(line_break=chr(10))}\n---\n"


def _newest_scores(run: Run) -> Scores | None:
    for name in run.evaluations():
        try:
            return run.scores(name)
        except DamagedRun:
            continue
    return None


def _measured(scores: Scores | None, kind: str, about_base: str) -> str:
    """The newest evaluation, and what its base is, which the verdict of a newer one says itself."""
    if scores is None:
        return "\n\n".join(filter(None, ("Not evaluated yet.", about_base)))
    lines = ["| metric | base | tuned | difference, 95 % interval | p (Holm) |", "| --- | --- | --- | --- | --- |"]
    for metric, gain in scores["difference"].items():
        if metric in METRICS:
            base, tuned, delta, low, high = (
                f"{value:.{METRICS[metric].digits}f}"
                for value in (scores["base"][metric], scores["tuned"][metric], gain["delta"], gain["low"], gain["high"])
            )
            lines.append(f"| {metric} | {base} | {tuned} | {delta} ({low} to {high}) | {gain['p_holm']:.4f} |")
    beams = scores.get("settings", {}).get("beams", 1)
    how = "" if kind in LABELLING else ", greedily" if beams == 1 else f", by {beams} beams"
    said = scores["summary"]["en"]
    told = said if not about_base or about_base in said else f"{said}\n\n{about_base}"
    return f"On {scores['n']} held-out rows{how}:\n\n" + "\n".join(lines) + f"\n\n{told}"


def _votes(run: Run) -> str:
    totals = Store().totals(run)
    if not totals.n:
        return "No blind votes yet."
    counts = f"tuned {totals.tuned}, base {totals.base}, equally good {totals.tie}, both bad {totals.bad}"
    rate = ""
    if totals.win_rate is not None:
        rate = f"; of those for one side {totals.win_rate:.0%} for tuned (95 % interval {totals.low:.0%} to {totals.high:.0%})"
    return f"Blind votes of {totals.raters} raters on {totals.prompts} prompts: {counts}{rate}."
