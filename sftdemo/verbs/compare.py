"""One prompt, all answers: the `compare` command, its Python call and the /compare endpoint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sftdemo.config import GenerateConfig
from sftdemo.encoding.detokenizer import without_empty_thoughts
from sftdemo.errors import UsageError
from sftdemo.inference import load_run

if TYPE_CHECKING:
    from sftdemo.inference.decoding import Chunk
    from sftdemo.inference.side_by_side import SideBySide
    from sftdemo.runs import Run


def compare(
    run: str | Run | Sequence[str | Run],
    prompt: str,
    config: GenerateConfig | None = None,
    pair: SideBySide | None = None,
) -> dict[str, Any]:
    """{"base": str, "tuned": str, "tokens_per_s": {"base": float, "tuned": float}}, all from one batch.

    With several runs of one base each has its own name in the place of "tuned".
    """
    if not prompt.strip():
        raise UsageError("The prompt is empty; give some text.")
    pair = pair or load_run.load(run)
    return joined(pair.names, pair.stream([{"role": "user", "content": prompt}], config))


def joined(names: Sequence[str], chunks: Iterable[Chunk]) -> dict[str, Any]:
    """All answers of a stream as `compare` gives them."""
    texts, speeds = dict.fromkeys(names, ""), dict.fromkeys(names, 0.0)
    for chunk in chunks:
        texts[chunk.side] += chunk.text
        speeds[chunk.side] = round(chunk.tokens_per_s, 2)
    return {side: without_empty_thoughts(text).strip() for side, text in texts.items()} | {"tokens_per_s": speeds}
