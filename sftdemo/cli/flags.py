"""Config dataclasses as command-line flags: one flag a setting, with its help, choices and default."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any, TypeVar

from sftdemo.config.settings import Settings, value_type
from sftdemo.ui.access.settings import AppConfig, variable

C = TypeVar("C", bound=Settings)
ALIASES = {"from_run": ("--from",)}  # no setting can be called a word of Python


def add_flags(
    parser: argparse._ActionsContainer, config: type[Settings], only: tuple[str, ...] = (), skip: tuple[str, ...] = ()
) -> None:
    """One flag for each setting; a flag not given stays out of the namespace, so defaults live in the config alone."""
    for spec in dataclasses.fields(config):  # type: ignore[arg-type]
        if spec.name in skip or (only and spec.name not in only):
            continue
        kind, optional = value_type(spec, config)
        choices = spec.metadata["choices"]
        if kind is bool:
            action: Any = {"action": argparse.BooleanOptionalAction}
        else:
            action = {"type": kind, "choices": choices, "metavar": None if choices else spec.name.upper()}
        default = "" if optional or spec.default in ("", False) else f" Default: {spec.default}."
        if issubclass(config, AppConfig):
            default += f" Environment: {variable(spec.name)}."
        parser.add_argument(
            "--" + spec.name.replace("_", "-"),
            *ALIASES.get(spec.name, ()),
            dest=spec.name,
            default=argparse.SUPPRESS,
            **action,
            help=(spec.metadata["help"] + default).replace("%", "%%"),
        )


def from_flags(options: argparse.Namespace, config: type[C]) -> C:
    """The config the flags ask for, checked."""
    return config.from_json(flags_given(options, config))


def flags_given(options: argparse.Namespace, config: type[Settings]) -> dict[str, Any]:
    """The settings that were given as flags."""
    names = {spec.name for spec in dataclasses.fields(config)}  # type: ignore[arg-type]
    return {name: value for name, value in vars(options).items() if name in names}
