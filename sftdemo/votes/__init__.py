"""Blind votes: which pair a rater sees on which side, each vote on disk before it counts, and what they sum up to."""

from sftdemo.votes.hints import Hints
from sftdemo.votes.pairing import TYPED, Pair
from sftdemo.votes.results import Report, Totals
from sftdemo.votes.storage import CHOICES, SCALES, TAGS, WINNERS
from sftdemo.votes.store import OwnVote, Revealed, Store

__all__ = [
    "CHOICES",
    "SCALES",
    "TAGS",
    "TYPED",
    "WINNERS",
    "Hints",
    "OwnVote",
    "Pair",
    "Report",
    "Revealed",
    "Store",
    "Totals",
]
