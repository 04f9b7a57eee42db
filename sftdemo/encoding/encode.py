"""Conversations to token ids and to the mask of what is learned: prompts as chat sends them, then the answers."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sftdemo.encoding import source_target
from sftdemo.encoding.chat_template import CHECKS, Chat, Messages, TemplateError, Tools, prepare, texts, traits
from sftdemo.encoding.control_tokens import source
from sftdemo.encoding.rows import Encoded
from sftdemo.encoding.turns import Turn, learned_text, turn
from sftdemo.errors import Text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["CHECKS", "Messages", "TemplateError"]
TEMPLATE = 512  # tokens, at most, that a template writes around a conversation


def may_exceed(messages: Messages, limit: int, tools: Tools | None = None) -> bool:
    """Whether the conversation can have more than `limit` tokens; most needn't be encoded for that."""
    return most_tokens(messages, tools) > limit


def most_tokens(messages: Messages, tools: Tools | None = None) -> int:
    """How many tokens a conversation can have: one is a byte at least."""
    size = sum(len(text.encode()) for message in messages for text in texts(message))
    if tools or any("tool_calls" in message for message in messages):
        size += 2 * len(json.dumps([list(tools or []), *messages]))
    return size + TEMPLATE


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: Messages, tools: Tools | None = None) -> list[int]:
    """Token ids up to where the assistant's next answer begins, or of a source text. The template writes BOS, so none is
    added."""
    if pairs := source_target.of(tokenizer):
        return source_target.source_ids(tokenizer, pairs, messages)
    chat = prepare(tokenizer, messages, tools)
    return _ids(chat, chat.text(len(chat.messages), add_generation_prompt=True))


def _ids(chat: Chat, text: str) -> list[int]:
    if chat.marked:
        return _marked_ids(chat.tokenizer, text)
    return chat.tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[no-any-return]


def _marked_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The ids of a text in which `prepare` has marked what only spells a control token; a lone mark parts the text."""
    try:
        return tokenizer(text, add_special_tokens=False, sanitize_control_tokens=True)["input_ids"]  # type: ignore[no-any-return]
    except ValueError:  # a vocabulary with the token among its words: in two pieces it can't be that word
        begin, end = _marks()
        parted = re.sub(f"{begin}(.)([^{begin}{end}]*){end}", rf"\1{begin}\2", text, flags=re.DOTALL)
        return tokenizer(parted, add_special_tokens=False, sanitize_control_tokens=True)["input_ids"]  # type: ignore[no-any-return]


@lru_cache(maxsize=1)
def _marks() -> tuple[str, str]:
    """The private characters with which transformers marks control tokens in texts, before and behind."""
    from transformers.utils.chat_template_utils import mark_control_tokens

    begin, end = mark_control_tokens("a", re.compile("a")).split("a")
    return begin, end


def _ids_behind(chat: Chat, prompt: str, prompt_ids: list[int], text: str) -> list[int]:
    """The ids of prompt and text with the prompt's own at the front, also where a token would span the border."""
    whole = _ids(chat, prompt + text)
    if whole[: len(prompt_ids)] == prompt_ids:
        return whole
    parted = _marked_ids(chat.tokenizer, prompt + _marks()[0] + text)
    if parted[: len(prompt_ids)] != prompt_ids:
        raise TemplateError(
            "A token spans the prompt and the answer, so the answer can't be masked safely with this tokenizer and "
            "template.",
            check="prompt_prefix_same",
        )
    return parted


def longest_row(tokenizer: PreTrainedTokenizerBase, row: Encoded, max_length: int) -> int:
    """The most tokens that the row may have: `max_length`, or what the model has positions for beside its target."""
    pairs = source_target.of(tokenizer)
    return pairs.limit(row, max_length) if pairs else max_length


def limits_in_words(tokenizer: PreTrainedTokenizerBase, max_length: int) -> Text:
    """What `longest_row` holds rows to."""
    pairs = source_target.of(tokenizer)
    if pairs is None or not (pairs.longest_source or pairs.longest_target):
        return Text("max_length {max_length}", max_length=max_length)
    return Text(
        "max_length {max_length}, or the model's {source} of source and {target} of target",
        max_length=max_length,
        source=pairs.longest_source,
        target=pairs.longest_target,
    )


