"""What is decoded: a set of weights with the names it answers for, and each answer that is asked of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from sftdemo.config.generate import GenerateConfig
from sftdemo.decode.compiled import CompiledStep
from sftdemo.inference import kv_cache
from sftdemo.model.adapter_routing import AdapterRouting
from sftdemo.model.last_layer import LastLayer
from sftdemo.model.parity import unknown_spans

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel


@dataclass(frozen=True)
class Side:
    """One set of weights and the names it answers for: with LoRA by row the base and then each adapter, else one.

    An adapter that brings embeddings or a head of its own is alone with its weights, and the base has others.
    """

    model: PreTrainedModel
    names: tuple[str, ...]
    rows: AdapterRouting | None = None
    last: LastLayer | None = None
    compiled: CompiledStep | None = None

    @cached_property
    def plain_names(self) -> int:
        """How many of the names, the first ones, are answered without an adapter."""
        return len(self.names) - (len(self.rows.chosen) if self.rows else 0)

    @cached_property
    def can_share(self) -> bool:
        """Whether what it has read can be padded, shared by rows, and left out again.

        A recurrent layer would take padding for something read, and forget nothing; with ALiBi, and with windows that are
        counted in columns, padding inside a row would move its tokens apart.
        """
        apart = not kv_cache.takes_positions(self.model) or unknown_spans(self.model.config)
        return kv_cache.can_share(kv_cache.new(self.model.config)) and not apart

    @cached_property
    def can_join(self) -> bool:
        """Whether rows with unlike prompts can be decoded together; else a batch has prompts of one length."""
        return kv_cache.can_join(kv_cache.new(self.model.config))


@dataclass(eq=False)
class Request:
    """One answer in the making, by its own settings; `fed` are the tokens after the prompt that the model has seen.

    A `finish_reason` set from outside ends it at the next step.
    """

    side: str
    index: int
    prompt: list[int]
    limit: int
    generator: torch.Generator | None = None
    tokens: int = 0
    fed: list[int] = field(default_factory=list)
    config: GenerateConfig = field(default_factory=GenerateConfig)
    stop_ids: frozenset[int] = frozenset()
    finish_reason: str | None = None
    decoding: GenerationConfig | None = (
        None  # of a sequence-to-sequence model: the tokens that a target begins and ends with
    )


def together(side: Side, rows: list[Request]) -> list[list[Request]]:
    """The rows as batches may hold them: all in one, or those with prompts of one length."""
    if side.can_join:
        return [rows]
    lengths = dict.fromkeys(len(row.prompt) for row in rows)
    return [[row for row in rows if len(row.prompt) == length] for length in lengths]
