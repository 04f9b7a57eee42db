"""The kinds of model: what each has, and what is said where something doesn't apply."""

from __future__ import annotations

import dataclasses

import pytest

from sftdemo.config import TrainConfig, kinds
from sftdemo.errors import UsageError


def test_the_table_names_settings_and_kinds_that_are_there():
    settings = {spec.name for spec in dataclasses.fields(TrainConfig)}
    assert set(kinds.ONLY_FOR) <= settings
    assert all(set(named) < set(kinds.KINDS) for named in kinds.ONLY_FOR.values())


def test_a_kind_that_is_none_is_refused_in_one_line():
    with pytest.raises(UsageError) as caught:
        TrainConfig(data="x", task="tagging", packing=False).check()
    assert str(caught.value) == f"task is 'tagging'; choose one of: {', '.join(kinds.KINDS)}."
