"""Conversations written out as one text, to turns."""

from __future__ import annotations

import re

_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")


def human_assistant(text: str) -> list[dict[str, str]] | None:
    """The turns of "Human: …", "Assistant: …", as some preference sets write them; None for any other text."""
    start, *parts = _SPEAKER.split(text.strip())
    if start or not parts:
        return None
    return [
        {"role": speaker.casefold(), "content": said.strip()}
        for speaker, said in zip(parts[::2], parts[1::2], strict=True)
    ]
