"""A run, an export or an adapter from elsewhere becomes a run of this home, to be evaluated and talked to."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sftdemo import files, runs
from sftdemo.config.start import DEFAULT_MODEL
from sftdemo.config.train import TrainConfig
from sftdemo.errors import Text, UserError
from sftdemo.log import TO_LOG, Reporter
from sftdemo.model import adapter_fit, download, foreign, loading, validation
from sftdemo.model.foreign import Foreign
from sftdemo.runs.answers import answers_path
from sftdemo.training.model_card import base_name
from sftdemo.training.prepare import versions

# Of a run's folder; votes, repositories and checkpoints are those of the home that it comes from.
RUN_FILES = ("metrics.jsonl", "samples.jsonl", "train.log", "README.md")
EVALUATION_FILES = ("scores.json", "outputs.jsonl", "general.jsonl")
SUMMARY = ("step", "total", "steps", "train_loss", "eval_loss", "eval_score", "first_eval_loss", "tokens_per_s", "seconds",
                "lora_targets", "best_step", "early_stopped")  # fmt: skip
SHAPE = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
NO_DATA = {"source": "", "name": "", "format": "", "task": "", "instruction": "", "sizes": {}, "files": {}}


def import_run(source: str, name: str | None = None, base: str | None = None, reporter: Reporter = TO_LOG) -> runs.Run:
    """Make a run of what `source` names: a run's folder, an export or its ZIP, a PEFT adapter, or a Hub id.

    The model that it was tuned from is `base`; what the files themselves say of it is told and not followed, but for the
    default model. All is checked as any stranger's model before the run is listed: safetensors alone, no code, an adapter with
    just the tensors that it has on that base. config.json keeps under `imported` where it comes from. Raises UserError.
    """
    if name is not None:
        runs.check_free(name)
    with files.disk_faults(), foreign.opened(source, reporter) as origin:
        part = runs.home() / "runs" / f".new-{secrets.token_hex(8)}"
        try:
            part.mkdir(parents=True)
            hint = _fill(origin, part, base, reporter)
            run = runs.adopt(part, name, hint)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    for evaluation in run.evaluations():
        folder = run.path / "evaluations" / evaluation
        files.write_json(folder / "scores.json", run.scores(evaluation) | {"outputs": str(folder / "outputs.jsonl")})
    return run


def _fill(origin: Foreign, part: Path, base: str | None, reporter: Reporter) -> str:
    """Write the run's folder; returns what to call it."""
    if origin.kind == "run":
        config: dict[str, Any] = _copy_run(origin, part)
        _copy_systems(origin, part, reporter)
        named = base_name(config)
        weights = origin.folder / "model"
    else:
        named, config, weights = _told_base(origin), {}, origin.folder
    foreign.copy_model(weights, part / "model")
    base = _base(named, base, origin, reporter)
    folder, model_source = download.find(base, reporter)
    is_adapter = (part / "model" / "adapter_config.json").is_file()
    if is_adapter:
        adapter_fit.check_fits(part / "model", folder)
        if revision := adapter_fit.adapter_config(part / "model").get("revision"):
            text = "It was trained on revision {revision!r} of its base; see that {base} is that one."
            reporter.info(Text(text, revision=str(revision)[:80], base=base))
        _rename_base(part / "model", named)
    else:
        validation.check_weights(part / "model")
        _check_shape(part / "model", folder, origin.source)
    _complete_tokenizer(part / "model", folder)
    if not config:
        config = {"settings": _settings(part / "model", base, is_adapter), "data": NO_DATA, "versions": versions()}
        files.write_jsonl(part / "metrics.jsonl", [])
    settings = {**config["settings"], "model": base, "resume": None}
    imported = {
        "source": origin.source,
        "kind": origin.kind,
        "revision": origin.revision,
        "base": named,
        "sha256": foreign.digests(part / "model"),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    config |= {"settings": settings, "base_model": str(folder), "model_source": model_source, "imported": imported}
    files.write_json(part / "config.json", config)
    _check_whole(origin, part)
    return f"{Path(origin.source).stem}-imported"


def _copy_run(origin: Foreign, part: Path) -> dict[str, Any]:
    """Copy a run's own files, as far as they say something elsewhere, and read its settings."""
    run = runs.Run(origin.folder)
    config: dict[str, Any] = dict(run.trained_config())
    if (kind := config["settings"].get("task", "chat")) != "chat":
        raise UserError(
            "{name} is a run of kind {kind}, and only chat runs are imported.", name=origin.source, kind=kind
        )
    status: Mapping[str, Any] = run.status()
    if status["state"] not in ("finished", "stopped") or not run.model_path.is_dir() or run.model_path.is_symlink():
        raise UserError("{name} is a run without a model; finish its training first.", name=origin.source)
    config["settings"] = TrainConfig.from_json(config["settings"]).to_json()
    names = [*RUN_FILES, *(f"data/{split}.jsonl" for split in runs.SPLITS)]
    names += [f"evaluations/{evaluation}/{file}" for evaluation in run.evaluations() for file in EVALUATION_FILES]
    for name in names:
        path = origin.folder / name
        if path.is_file() and path.resolve().is_relative_to(origin.folder.resolve()):  # no link that leads elsewhere
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, part / name)
    if notes := {key: value for key, value in run.notes().items() if key != "display_name"}:  # another run may have it
        files.write_json(part / "notes.json", notes)
    summary = {key: value for key, value in status.items() if key in SUMMARY}
    runs.Run(part).write_status(status["state"], **summary)
    return config


