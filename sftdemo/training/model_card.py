"""The model card of a run: what was trained on what, how, what came out, and how it is used elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sftdemo.config import DEFAULT_MODEL, TrainConfig
from sftdemo.evaluation.registry import METRICS
from sftdemo.runs import DamagedRun, Run
from sftdemo.schema import Scores
from sftdemo.votes import Store

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"  # of the default model, whose licence is known
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
UNKNOWN = "unknown"
USES = {
    "adapter": """```python
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer
model, tokenizer = AutoPeftModelForCausalLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")
ids = tokenizer.apply_chat_template([{"role": "user", "content": "…"}], add_generation_prompt=True, return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, do_sample=False, max_new_tokens=64)[0]))
```

vLLM: `vllm serve BASE --enable-lora --lora-modules tuned=.`""",
    "merged": """```python
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = AutoModelForCausalLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")
ids = tokenizer.apply_chat_template([{"role": "user", "content": "…"}], add_generation_prompt=True, return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, do_sample=False, max_new_tokens=64)[0]))
```

vLLM: `vllm serve .`""",
    "gguf": """```bash
ollama create NAME -f Modelfile
ollama run NAME
llama-server -m FILE.gguf --jinja
```""",
}


def model_card(run: Run, summary: Mapping[str, Any], form: str = "", check: str = "") -> str:
    """README.md of a run folder, or of an export as `form` with what its check said: a model card as the Hub takes it."""
    config = run.trained_config()
    settings = TrainConfig.from_json(config["settings"]).to_json()
    # What says how the run was made; it has a model without that too.
    data: dict[str, Any] = {"source": UNKNOWN, "sha256": UNKNOWN, **config["data"]}
    sizes = ", ".join(f"{count} {split}" for split, count in data.get("sizes", {}).items()) or UNKNOWN
    versions = ", ".join(f"{name} {version}" for name, version in config.get("versions", {}).items()) or UNKNOWN
    votes = _votes(run) if form else ""  # of a run that has just been trained there are none
    form = form or ("adapter" if settings["method"] == "lora" else "merged")
    loss = ""
    if summary.get("eval_loss") is not None and summary.get("first_eval_loss") is not None:
        loss = f"Validation loss {summary['first_eval_loss']:.3f} → {summary['eval_loss']:.3f}. "
    if (step := summary.get("best_step")) is not None:
        early = "Stopped early, as the validation loss no longer fell. " if summary.get("early_stopped") else ""
        loss += f"{early}This is the model of step {step}, kept for its validation loss. "
    targets = f" LoRA on the layers {', '.join(names)}." if (names := summary.get("lora_targets")) else ""
    quantization = "" if settings["quantization"] == "none" else f", base weights in {settings['quantization']}"
    scores = _newest_scores(run)
    state = summary.get("status") or summary.get("state")
    return f"""{_metadata(run, settings, form, scores)}
# {run.name}

{base_name(config)} ({config.get("model_source", UNKNOWN)}), fine-tuned by sftdemo: method {settings["method"]}{quantization}.

- **Data**: {_data_name(data["source"])} ({data["task"]}), {sizes} rows; SHA-256 `{data["sha256"]}`.
- **Training**: {summary.get("steps", 0)} steps, {summary.get("seconds", 0):.0f} s, \
{summary.get("tokens_per_s", 0):.0f} tokens/s, {state}. {loss}Loss only on the assistant's tokens and their end of turn.{targets}
- **Settings**: {_settings(settings)}.
- **Libraries**: {versions}.

## What for

Tasks like the rows it was trained on, asked in the same words. Nothing else was tried.

## Measured

{_measured(scores)}

{votes}

## Limits

It keeps the limits of its base, may have forgotten some of what the base knew, and can be wrong with confidence. The data's
licence isn't known here: see that you may share what was learned from it.

## Use

{USES[form.partition("-")[0]]}

{check or f"`python -m sftdemo evaluate {run.name}` measures it against its base."}
"""


def base_name(config: Mapping[str, Any]) -> str:
    """The base of a run's config as others may know it: a Hub id, or of a local folder its name alone."""
    model = str(config["settings"]["model"])
    if model == DEFAULT_MODEL:
        return HUB_ID
    return Path(model).name if config.get("model_source") == "local folder" or not _HUB_ID.fullmatch(model) else model


def _data_name(source: object) -> str:
    return str(source).rsplit("/", 1)[-1]


def _settings(settings: Mapping[str, Any]) -> str:
    hidden = {"data", "model", "name", "resume", "columns", "instruction", "system"}
    return ", ".join(f"{key} {value}" for key, value in settings.items() if key not in hidden and value is not None)


def _metadata(run: Run, settings: Mapping[str, Any], form: str, scores: Scores | None) -> str:
    """The front matter, with the newest evaluation as its model-index."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="text-generation",
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
        base_model=base if _HUB_ID.fullmatch(base) else None,
        library_name={"adapter": "peft", "merged": "transformers"}.get(form, "gguf"),
        license="apache-2.0" if settings["model"] == DEFAULT_MODEL else "other",
        pipeline_tag="text-generation",
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


def _measured(scores: Scores | None) -> str:
    if scores is None:
        return "Not evaluated yet."
    lines = ["| metric | base | tuned | difference, 95 % interval | p (Holm) |", "| --- | --- | --- | --- | --- |"]
    for metric, gain in scores["difference"].items():
        if metric in METRICS:
            base, tuned, delta, low, high = (
                f"{value:.{METRICS[metric].digits}f}"
                for value in (scores["base"][metric], scores["tuned"][metric], gain["delta"], gain["low"], gain["high"])
            )
            lines.append(f"| {metric} | {base} | {tuned} | {delta} ({low} to {high}) | {gain['p_holm']:.4f} |")
    return f"On {scores['n']} held-out rows, greedily:\n\n" + "\n".join(lines) + f"\n\n{scores['summary']['en']}"


def _votes(run: Run) -> str:
    totals = Store().totals(run).to_json()
    counts = ", ".join(f"{key} {value}" for key, value in totals.items() if isinstance(value, int | float))
    return f"Blind votes: {counts}."
