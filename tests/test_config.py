"""A setting is declared once: help, bounds, JSON and flags follow from it."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest

from sftdemo.__main__ import parser
from sftdemo.cli.flags import from_flags
from sftdemo.config import EvaluateConfig, GenerateConfig, TrainConfig
from sftdemo.config.read import ReadConfig
from sftdemo.errors import UsageError

CONFIGS = [ReadConfig, TrainConfig, GenerateConfig, EvaluateConfig]


@pytest.mark.parametrize("config", CONFIGS)
def test_every_setting_has_help_and_survives_json(config):
    for spec in dataclasses.fields(config):
        assert spec.metadata["help"].endswith(".") and spec.metadata["group"]
    assert config.from_json(config().to_json()) == config()


def test_all_problems_come_at_once():
    config = TrainConfig(data="x", epochs=0, batch_size=True, method="magic", lora_r=2.5, learning_rate="fast")
    with pytest.raises(UsageError) as caught:
        config.check()
    for words in (
        "epochs is 0; the least is 0.001.",
        "batch_size is True; give a value of type int.",
        "method is 'magic'; choose one of: lora, full, frozen.",
        "lora_r is 2.5; give a whole number.",
        "learning_rate is 'fast'; give a value of type float.",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(value):
    assert TrainConfig(data="x", epochs=value).problems()


def test_a_whole_number_is_an_int_however_json_writes_it():
    values = TrainConfig.from_json({"batch_size": 8.0, "seed": 42.0, "max_steps": 7.0, "epochs": 2.0}).to_json()
    assert [type(values[name]) for name in ("batch_size", "seed", "max_steps", "epochs")] == [int, int, int, float]


@pytest.mark.parametrize(
    "name", ["report_to", "clean", "chunk_overlap", "max_length", "resume", "patience", "optimizer"]
)
@pytest.mark.parametrize("value", [5, "five", ["five"], {"a": 1}, True])
def test_a_value_of_another_type_is_a_usage_error(name, value):
    with contextlib.suppress(UsageError):
        TrainConfig.from_json({"on_long": "chunk", name: value})
    with pytest.raises(UsageError, match=name):
        TrainConfig.from_json({"on_long": "chunk", name: {"a": 1}})


def test_full_tuning_of_quantized_weights_is_refused():
    with pytest.raises(UsageError, match="method full can't train nf4 weights"):
        TrainConfig(data="x", method="full", quantization="nf4").check()


def test_an_unknown_setting_is_refused():
    with pytest.raises(UsageError, match="Unknown setting colour"):
        TrainConfig.from_json({"colour": "red"})


def test_the_learning_rate_suits_the_method():
    assert TrainConfig().peak_learning_rate > TrainConfig(method="full").peak_learning_rate
    assert TrainConfig(learning_rate=0.1).peak_learning_rate == 0.1


def test_flags_are_the_settings():
    words = ["train", "--data", "x", "--max-examples", "5", "--learning-rate", "1e-3", "--method", "full", "--json"]
    assert from_flags(parser().parse_args(words), TrainConfig) == TrainConfig(
        data="x", max_examples=5, learning_rate=1e-3, method="full"
    )
    assert from_flags(parser().parse_args(["evaluate", "r"]), EvaluateConfig) == EvaluateConfig()
