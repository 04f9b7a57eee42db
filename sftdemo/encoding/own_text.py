"""What a row says itself, for models that read a text and are not asked in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sftdemo.data.conversion.wording import Wording
from sftdemo.data.types import turn_text


def own_text(prompt: Sequence[Mapping[str, Any]], templates: Iterable[str]) -> str:
    """A conversation up to its answer as one text, without system prompts and the words that a template put around it."""
    texts = [turn_text(message) for message in prompt if message["role"] != "system"]
    wordings = [Wording(template) for template in dict.fromkeys(templates) if template]
    for place, text in enumerate(texts):
        taken = (wording.taken_out(text) for wording in wordings)
        texts[place] = next((own for own in taken if own is not None), text)
    return "\n".join(texts)
