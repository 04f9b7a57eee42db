"""Answering on ZeroGPU: in a GPU call of bounded length, by models that its process loads and keeps."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftdemo import runs
from sftdemo.config.generate import GenerateConfig
from sftdemo.errors import UserError
from sftdemo.inference import load_run
from sftdemo.inference.decoding import Chunk
from sftdemo.system.zero_gpu import CALL_SECONDS, MARGIN_SECONDS, gpu_call

if TYPE_CHECKING:
    from sftdemo.inference.side_by_side import SideBySide


@lru_cache(maxsize=1)
def loaded(paths: tuple[str, ...]) -> SideBySide:
    """The models of some runs on the GPU, kept while the process of the calls is."""
    return load_run.load([runs.Run(Path(path)) for path in paths])


@gpu_call()
def answer(
    paths: Sequence[str], messages: Any, config: Mapping[str, Any], tools: Any, seconds: float
) -> Generator[Chunk | str, None, None]:
    """The chunks of `SideBySide.stream`, for so many seconds; what the user can mend comes as a text, the last item."""
    ends = time.monotonic() + seconds
    try:
        pair = loaded(tuple(paths))
        yield from pair.stream(messages, GenerateConfig.from_json(dict(config)), lambda: time.monotonic() > ends, tools)
    except UserError as error:
        yield str(error)


def stream(
    paths: Sequence[str],
    messages: Any,
    config: GenerateConfig,
    should_stop: Callable[[], bool] = lambda: False,
    tools: Any = None,
    sides: Sequence[str] = (),
) -> Generator[Chunk, None, None]:
    """As `SideBySide.stream`, from a GPU call; closed or told to stop, it ends that call. `sides` are shown, if any are named."""
    with closing(answer(list(paths), messages, config.to_json(), tools, CALL_SECONDS - MARGIN_SECONDS)) as chunks:
        for chunk in chunks:
            if isinstance(chunk, str):
                raise UserError("{reason}", reason=chunk)
            if not sides or chunk.side in sides:
                yield chunk
            if should_stop():
                return
