"""Labelled text from files to examples: read, check, clean, split."""

from sftdemo.data.pipeline import outlook, prepare
from sftdemo.data.reading import Sample, read, samples
from sftdemo.data.splits import split, take
from sftdemo.data.types import Dataset, Example, Message, Step, account

__all__ = [
    "Dataset",
    "Example",
    "Message",
    "Sample",
    "Step",
    "account",
    "outlook",
    "prepare",
    "read",
    "samples",
    "split",
    "take",
]
