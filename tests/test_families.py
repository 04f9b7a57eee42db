"""Every family of models, tiny: trained, answered, saved and merged as transformers and PEFT alone would."""

from __future__ import annotations

import pytest
import torch
from families import FAMILIES, WINDOW, build

SPANS = ("sliding_window", "attention_chunk_size")
WINDOWED = [name for name, (_, own) in FAMILIES.items() if any(own.get(key) for key in SPANS)]


@pytest.mark.parametrize("name", WINDOWED)
def test_the_tiny_models_windows_matter(name):
    """Else nothing here would see a window that is ignored."""
    ids = torch.randint(2, 400, (1, 2 * WINDOW), generator=torch.Generator().manual_seed(0))
    changed = {key: 512 for key in SPANS if key in FAMILIES[name][1]}
    with torch.no_grad():
        near, far = (build(name, **changes)[1](ids).logits for changes in ({}, changed))
    assert torch.allclose(near[:, :WINDOW], far[:, :WINDOW], rtol=1e-3, atol=1e-4)
    assert (near - far)[:, WINDOW:].norm() > 0.05 * near[:, WINDOW:].norm()
