"""What a run folder says of the earlier runs that it went on from, or learned from."""

from __future__ import annotations

from typing import Annotated as Doc
from typing import Any, NotRequired, TypedDict

from sftdemo.schema.json_types import ALWAYS


class Origin(TypedDict):
    """The earlier run that a run went on from; the base stays the original one."""

    run: Doc[str, "its name", ALWAYS]
    method: Doc[str, "`lora` or `full`", ALWAYS]
    weights: Doc[str, "SHA-256 over the safetensors of its model", ALWAYS]
    data: Doc[str, "SHA-256 of its data", ALWAYS]
    before: Doc[list[dict[str, Any]], "the same of the runs that it came from itself, the nearest first"]


class Ancestry(TypedDict):
    """`data/ancestry.json`: what the runs before this one were trained and tested on, as hashes of their rows."""

    trained: Doc[list[str], "of training rows, rehearsed ones too", ALWAYS]
    validation: Doc[list[str], "of validation rows", ALWAYS]
    test: Doc[list[str], "of test rows", ALWAYS]


class StudentConfig(TypedDict):
    """What a run with a `teacher` has of it."""

    teacher: Doc[str, "the run whose probabilities it learned", ALWAYS]
    teacher_sha256: Doc[str, "over the weights in the teacher's `model/`", ALWAYS]
    lineage: Doc[list[str], "the teacher's own teachers, the first one first, and the teacher", ALWAYS]
    layers_kept: NotRequired[Doc[list[int], "with `drop_layers`: the teacher's layers that it began with, from 0"]]
    block_influence: NotRequired[
        Doc[list[float], "and of each layer of the teacher how much it changes the hidden states: 1 - their cosine"]
    ]
