"""Token ids back to text, as they come, with a model's thoughts marked."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from sftdemo.encoding.thoughts import MARKS, split_thoughts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Detokenizer:
    """Turns a growing list of token ids into text, holding back bytes that don't make a whole character yet."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, skip_special_tokens: bool = True) -> None:
        self.tokenizer = tokenizer
        self.hidden = _hidden(tokenizer) if skip_special_tokens else frozenset[int]()
        self.ids: list[int] = []
        self._shown = 0  # tokens whose text has been given out
        self._context = 0  # where decoding starts: a token's text can depend on the one before

    def add(self, token: int) -> str:
        """The new text this token completes; "" while a character is cut."""
        self.ids.append(token)
        old = self._decode(self._context, self._shown)
        new = self._decode(self._context, len(self.ids))
        if new.endswith("\ufffd"):
            return ""
        if self.tokenizer.is_fast:  # those in Python drop the blanks at both ends of what they decode
            self._context = self._shown
        self._shown = len(self.ids)
        return new[len(old) :]

    def text(self, ids: list[int]) -> str:
        """The whole text of an answer."""
        shown = [token for token in ids if token not in self.hidden]
        return self.tokenizer.decode(shown, clean_up_tokenization_spaces=False)  # type: ignore[no-any-return]

    def _decode(self, start: int, end: int) -> str:
        return self.text(self.ids[start:end])


class Answer(Detokenizer):
    """The text of an answer; where the prompt has opened its thoughts already, it begins with their mark."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: list[int]) -> None:
        super().__init__(tokenizer)
        end: str = tokenizer.decode(prompt[-8:], clean_up_tokenization_spaces=False).rstrip()
        self._opened = next((mark for mark in MARKS if end.endswith(mark)), "")

    def add(self, token: int) -> str:
        text = super().add(token)
        if text and self._opened:
            text, self._opened = f"{self._opened}\n{text}", ""
        return text


def without_empty_thoughts(text: str) -> str:
    """The answer alone, where nothing was thought before it."""
    thoughts, answer = split_thoughts(text)
    return text if thoughts or not answer else answer


@lru_cache(maxsize=32)
def _hidden(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The special tokens that aren't shown: all but those that mark thoughts; M2M100's languages are none, and not shown."""
    marks = " ".join([*MARKS, *MARKS.values()])
    special = {token: added.content for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    special |= {token: text for text, token in getattr(tokenizer, "lang_token_to_id", {}).items()}
    special |= dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    return frozenset(token for token, text in special.items() if text not in marks)
