"""The tokens by which a chat template tells turns apart, and where somebody's text spells one."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OPEN, CLOSE = "<think>", "</think>"
THOUGHT_TOKEN = re.compile("think|thought|reasoning", re.IGNORECASE)
# Nearly all special tokens look like this; the shape is searched for, since a template can have thousands of tokens.
_BRACKETED = re.compile(r"(?=(<[^<>\s]+>|\[[^\[\]\s]+\]))")


def source(tokenizer: PreTrainedTokenizerBase) -> str:
    """The template's text; of several named ones, all."""
    template = tokenizer.chat_template or ""
    return template if isinstance(template, str) else json.dumps(template)


class ControlTokens:
    """The tokens by which a template tells turns apart, found where somebody's text spells one."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        template = source(tokenizer)
        tokens = [token for token in tokenizer.added_tokens_decoder.values() if token.content.strip()]
        # Added tokens that the template doesn't write (Gemma's "<h1>") are words like any others.
        written = f"{template} {OPEN} {CLOSE}"
        control = [token for token in tokens if token.special or token.content in written]
        # An answer holds thoughts and tool calls by their own tokens.
        in_answers = [token for token in control if token.special and not THOUGHT_TOKEN.search(token.content)]
        self.sets = {False: {token.content for token in control}, True: {token.content for token in in_answers}}
        self.others = {
            answer: re.compile(_any_of([text for text in texts if not re.fullmatch(_BRACKETED.pattern[3:-1], text)]))
            for answer, texts in self.sets.items()
        }
        self.patterns = {answer: re.compile(_any_of(texts)) for answer, texts in self.sets.items()}

    def stand_in(self, text: str, answer: bool = False) -> bool:
        """Whether the text spells one of them; in an answer thoughts and tool calls are meant."""
        tokens = self.sets[answer]
        if ("<" in text or "[" in text) and any(match[1] in tokens for match in _BRACKETED.finditer(text)):
            return True
        return self.others[answer].search(text) is not None


def _any_of(texts: Sequence[str] | set[str]) -> str:
    return "|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or r"(?!)"


@lru_cache(maxsize=32)
def _control_tokens(tokenizer: PreTrainedTokenizerBase, template: str) -> ControlTokens:
    return ControlTokens(tokenizer)


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> ControlTokens:
    return _control_tokens(tokenizer, source(tokenizer))


@lru_cache(maxsize=32)
def added_tokens(tokenizer: PreTrainedTokenizerBase, template: str) -> re.Pattern[str]:
    """Any token that was added to the vocabulary, blanks aside: one of them ends a turn, special or not."""
    texts = {token.content for token in tokenizer.added_tokens_decoder.values() if token.content.strip()}
    return re.compile(_any_of(texts))
