"""The words that a logistic head beside a tagger is fitted to, and what becomes of data with one tag."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from sftdemo.encoding.label_rows import LabelRow, LabelRows
from sftdemo.encoding.token_rows import TokenRow, TokenRows
from sftdemo.model import frozen_head
from sftdemo.training import token_prepare
from sftdemo.training.token_prepare import PreparedTokens, drawn


def test_words_of_texts_from_a_template_are_drawn_in_their_shares():
    labels = [0, 1, 0, 0] * 2500 + [2]
    counts = Counter(labels[place] for place in drawn(labels, 5000))
    assert counts.total() == 5000 and counts[2] == 1 and counts[1] == pytest.approx(1250, abs=100)
    assert drawn([1, 0, 1], 8).tolist() == [0, 1, 2] and drawn([], 8).tolist() == []


def test_only_windows_with_drawn_words_are_computed_and_only_their_tokens_kept(monkeypatch):
    monkeypatch.setattr(token_prepare, "MOST_FITTED", 4)
    rows = [
        TokenRow([number, 10 + number, 20 + number], [1, 2], [(0, 1), (2, 3)], [0, number == 6]) for number in range(8)
    ]
    seen = []

    def encoder(input_ids, attention_mask):
        seen.extend(input_ids[:, 0].tolist())
        return SimpleNamespace(last_hidden_state=input_ids[..., None].float())

    encoder.device = torch.device("cpu")
    prepared = object.__new__(PreparedTokens)
    prepared.rows = {"train": TokenRows(rows)}
    prepared.tokenizer = SimpleNamespace(pad_token_id=0)
    values = prepared.features(encoder, "train")[:, 0].tolist()
    targets = [row.labels[0] for row in prepared.targets("train")]
    assert len(values) == len(targets) == 4 and len(seen) == len(set(seen)) <= 4
    assert [target for value, target in zip(values, targets, strict=True) if value == 26] == [1] and sum(targets) == 1


def test_a_head_of_one_tag_is_constant():
    rows = LabelRows([LabelRow([], [1]) for _ in range(3)], [0, 1, 2])
    head = frozen_head.fit(rows, torch.randn(3, 4), LabelRows(), torch.zeros(0, 1), 3, several=False)
    assert head.logits(torch.randn(5, 4)).argmax(-1).tolist() == [1] * 5