def _copy_systems(origin: Foreign, part: Path, reporter: Reporter) -> None:
    """Copy the answers of other systems; those without, and names that mean something else here, leave scores.json."""
    theirs, ours = runs.Run(origin.folder), runs.Run(part)
    for evaluation in ours.evaluations():
        scores: dict[str, Any] = dict(ours.scores(evaluation))
        left_out = {
            name for name, facts in scores.get("systems", {}).items() if not _copy_answers(theirs, part, name, facts)
        }
        if not left_out:
            continue
        for key in ("systems", "intervals"):
            scores[key] = {name: value for name, value in scores.get(key, {}).items() if name not in left_out}
        if not scores["systems"]:
            del scores["systems"], scores["intervals"]
        if scores.get("settings", {}).get("to") in left_out:
            scores["settings"] = scores["settings"] | {"to": None}
        files.write_json(part / "evaluations" / evaluation / "scores.json", scores)
        reporter.info(
            Text(
                "Of evaluation {evaluation} these systems stay behind: {names}.",
                evaluation=evaluation,
                names=sorted(left_out),
            )
        )


def _copy_answers(theirs: runs.Run, part: Path, system: str, facts: Mapping[str, Any]) -> bool:
    """Copy a system's answers. Never an endpoint's, which would be asked with this home's key, nor those of another home's
    runs and files."""
    if system.startswith(("api:", "file:", "run:")):
        return False
    with contextlib.suppress(runs.DamagedRun):
        path = answers_path(theirs, str(facts["answers"]))
        if path.is_file() and path.suffix == ".jsonl":
            to = part / "evaluations" / path.relative_to((theirs.path / "evaluations").resolve())
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)
            return True
    return False


def _told_base(origin: Foreign) -> str:
    """What the files say of their base."""
    if origin.kind == "adapter":
        config = adapter_fit.adapter_config(origin.folder)
        return str(config.get("base_model_name_or_path") or "")[:200]
    return _of_card(origin.folder / download.CARD)[:200]


def _of_card(card: Path) -> str:
    """The base that a model's card names, the first of several; "" where it names none or can't be read."""
    from huggingface_hub import ModelCard

    if not card.is_file() or card.stat().st_size > download.CARD_BYTES:
        return ""
    try:
        text = card.read_text(encoding="utf-8", errors="replace")
        named = ModelCard(text, ignore_metadata_errors=True).data.get("base_model")
    except Exception:  # noqa: BLE001 (YAML of a stranger fails in many ways, and each is a card that says nothing)
        return ""
    return str((named[:1] or [""])[0] if isinstance(named, list) else named or "")


