"""One prompt, all answers: the `compare` command, its Python call and the /compare endpoint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sftdemo import runs
from sftdemo.config import kinds
from sftdemo.config.generate import GenerateConfig
from sftdemo.encoding.detokenizer import without_empty_thoughts
from sftdemo.errors import UsageError
from sftdemo.inference import labelling, load_run

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
    if pair is None and (labels := labelled(run, prompt)):
        return labels
    pair = pair or load_run.load(run)
    return joined(pair.names, pair.stream([{"role": "user", "content": prompt}], config))


def labelled(run: str | Run | Sequence[str | Run], prompt: str) -> dict[str, Any] | None:
    """Of one run that labels texts {"base", "tuned", "tokens_per_s", "shown": {side: as a reader sees it}} and "probabilities"
    {side: {label: share}}, or where it marks entities "entities" {side: [{"text", "label", "start", "end"}]}; None of others."""
    chosen = [runs.find(each) if isinstance(each, str) else each for each in _listed(run)]
    if len(chosen) != 1 or chosen[0].kind not in kinds.LABELLING:
        return None
    sides = labelling.label(chosen[0], prompt)
    return {
        **{side: own.answer for side, own in sides.items()},
        "tokens_per_s": dict.fromkeys(sides, 0.0),
        "shown": {side: own.shown for side, own in sides.items()},
        "entities" if chosen[0].kind == "tokens" else "probabilities": {
            side: own.values for side, own in sides.items()
        },
    }


def _listed(run: str | Run | Sequence[str | Run]) -> Sequence[str | Run]:
    return [run] if isinstance(run, str | runs.Run) else run


def joined(names: Sequence[str], chunks: Iterable[Chunk]) -> dict[str, Any]:
    """All answers of a stream as `compare` gives them."""
    texts, speeds = dict.fromkeys(names, ""), dict.fromkeys(names, 0.0)
    for chunk in chunks:
        texts[chunk.side] += chunk.text
        speeds[chunk.side] = round(chunk.tokens_per_s, 2)
    return {side: without_empty_thoughts(text).strip() for side, text in texts.items()} | {"tokens_per_s": speeds}