def stop_ids(tokenizer: PreTrainedTokenizerBase, generation_config: Any = None) -> set[int]:
    """The tokens that end an answer: the tokenizer's, the generation config's, and the template's ends of a turn."""
    stops: set[Any] = {tokenizer.eos_token_id}
    configured = getattr(generation_config, "eos_token_id", None)
    stops.update(configured if isinstance(configured, list) else [configured])
    if source_target.of(tokenizer):
        return {stop for stop in (*stops, source_target.end_id(tokenizer)) if stop is not None}
    question = {"role": "user", "content": "a"}
    row = encode(tokenizer, [question, {"role": "assistant", "content": "b"}])
    stops.add(row.ids[len(row.inputs)])
    if traits(tokenizer).tool_calls != "not":  # GPT-OSS ends a call otherwise than an answer
        call = {"id": "callprobe", "type": "function", "function": {"name": "f", "arguments": {"x": "y"}}}
        try:
            row = encode(tokenizer, [question, {"role": "assistant", "content": "", "tool_calls": [call]}])
        except TemplateError:  # one that wants more than a name and arguments; answers still end
            return stops - {None}
        stops.add(row.ids[len(row.inputs)])
    return stops - {None}


def encode(tokenizer: PreTrainedTokenizerBase, messages: Messages, tools: Tools | None = None) -> Encoded:
    """The row of the last answer that is learned, with all earlier ones that stand in it as chat asks for them."""
    return encode_turns(tokenizer, messages, tools)[-1][1]


def encode_turns(
    tokenizer: PreTrainedTokenizerBase, messages: Messages, tools: Tools | None = None
) -> list[tuple[list[int], Encoded]]:
    """Rows in which each answer is learned once, with the numbers of the messages that are learned in each.

    A row is the prompt that chat would send, token for token, then the answer, then what ends it. One row holds all
    answers unless the template rewrites history: then a row ends with each answer that later turns would change. Turns of
    weight 0 are read, not learned. Raises TemplateError where a turn can't be had so.
    """
    if pairs := source_target.of(tokenizer):
        return [([len(messages) - 1], source_target.row(tokenizer, pairs, messages))]
    if not tokenizer.is_fast:
        raise TemplateError(
            "This model's tokenizer doesn't tell where its tokens stand in the text; choose another model."
        )
    if not messages or messages[-1]["role"] != "assistant":
        raise TemplateError("The conversation doesn't end with an assistant's turn.", check="supervised_in_each_row")
    # What opens a conversation answers nothing.
    learned = [at for at, message in enumerate(messages) if at and _is_learned(message)]
    if not learned:
        raise TemplateError("No answer in the conversation is to be learned.", check="supervised_in_each_row")
    chat = prepare(tokenizer, messages, tools)
    turns = {at: turn(chat, at) for at in learned}
    if (row := _in_one(chat, turns)) is not None:
        return [(learned, row)]
    own = {at: _own_row(chat, answer_turn) for at, answer_turn in turns.items()}
    rows: list[tuple[list[int], Encoded]] = []
    while own:
        last = max(own)
        ids = own[last][0]
        inside = [at for at, (answer, _) in own.items() if ids[: len(answer)] == answer]
        supervised = [False] * len(ids)
        for answer, start in (own.pop(at) for at in inside):
            supervised[start : len(answer)] = [True] * (len(answer) - start)
        rows.insert(0, (inside, Encoded(ids, supervised)))
    for _, row in rows:
        _check_bos(tokenizer, row.ids)
    return rows


def _is_learned(message: Mapping[str, Any]) -> bool:
    return message["role"] == "assistant" and bool(message.get("weight", 1))


