"""Source and target of a sequence-to-sequence model: what its encoder reads, and what its decoder learns to write."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftdemo.encoding.chat_template import Messages, TemplateError
from sftdemo.encoding.rows import Encoded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ATTRIBUTE = "source_target"
_MODES = threading.Lock()  # tokenizers with languages are switched between source and target
_WORD = re.compile(r"\s*\S+\s*")


@dataclass(frozen=True)
class SourceTarget:
    """How a tokenizer encodes pairs: the text before each source, the token that the decoder starts with, and how many
    tokens the model has positions for, None where they are relative."""

    prefix: str = ""
    start: int | None = None
    longest_source: int | None = None
    longest_target: int | None = None

    def limit(self, row: Encoded, max_length: int) -> int:
        """The most tokens that a row with this target may have; 0 where the target itself has too many."""
        target = len(row.ids) - row.prompt_length
        if target > (self.longest_target or target):
            return 0
        return min(max_length, (self.longest_source or max_length) + target)

    def has_room(self, source: int, target: int) -> bool:
        """Whether the model has positions for so many tokens."""
        return source <= (self.longest_source or source) and target <= (self.longest_target or target)


def attach(tokenizer: PreTrainedTokenizerBase, pairs: SourceTarget) -> None:
    """Make the functions of `encode` encode pairs with this tokenizer, in place of a chat template's text."""
    setattr(tokenizer, _ATTRIBUTE, pairs)


def of(tokenizer: PreTrainedTokenizerBase) -> SourceTarget | None:
    """How the tokenizer encodes pairs; None where it is a chat model's."""
    return getattr(tokenizer, _ATTRIBUTE, None)


def end_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that ends a target; of BERT's kind, which have no end of sequence, the separator."""
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    return None if end is None else int(end)


def source_text(pairs: SourceTarget, messages: Messages) -> str:
    """The prefix, a system message, and the user's text. Raises TemplateError for more turns than one."""
    roles = [message["role"] for message in messages]
    if roles.count("user") != 1 or set(roles) - {"system", "user"}:
        raise TemplateError(
            "A sequence-to-sequence model reads one source text and writes one target; this conversation has the turns "
            "{turns}.",
            turns=[str(role) for role in roles],
            check="supervised_in_each_row",
        )
    return pairs.prefix + "\n\n".join(str(message["content"]) for message in messages if message["content"])


def source_ids(tokenizer: PreTrainedTokenizerBase, pairs: SourceTarget, messages: Messages) -> list[int]:
    """What the encoder reads; a text that spells a special token stays text."""
    text = source_text(pairs, messages)
    with _MODES:
        ids: list[int] = tokenizer(text, split_special_tokens=True)["input_ids"]
    return ids


def target_ids(tokenizer: PreTrainedTokenizerBase, pairs: SourceTarget, text: str) -> list[int]:
    """What the decoder learns: the target's tokens, with a language's where the model has such, and the one that ends it."""
    with _MODES:
        ids: list[int] = tokenizer(text_target=text, split_special_tokens=True)["input_ids"]
    if ids[:1] == [pairs.start]:  # BERT's [CLS]: the decoder is given it, and needn't write it
        ids = ids[1:]
    end = end_id(tokenizer)
    if end is None:
        raise TemplateError("The model's tokenizer has no token that ends a text; choose another model.")
    return ids if end in ids[-2:] else [*ids, end]  # mBART writes the language behind it


def row(tokenizer: PreTrainedTokenizerBase, pairs: SourceTarget, messages: Messages) -> Encoded:
    """Source and target put end to end, of which the target is learned."""
    if not messages or messages[-1]["role"] != "assistant":
        raise TemplateError("The conversation doesn't end with an assistant's turn.", check="supervised_in_each_row")
    answer = messages[-1]
    if not answer.get("weight", 1):
        raise TemplateError("No answer in the conversation is to be learned.", check="supervised_in_each_row")
    if answer.get("tool_calls"):
        raise TemplateError("A sequence-to-sequence model writes text and calls no tools.")
    source = source_ids(tokenizer, pairs, messages[:-1])
    target = target_ids(tokenizer, pairs, str(answer["content"]))
    if not source:
        raise TemplateError("The source text has no tokens.", check="supervised_in_each_row")
    return Encoded(source + target, [False] * len(source) + [True] * len(target))


def offsets(tokenizer: PreTrainedTokenizerBase, text: str) -> list[tuple[int, int]]:
    """Where each token stands in the text; with a tokenizer that can't tell, where its word does."""
    if tokenizer.is_fast:
        batch: Any = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return batch["offset_mapping"]  # type: ignore[no-any-return]
    places = []
    for word in _WORD.finditer(text):
        count = len(tokenizer(word[0], add_special_tokens=False)["input_ids"])
        places += [word.span()] * count
    return places
