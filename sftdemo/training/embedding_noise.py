"""NEFTune: uniform noise on the embeddings of training rows, smaller in longer rows (Jain et al. 2023, algorithm 1)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class EmbeddingNoise:
    """Adds to each token's embedding numbers between -size and size, size = alpha / sqrt(row's tokens * width)."""

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha
        self.lengths: Tensor | None = None
        """[B, T]: of the next pass, how many tokens each token's row has."""

    def begin(self, embeddings: nn.Module) -> None:
        """Add it to what these give from now on; a copy of them made later would have a noise of its own that nobody tells."""
        embeddings.register_forward_hook(self._add)

    def _add(self, embeddings: nn.Module, arguments: Any, output: Tensor) -> Tensor | None:
        if not embeddings.training or self.lengths is None:
            return None
        size = self.alpha * (self.lengths * output.shape[-1]).rsqrt().to(output.dtype)
        return output + torch.empty_like(output).uniform_(-1, 1) * size[..., None]