def answer_ids(
    tokenizer: PreTrainedTokenizerBase, prompt: Messages, answer: str | Mapping[str, Any], tools: Tools | None = None
) -> list[int]:
    """The learned tokens of an answer to these messages, its end of turn included; a text, or an assistant's message."""
    message = {"role": "assistant", "content": answer} if isinstance(answer, str) else {**answer, "weight": 1}
    row = encode(tokenizer, [*({**earlier, "weight": 0} for earlier in prompt), message], tools)
    return [token for token, learned in zip(row.ids, row.supervised, strict=True) if learned]


def _own_row(chat: Chat, answer_turn: Turn) -> tuple[list[int], int]:
    """The ids up to the turn's end, and where the answer begins."""
    prompt = _ids(chat, answer_turn.prompt)
    return _ids_behind(chat, answer_turn.prompt, prompt, learned_text(chat, answer_turn)), len(prompt)


def _check_bos(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> None:
    if tokenizer.bos_token and ids[:2] == [tokenizer.bos_token_id] * 2:
        raise TemplateError("The row begins with two BOS tokens ({bos}).", check="bos_once", bos=tokenizer.bos_token)


def _in_one(chat: Chat, turns: Mapping[int, Turn]) -> Encoded | None:
    """All turns in the text of the last one, tokenized once, or None where that isn't what chat would ask for.

    It gives the ids of `_own_row`, in a third of the time.
    """
    final = turns[max(turns)]
    if chat.marked or not all(answer_turn.natural for answer_turn in turns.values()):
        return None
    batch = chat.tokenizer(final.whole, add_special_tokens=False, return_offsets_mapping=True)
    row = _Row(chat.tokenizer, final.whole, batch["input_ids"], batch["offset_mapping"])
    _check_bos(chat.tokenizer, row.ids)
    supervised = [False] * len(row.ids)
    for answer_turn in turns.values():
        end, start = row.end_of_turn(answer_turn), row.start_of_answer(answer_turn)
        if end is None or start is None or not final.whole.startswith(answer_turn.whole[: row.offsets[end][1]]):
            return None
        supervised[start : end + 1] = [True] * (end + 1 - start)
    return Encoded(row.ids, supervised)


class _Row:
    """One rendered and tokenized conversation."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, text: str, ids: list[int], offsets: list[tuple[int, int]]
    ) -> None:
        self.tokenizer, self.text, self.ids, self.offsets = tokenizer, text, ids, offsets
        self.added = _added_ids(tokenizer, source(tokenizer))
        self._lefts = [left for left, _ in offsets]

    def end_of_turn(self, answer_turn: Turn) -> int | None:
        """The first token of the template's own behind the answer's content that was added for such ends."""
        words_end = len(answer_turn.prompt) + answer_turn.words_end
        at = bisect_left(self._lefts, words_end)
        if at and self.offsets[at - 1][1] > words_end:  # it may have taken blanks before it
            at -= 1
        while at < len(self.ids) and self._lefts[at] < len(answer_turn.whole):
            if self.ids[at] in self.added:
                return at
            at += 1
        return None

    def start_of_answer(self, answer_turn: Turn) -> int | None:
        """How many tokens the prompt has, or None unless they are the ones chat would send.

        A special token parts the text, so only the stretch behind the prompt's last one can be cut otherwise; that
        stretch alone is tokenized again, and most rows have the same.
        """
        cut = bisect_left(self._lefts, len(answer_turn.prompt))
        begin = next((at for at in range(cut - 1, -1, -1) if self.ids[at] in self.added), 0)
        stretch = _tokenized(self.tokenizer, self.text[self._lefts[begin] if begin else 0 : len(answer_turn.prompt)])
        return begin + len(stretch) if self.ids[begin : begin + len(stretch)] == list(stretch) else None


@lru_cache(maxsize=32)
def _added_ids(tokenizer: PreTrainedTokenizerBase, template: str) -> frozenset[int]:
    """Some tokenizers hold their end of turn as an added token that isn't marked special, and runs of blanks as well."""
    added = {id for id, token in tokenizer.added_tokens_decoder.items() if token.content.strip()}
    return frozenset(added | set(tokenizer.all_special_ids))


@lru_cache(maxsize=1024)
def _tokenized(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
