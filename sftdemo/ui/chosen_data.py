"""The data chosen on the page: read, described and measured once, and again when its file changes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from sftdemo import data
from sftdemo.config import DEFAULT_MODEL, ReadConfig, TrainConfig
from sftdemo.errors import UserError
from sftdemo.log import TO_LOG, Reporter
from sftdemo.model import download
from sftdemo.ui import work
from sftdemo.ui.parts import forms
from sftdemo.verbs import check

TOKEN_ROWS = 500  # rows whose tokens are counted for the page; `check` counts more
FROM_FILE = {spec.name for spec in fields(ReadConfig)}

_tokenizers: dict[str, Any] = {}


def stamp(source: str) -> float:
    """When the source last changed, so that a file saved anew is read anew."""
    path = Path(source)
    return path.stat().st_mtime if source and path.exists() else 0.0


@lru_cache(maxsize=4)
def _read(config: ReadConfig, changed: float) -> Any:
    return data.read(config)


@lru_cache(maxsize=2)
def _prepared(config: ReadConfig, changed: float) -> Any:
    return data.prepare(config, dataset=_read(config, changed))


@lru_cache(maxsize=4)
def _description(config: ReadConfig, changed: float) -> dict[str, Any]:
    dataset = _read(config, changed)
    return check.describe(dataset) | data.outlook(config, dataset)


@lru_cache(maxsize=8)
def _measured(config: TrainConfig, changed: float) -> dict[str, Any]:
    return check.measure(_read(of_file(config), changed), tokenizer(config), config, TOKEN_ROWS)


def of_file(config: ReadConfig) -> ReadConfig:
    """The settings that decide how data is read, without those of the training."""
    return ReadConfig(**{name: getattr(config, name) for name in sorted(FROM_FILE)})


def chosen_config(chosen: Mapping[str, Any]) -> TrainConfig:
    config: TrainConfig = forms.config(TrainConfig, chosen)
    if not config.data:
        raise UserError("No data is chosen; pick a sample, upload a file, or give a Hub id.")
    return config


def read(chosen: Mapping[str, Any]) -> Any:
    """The chosen data as training sees it; where it can't be trained on, as it was read."""
    config = of_file(chosen_config(chosen))
    changed = stamp(config.data)
    return (_prepared if _description(config, changed)["split_sizes"] else _read)(config, changed)


def summarize(config: TrainConfig) -> dict[str, Any]:
    """What `check --json` says of the chosen data; of tokens too, once the model's tokenizer is at hand."""
    summary = dict(description(of_file(config)))
    if config.model in _tokenizers and summary["examples"]:
        measured = dict(_measured(config, stamp(config.data)))
        for kind, faults in measured.pop("told").items():
            summary[kind] = [*summary[kind], *faults]
        summary |= measured
    return summary


def description(config: ReadConfig) -> dict[str, Any]:
    """What `check --json` says of data without a tokenizer."""
    return _description(config, stamp(config.data))


def dataset(config: ReadConfig) -> Any:
    """The data as it was read."""
    return _read(config, stamp(config.data))


def have_tokenizer(model: str, reporter: Reporter = TO_LOG, fetch: bool = True) -> bool:
    """Get the model's tokenizer, from the network only if `fetch`; whether it is at hand then."""
    if model not in _tokenizers and (fetch or download.is_here(model)):
        work.load_libraries()
        from sftdemo.model import loading

        _tokenizers[model] = loading.tokenizer(model, reporter)
    return model in _tokenizers


def tokenizer(config: TrainConfig) -> Any:
    """The model's tokenizer if it is at hand, else None; its template asks for thoughts as the config says."""
    return _in_mode(config.model, config.thinking) if config.model in _tokenizers else None


@lru_cache(maxsize=8)
def _in_mode(model: str, thinking: str) -> Any:
    from sftdemo.encoding.chat_template import set_thinking

    tokenizer = copy.copy(_tokenizers[model])
    set_thinking(tokenizer, thinking)
    return tokenizer


def warm() -> None:
    """Read the default tokenizer in the background if its files are here; nothing is downloaded."""
    work.load_libraries()
    have_tokenizer(DEFAULT_MODEL, fetch=False)
