"""The data chosen on the page: read in a child process, described and measured once, and again when its file changes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any

from sftdemo.config.kinds import CHAT, SEQ2SEQ
from sftdemo.config.read import ReadConfig
from sftdemo.config.start import DEFAULT_MODEL
from sftdemo.config.train import TrainConfig
from sftdemo.data import Dataset
from sftdemo.errors import UserError
from sftdemo.log import TO_LOG, Reporter
from sftdemo.model import download
from sftdemo.ui import data_reader, models
from sftdemo.ui.data_reader import Reading
from sftdemo.ui.parts import forms
from sftdemo.verbs import check

TOKEN_ROWS = 500  # rows whose tokens are counted for the page; `check` counts more
TOKEN_BYTES = 2_000_000  # that those rows may have together
FROM_FILE = {spec.name for spec in fields(ReadConfig)}

# What Data sets beside how the file is read.
PREPARING = ("model", "thinking", "max_length", "on_long", "chunk_overlap")
# The settings that decide how a tokenizer encodes rows.
ENCODING = ("model", "thinking", "task", "source_prefix", "source_language", "target_language")
MEASURED = {*FROM_FILE, *PREPARING, *ENCODING}
_tokenizers: dict[str, Any] = {}


def of_file(config: ReadConfig) -> ReadConfig:
    """The settings that decide how data is read, without those of the training."""
    config = config.for_reading if isinstance(config, TrainConfig) else config
    return ReadConfig(**{name: getattr(config, name) for name in sorted(FROM_FILE)})


def chosen_config(chosen: Mapping[str, Any]) -> TrainConfig:
    config: TrainConfig = forms.config(TrainConfig, chosen)
    if not config.data:
        raise UserError("No data is chosen; pick a sample, upload a file, or give a Hub id.")
    return config


def read(chosen: Mapping[str, Any]) -> Dataset:
    """The chosen data as training sees it; where it can't be trained on, as it was read."""
    reading = data_reader.read(of_file(chosen_config(chosen)))
    return reading.prepared or reading.dataset


def summarize(config: TrainConfig) -> dict[str, Any]:
    """What `check --json` says of the chosen data; of tokens too, once the model's tokenizer is at hand."""
    reading = data_reader.read(of_file(config))
    summary = dict(reading.summary)
    if measured := dict(measure(reading, config)):
        for kind, faults in measured.pop("told").items():
            summary[kind] = [*summary[kind], *faults]
        summary |= measured
    return summary


def unlearnable(config: TrainConfig) -> tuple[list[dict[str, Any]], int]:
    """(what is wrong with rows that this model's template can't say, how many rows were looked at)."""
    measured = measure(data_reader.read(of_file(config)), config) if config.task == CHAT else {}
    return (measured["told"]["faults"] + measured["told"]["dropped"], measured["counted"]) if measured else ([], 0)


def measure(reading: Reading, config: TrainConfig) -> dict[str, Any]:
    """What `check.measure` says of the rows; {} as long as the model's tokenizer isn't at hand."""
    if config.model not in _tokenizers or not reading.summary["examples"]:
        return {}
    return _measured(reading, TrainConfig(**{name: getattr(config, name) for name in sorted(MEASURED)}))


@lru_cache(maxsize=8)
def _measured(reading: Reading, config: TrainConfig) -> dict[str, Any]:
    sizes = reading.most_tokens()
    return check.measure(reading.dataset, tokenizer(config), config, TOKEN_ROWS, sizes, TOKEN_BYTES)


def description(config: ReadConfig) -> dict[str, Any]:
    """What `check --json` says of data without a tokenizer."""
    return data_reader.read(of_file(config)).summary


def dataset(config: ReadConfig) -> Dataset:
    """The data as it was read."""
    return data_reader.read(of_file(config)).dataset


def choose(config: ReadConfig) -> None:
    """Other data that the same page is still reading is no longer wanted."""
    data_reader.drop_others(of_file(config))


def have_tokenizer(model: str, reporter: Reporter = TO_LOG, fetch: bool = True) -> bool:
    """Get the model's tokenizer, from the network only if `fetch`; whether it is at hand then."""
    if model not in _tokenizers and (fetch or download.is_here(model)):
        models.load_libraries()
        from sftdemo.model import loading

        _tokenizers[model] = loading.tokenizer(model, reporter)
    return model in _tokenizers


def tokenizer(config: TrainConfig) -> Any:
    """The model's tokenizer if it is at hand, else None; its template asks for thoughts as the config says."""
    if config.model not in _tokenizers:
        return None
    only = {name: getattr(config, name) for name in ENCODING}
    return _encoding_as(TrainConfig(**only))


@lru_cache(maxsize=8)
def _encoding_as(config: TrainConfig) -> Any:
    from sftdemo.encoding.chat_template import set_thinking
    from sftdemo.model import seq2seq

    tokenizer, folder = copy.copy(_tokenizers[config.model]), download.here(config.model)
    set_thinking(tokenizer, config.thinking)
    if config.task == SEQ2SEQ and folder:
        seq2seq.prepare(tokenizer, config, folder)
    return tokenizer


def warm() -> None:
    """Start the reader, and read the default tokenizer if its files are here; nothing is downloaded."""
    data_reader.start()
    models.load_libraries()
    have_tokenizer(DEFAULT_MODEL, fetch=False)
