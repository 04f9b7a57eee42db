"""A tokenizer.json as GGUF's metadata: byte-level BPE by name of its way to cut text, and SentencePiece's BPE with scores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sftdemo.errors import UserError

_ENDS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_ENDS_O200K = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = (rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*")
# How byte-level BPE cuts text first: the regular expression as tokenizer.json has it, and llama.cpp's name for it.
CUTS = {
    rf"{_SHORT}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_ENDS}": "llama-bpe",
    rf"{_SHORT}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_ENDS}": "qwen2",
    rf"{_CASED[0]}{_SHORT}?|{_CASED[1]}{_SHORT}?|\p{{N}}{{1,3}}|{_ENDS_O200K}": "gpt-4o",
    rf"{_CASED[0]}|{_CASED[1]}|\p{{N}}|{_ENDS_O200K}": "tekken",
}
NO_PREFIX_SCHEMES = (
    "first",
    "never",
)  # a conversation begins with a control token, and then "first" adds nothing, either
PHI_KEEPS = ("<unk>", "<s>", "<|endoftext|>")  # the space behind these stays, as llama.cpp has it of Phi 3
SPACE = "\u2581"  # what SentencePiece writes for a space
_TO_SPACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}


@dataclass(frozen=True)
class Vocabulary:
    """What tokenizer.json says; raises UserError where llama.cpp has no tokenizer that does the same."""

    content: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Vocabulary:
        path = folder / "tokenizer.json"
        vocabulary = cls(json.loads(path.read_text("utf-8")) if path.is_file() else {"added_tokens": []})
        if (not vocabulary.cut and vocabulary.prefix is None) or vocabulary.hint is None:
            raise UserError(
                "This model's tokenizer can't be written as GGUF here, only byte-level BPE that cuts text as llama.cpp does, "
                "and SentencePiece's BPE; export it as merged instead."
            )
        return vocabulary

    @property
    def _model(self) -> dict[str, Any]:
        model: dict[str, Any] = self.content.get("model", {})
        return model if model.get("type") == "BPE" else {}

    @cached_property
    def _steps(self) -> list[dict[str, Any]]:
        """The parts of the pre-tokenizer."""
        before = self.content.get("pre_tokenizer") or {}
        return list(before.get("pretokenizers", [before]))

    @property
    def cut(self) -> str:
        """llama.cpp's name for how byte-level BPE cuts text; "" for any other tokenizer."""
        if not self._model or not any(step.get("type") == "ByteLevel" for step in self._steps):
            return ""
        kinds = [step["type"] for step in self._steps]
        patterns = [str(step["pattern"].get("Regex")) for step in self._steps if step["type"] == "Split"]
        [level] = [step for step in self._steps if step["type"] == "ByteLevel"]
        by_itself = level.get("use_regex", True)
        if level.get("add_prefix_space"):
            return ""
        if kinds == ["Split", "ByteLevel"] and not by_itself:
            name = CUTS.get(patterns[0], "")
            return "dbrx" if name == "llama-bpe" and not self._model.get("ignore_merges") else name
        if kinds == ["Digits", "ByteLevel"] and by_itself and self._steps[0].get("individual_digits"):
            return "smollm"
        return "gpt-2" if kinds == ["ByteLevel"] and by_itself else ""

    @property
    def prefix(self) -> bool | None:
        """Of SentencePiece's BPE whether a space is put before text at the start and after control tokens; None for any other."""
        if not self._model.get("byte_fallback") or not self._is_sentencepiece():
            return None
        normalizer, before = self.content.get("normalizer"), self.content.get("pre_tokenizer")
        parts = (normalizer or {}).get("normalizers", [normalizer] if normalizer else [])
        if parts == [{"type": "Prepend", "prepend": SPACE}, _TO_SPACE] and not before:
            return True
        no_cut = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
        if parts == [_TO_SPACE] and before in (None, no_cut):  # there are no spaces left to cut at
            return False
        if not parts and before and before["type"] == "Metaspace" and before.get("split") is False:
            return before.get("prepend_scheme") not in NO_PREFIX_SCHEMES
        return None

    @property
    def hint(self) -> str | None:
        """What the model's name must have in it, so that llama.cpp lets control tokens swallow the spaces behind them as Phi 3's do;
        None where others do."""
        controls = {
            token["content"]: bool(token.get("rstrip")) for token in self.content["added_tokens"] if token["special"]
        }
        if not any(controls.values()):
            return ""
        as_phi = {text: text not in PHI_KEEPS for text in (*controls, *PHI_KEEPS, "</s>")}
        return "Phi-3" if controls == as_phi else None

    @cached_property
    def _ranks(self) -> dict[str, int]:
        """Of each piece that two others make, the place of the first pair."""
        ranks: dict[str, int] = {}
        for place, (left, right) in enumerate(self._merges()):
            ranks.setdefault(left + right, place)
        return ranks

    def _merges(self) -> Iterator[tuple[str, str]]:
        for pair in self._model["merges"]:
            left, right = pair.split(" ", 1) if isinstance(pair, str) else pair
            yield left, right

    def _is_sentencepiece(self) -> bool:
        """Whether any two pieces that make a third one may be joined, as llama.cpp does, which knows no pairs."""
        vocabulary, pairs = self._model["vocab"], set(self._merges())
        added = {token["content"] for token in self.content["added_tokens"]}
        return all(
            (piece[:cut], piece[cut:]) in pairs
            for piece in vocabulary
            if piece not in added and not _is_byte(piece)
            for cut in range(1, len(piece))
            if piece[:cut] in vocabulary and piece[cut:] in vocabulary
        )

    def add(self, writer: Any, size: int, stop_ids: list[int]) -> None:
        """Write tokens, merges or scores, and the tokens that end an answer; rows of the embedding without a token get a name of
        their own."""
        from gguf import TokenType

        tokens = [f"[PAD{number}]" for number in range(size)]
        types = [TokenType.UNUSED] * size
        vocabulary, unknown = self._model["vocab"], self._model.get("unk_token")
        for text, number in vocabulary.items():
            tokens[number], types[number] = text, TokenType.NORMAL
            if not self.cut and _is_byte(text):
                types[number] = TokenType.BYTE
        for added in self.content["added_tokens"]:
            kind = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
            tokens[added["id"]], types[added["id"]] = added["content"], kind
        for number in stop_ids:
            types[number] = TokenType.CONTROL
        if self.cut:
            writer.add_tokenizer_model("gpt2")
            writer.add_tokenizer_pre(self.cut)
            writer.add_token_merges([f"{left} {right}" for left, right in self._merges()])
        else:
            if unknown in vocabulary:
                types[vocabulary[unknown]] = TokenType.UNKNOWN
                writer.add_unk_token_id(vocabulary[unknown])
            writer.add_tokenizer_model("llama")
            writer.add_tokenizer_pre("default")
            writer.add_token_scores([-float(self._ranks.get(token, len(self._ranks))) for token in tokens])
            writer.add_add_space_prefix(bool(self.prefix))
        writer.add_token_list(tokens)
        writer.add_token_types(types)
        writer.add_add_bos_token(False)  # the chat template writes it, where there is one
        writer.add_bos_token_id(stop_ids[0])  # llama.cpp wants one, and never adds it
        writer.add_eos_token_id(stop_ids[0])
        writer.add_eot_token_id(stop_ids[-1])
        writer.add_pad_token_id(stop_ids[0])


def _is_byte(text: str) -> bool:
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")
