"""The settings of an evaluation, each declared once."""

from __future__ import annotations

from dataclasses import dataclass

from sftdemo.config.read import LARGEST_SEED, FileConfig
from sftdemo.config.settings import setting


@dataclass(frozen=True)
class EvaluateConfig(FileConfig):
    """One evaluation of a run."""

    data: str | None = setting(None, "Other data to evaluate on; default: the run's own held-out rows.", group="Data")
    max_examples: int | None = setting(
        None, "Evaluate on this many held-out rows, drawn by the seed.", group="Data", low=1
    )
    batch_size: int = setting(256, "Rows decoded together, at most.", group="Answer", low=1, high=1024)
    max_new_tokens: int | None = setting(
        None, "The longest answer; default: what the references need, 40 at least.", group="Answer", low=1, high=8192
    )
    beams: int = setting(1, "How many beams seq2seq searches; 1 is greedy.", group="Answer", low=1, high=16)
    seed: int = setting(42, "Decides the rows taken and the resampling.", group="Data", low=0, high=LARGEST_SEED)
    general: bool = setting(
        False, "Also ask both models general questions, to see what was forgotten; takes a minute more.", group="Data"
    )
    against: str | None = setting(
        None,
        "Other systems on the same rows, as a list: majority, copy, linear (a linear model of words), base+8 (the base shown "
        "8 training rows; base+8:nearest the nearest), run:NAME, merged, int8, nf4, gguf-q8_0 and gguf-q4_0 (the run itself in these bits), file:PATH (predictions), api:MODEL@URL (an OpenAI-compatible "
        "endpoint; SFTDEMO_ENDPOINT_KEY is its key).",
        group="Data",
    )
    to: str | None = setting(
        None, "The system that the others are measured against, base or one of --against; default: tuned.", group="Data"
    )
    again: bool = setting(
        False, "Ask all systems of --against again, instead of taking what they answered before.", group="Data"
    )
    prices: str | None = setting(
        None, "What a million prompt and a million answer tokens of endpoints cost, as 0.15,0.60.", group="Data"
    )
