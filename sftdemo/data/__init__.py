"""Labelled text from files to examples: read, check, split."""

from sftdemo.data.loading import Sample, read, samples
from sftdemo.data.splits import split, take
from sftdemo.data.types import Dataset, Example, Message

__all__ = ["Dataset", "Example", "Message", "Sample", "read", "samples", "split", "take"]
