"""The settings by which answers are generated, each declared once."""

from __future__ import annotations

from dataclasses import dataclass

from sftdemo.config.read import LARGEST_SEED
from sftdemo.config.settings import Settings, setting

LEAST_TEMPERATURE = 1e-4  # what is divided by less is infinite; this draws the likeliest as well


@dataclass(frozen=True)
class GenerateConfig(Settings):
    """How answers are generated."""

    max_new_tokens: int = setting(256, "The longest answer, in tokens.", group="Answer", low=1, high=8192)
    temperature: float = setting(0.0, "Sampling temperature; 0 is greedy decoding.", group="Answer", low=0, high=2)
    top_p: float = setting(
        1.0,
        "Nucleus sampling: sample from the likeliest tokens whose probabilities add up to this.",
        group="Answer",
        low=0.01,
        high=1,
    )
    beams: int = setting(1, "How many beams seq2seq searches; 1 is greedy.", group="Answer", low=1, high=16)
    seed: int = setting(42, "The seed for sampling; the same for both sides.", group="Answer", low=0, high=LARGEST_SEED)