def _base(named: str, base: str | None, origin: Foreign, reporter: Reporter) -> str:
    """The model to compare with: the one that was given, or the default model where the files name that."""
    if base:
        if named and named not in (base, Path(base).name) and {named, base} != {download.HUB_ID, DEFAULT_MODEL}:
            reporter.info(
                Text("It says that it was tuned from {told!r}; {base} is taken as that.", told=named, base=base)
            )
        return base
    if named in (download.HUB_ID, DEFAULT_MODEL):
        reporter.info(Text("It was tuned from {told!r}, the default model.", told=named))
        return DEFAULT_MODEL
    if named:
        raise UserError(
            "{name} says that it was tuned from {told!r}; give --base with that model, if you trust it.",
            name=origin.source,
            told=named,
        )
    raise UserError("{name} doesn't say what it was tuned from; give --base with that model.", name=origin.source)


def _rename_base(folder: Path, named: str) -> None:
    """A path of another machine says nothing here."""
    config = files.read_json(folder / "adapter_config.json")
    files.write_json(folder / "adapter_config.json", config | {"base_model_name_or_path": named})


def _check_shape(folder: Path, base: Path, name: str) -> None:
    """Both sides share a tokenizer, so the base must be of the same kind and size."""
    ours, theirs = (validation.read_json(p / "config.json", validation.CONFIG_BYTES, name) for p in (folder, base))
    validation.check_config(ours, name)
    if odd := [key for key in SHAPE if ours.get(key) != theirs.get(key)]:
        raise UserError(
            "{name} isn't tuned from {base}: {key} is {value}, and there {other}; give --base the model that it is from.",
            name=name,
            base=base.name,
            key=odd[0],
            value=str(ours.get(odd[0])),
            other=str(theirs.get(odd[0])),
        )


def _complete_tokenizer(folder: Path, base: Path) -> None:
    """Take the base's tokenizer and generation settings where the files have none, and see that chat can be asked."""
    if not any(folder.glob("tokenizer*")):
        for pattern in (
            "tokenizer*",
            "*.jinja",
            "special_tokens_map.json",
            "vocab.*",
            "merges.txt",
            "added_tokens.json",
        ):
            for path in base.glob(pattern):
                shutil.copyfile(path, folder / path.name)
    if not (folder / "generation_config.json").is_file():
        _write_stops(folder, base)
    tokenizer = loading.tokenizer(folder)
    if not tokenizer.chat_template:
        raise UserError(
            "The model has no chat template, so it can't be talked to; import it with its tokenizer's files."
        )
    from transformers import AutoConfig

    vocabulary = AutoConfig.from_pretrained(base, trust_remote_code=False).get_text_config().vocab_size
    if len(tokenizer) > vocabulary:
        raise UserError(
            "Its tokenizer has {n} tokens, and {base} knows {vocabulary}; give --base the model that it was tuned from.",
            n=len(tokenizer),
            base=base.name,
            vocabulary=vocabulary,
        )


def _write_stops(folder: Path, base: Path) -> None:
    from transformers import GenerationConfig

    if (base / "generation_config.json").is_file():
        shutil.copyfile(base / "generation_config.json", folder / "generation_config.json")
        return
    tokenizer = loading.tokenizer(folder)
    GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id).save_pretrained(folder)


def _settings(folder: Path, base: str, is_adapter: bool) -> dict[str, Any]:
    """The settings of training, as far as an adapter tells them."""
    if not is_adapter:
        return TrainConfig(model=base, method="full").to_json()
    adapter = adapter_fit.adapter_config(folder)
    values = {
        "lora_r": adapter["r"],
        "lora_alpha": adapter.get("lora_alpha", 8),
        "rslora": bool(adapter.get("use_rslora")),
        "dora": bool(adapter.get("use_dora")),
    }
    config = {"model": base, "method": "lora"}
    for key, value in values.items():
        with contextlib.suppress(
            UserError
        ):  # nothing is trained by them here: what no training takes stays at its default
            config = TrainConfig.from_json(config | {key: value}).to_json()
    return config


def _check_whole(origin: Foreign, part: Path) -> None:
    """What was imported must be a run as any other, and say where its outputs are now."""
    run = runs.Run(part)
    if origin.kind != "run":
        run.write_status("finished", step=0, total=0, steps=0)
    if damage := run.damage():
        raise UserError("{name} can't be imported: {reason}.", name=origin.source, reason=damage)
