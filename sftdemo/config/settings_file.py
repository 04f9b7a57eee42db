"""Settings in a file: YAML or JSON, read strictly, and YAML as the page and `train --save-config` give it."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml  # type: ignore[import-untyped]

from sftdemo.config.settings import Settings, value_type
from sftdemo.errors import Text, UserError
from sftdemo.files import write_text

MOST_BYTES = 2**20
SHOWN = 60  # characters of a value in an error
TRUE, FALSE = ("true", "yes", "on"), ("false", "no", "off")


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Only null is recognised: what a text means is for the setting's type to say, or `header: no` would be False."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {
        first: [pair for pair in pairs if pair[0].endswith(":null")]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Of a key that stands there twice YAML would keep the last without a word."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.YAMLError(f"{twice} is there twice")
        return super().construct_mapping(node, deep)  # type: ignore[no-any-return]


def read(path: Path, config: type[Settings]) -> dict[str, Any]:
    """The settings in a file, by name; also those of a run's config.json.

    Raises UserError for a file that can't be read, that holds something else, or names an unknown setting; values are
    checked by the config that is made of them.
    """
    values = _load(path)
    if isinstance(values, dict) and isinstance(values.get("settings"), dict):  # a run's config.json
        values = values["settings"]
    if not isinstance(values, dict):
        raise UserError("{path} holds no settings; give lines such as 'epochs: 2'.", path=path)
    specs = {spec.name: spec for spec in dataclasses.fields(config)}  # type: ignore[arg-type]
    settings = {}
    for name, value in values.items():
        name = name.replace("-", "_") if isinstance(name, str) else name
        if name not in specs:
            like = difflib.get_close_matches(str(name), specs, n=1)
            hint = Text("Did you mean {name}?", name=like[0]) if like else Text("Leave it out.")
            raise UserError(
                "{path}: there is no setting {name} (its value is {value}). {hint}",
                path=path,
                name=str(name)[:SHOWN],
                value=str(value)[:SHOWN],
                hint=hint,
            )
        settings[name] = _typed(value, value_type(specs[name], config)[0])
    return settings


def _load(path: Path) -> Any:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(
                "{path} is larger than {most} bytes, so it isn't a file of settings.", path=path, most=MOST_BYTES
            )
        text = path.read_text(encoding="utf-8-sig")
        if text.lstrip().startswith("{"):
            return json.loads(text)
        return yaml.load(text, _Loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError("The settings in {path} can't be read: {reason}.", path=path, reason=reason) from error


def _typed(value: Any, kind: type) -> Any:
    """A value as a setting of that type has it, where it can be that; a list of names is one text."""
    if kind is str and isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ",".join(value)
    if not isinstance(value, str) or kind is str:
        return value
    if kind is bool:
        return {**dict.fromkeys(TRUE, True), **dict.fromkeys(FALSE, False)}.get(value.lower(), value)
    try:
        return int(value) if kind is int else float(value)
    except ValueError:
        return value


def to_yaml(config: Settings) -> str:
    """The settings that aren't their defaults, as YAML that `read` reads."""
    changed: Mapping[str, Any] = {
        spec.name: getattr(config, spec.name)
        for spec in dataclasses.fields(config)  # type: ignore[arg-type]
        if getattr(config, spec.name) != spec.default
    }
    return yaml.safe_dump(dict(changed), sort_keys=False, allow_unicode=True, width=10**6)  # type: ignore[no-any-return]


def write(config: Settings, path: Path) -> None:
    write_text(path, to_yaml(config))
