"""Settings in YAML and JSON: read as typed, refused in one line, written so that they are read the same."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from sftdemo.__main__ import main, parser
from sftdemo.cli import commands
from sftdemo.config import TrainConfig, settings_file
from sftdemo.config.settings import value_type
from sftdemo.errors import UsageError, UserError

CHANGED: dict[str, Any] = {
    "data": "a, b: c", "name": "007", "header": "no", "thinking": "on", "learning_rate": 5e-4, "epochs": 2.0, "packing": False,
    "max_steps": 7, "instruction": "Sort:\n  {text} #1", "system": "null", "lora_targets": "q_proj,v_proj", "clean": "html",
}  # fmt: skip


def written(folder: Path, text: str, name: str = "s.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def config(path: Path) -> TrainConfig:
    return TrainConfig.from_json(settings_file.read(path, TrainConfig))


def test_what_is_written_is_read_the_same(tmp_path):
    for changes in (CHANGED, {}, {"system": "好的 “yes”", "columns": "text=a,label=b"}):
        settings = TrainConfig(**{"data": "x", **changes})
        settings_file.write(settings, tmp_path / "s.yaml")
        assert config(tmp_path / "s.yaml") == settings
        assert config(written(tmp_path, json.dumps(settings.to_json()), "s.json")) == settings
        assert (
            config(written(tmp_path, json.dumps({"settings": settings.to_json(), "data": {}}), "config.json"))
            == settings
        )


def test_every_setting_is_read_as_it_was_written(tmp_path):
    for spec in dataclasses.fields(TrainConfig):
        kind = value_type(spec, TrainConfig)[0]
        other = [choice for choice in spec.metadata["choices"] or () if choice != spec.default]
        values = (
            other
            or {str: ["no", "- a: #1", " 1e3", "~"], int: [17], float: [0.25, 1e-7], bool: [not spec.default]}[kind]
        )
        for value in values:
            settings = dataclasses.replace(TrainConfig(data="x"), **{spec.name: value})
            settings_file.write(settings, tmp_path / "s.yaml")
            read = settings_file.read(tmp_path / "s.yaml", TrainConfig)
            assert read.get(spec.name) == value and TrainConfig(**{"data": "x", **read}) == settings, spec.name


def test_a_value_is_what_its_setting_takes(tmp_path):
    path = written(
        tmp_path,
        "# mine\nepochs: 3\nlearning-rate: 1e-3\nheader: no\nkeep_best: yes\nname: 12\nmax_steps: ~\n"
        "lora_targets: [q_proj, v_proj]\nmax_minutes:\n",
    )
    found = config(path)
    assert (found.epochs, found.learning_rate, found.header, found.keep_best) == (3.0, 1e-3, "no", True)
    assert (found.name, found.max_steps, found.lora_targets, found.max_minutes) == ("12", None, "q_proj,v_proj", None)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("epoch: 3", r"there is no setting epoch \(its value is 3\)\. Did you mean epochs\?"),
        ("colour_of_it: [red]", r"there is no setting colour_of_it \(its value is \['red'\]\)\. Leave it out"),
        ("1: 2", r"there is no setting 1 "),
        ("epochs: three", "epochs is 'three'; give a value of type float"),
        ("batch_size: 2.5", "batch_size is '2.5'; give a value of type int"),
        ("packing: maybe", "packing is 'maybe'; give a value of type bool"),
        ("name: {a: b}", r"name is \{'a': 'b'\}; give a value of type str"),
        ("epochs: [1, 2]", r"epochs is \['1', '2'\]; give a value of type float"),
        ("epochs: 1\nepochs: 2", "can't be read: epochs is there twice"),
        ("- epochs", "holds no settings"),
        ("", "holds no settings"),
        ("epochs: [", "can't be read: .*line 1"),
        ('{"epochs": 1', "can't be read: "),
        ("data: !!python/object/apply:os.system ['true']", "can't be read: could not determine a constructor"),
        ("[" * 1500, "can't be read: "),
        ("x: " + "a" * 2**20, "is larger than 1048576 bytes"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(tmp_path, text, fault):
    with pytest.raises(UserError, match=fault) as caught:
        config(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(UserError, match=f"The settings in {path} can't be read"):
            settings_file.read(path, TrainConfig)
    bad = tmp_path / "bad.yaml"
    bad.write_bytes(b"name: \xff\xfe")
    with pytest.raises(UserError, match="can't be read: 'utf-8' codec"):
        settings_file.read(bad, TrainConfig)


def test_flags_stand_above_the_file_and_can_be_saved(tmp_path, capsys):
    path, saved = written(tmp_path, "data: rows.csv\nepochs: 3\nlora_r: 4\n"), tmp_path / "new" / "saved.yaml"
    assert main(["train", "--config", str(path), "--epochs", "0.5", "--save-config", str(saved)]) == 0
    assert saved.read_text() == "data: rows.csv\nepochs: 0.5\nlora_r: 4\n"
    assert main(["train"]) == 2 and "data is empty; give a file" in capsys.readouterr().err
    with pytest.raises(UsageError, match="data is empty; give a file"):
        commands.train(parser().parse_args(["train", "--config", str(written(tmp_path, "epochs: 3"))]))
    with pytest.raises(UsageError, match="own settings; leave out lora_r"):
        commands.train(parser().parse_args(["train", "--resume", "r", "--config", str(written(tmp_path, "lora_r: 4"))]))
