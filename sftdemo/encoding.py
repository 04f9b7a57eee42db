"""The only place where a chat template is applied: conversations to token ids and to the mask of what is learned."""

from __future__ import annotations

import json
import os.path
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftdemo import hub
from sftdemo.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = Sequence[Mapping[str, Any]]
STAND_IN = "\u2063answer\u2063"
OPEN, CLOSE = "<think>", "</think>"
TEMPLATE = 512  # tokens, at most, that a template writes around a conversation


# What must hold before a row may be trained on; each has its reason in the TemplateError that names it.
CHECKS = ("template_accepts", "bos_once", "end_of_turn_learned", "supervised_in_each_row", "prompt_prefix_same")


class TemplateError(UserError):
    """The chat template and this conversation don't allow a safe mask; `check` is the one of CHECKS that failed."""

    def __init__(self, text: str, check: str = "template_accepts") -> None:
        super().__init__(text)
        self.check = check


@dataclass(frozen=True)
class Encoded:
    """Token ids of a conversation, and for each whether it is learned (an assistant's token or its end of turn).

    `only_read` counts earlier answers that the template writes differently once later turns follow: what would be
    learned there isn't what chat asks for, so they are context alone.
    """

    ids: list[int]
    supervised: list[bool]
    weight: float = 1.0
    only_read: int = 0

    @property
    def prompt_length(self) -> int:
        """How many tokens stand before the first learned one."""
        return self.supervised.index(True)

    @property
    def inputs(self) -> list[int]:
        """What a model must read to learn the row: all before its last learned token; of the rest nothing is asked."""
        return self.ids[: len(self.ids) - 1 - self.supervised[::-1].index(True)]


def tokenizer(model: str | Path, report: hub.Report = hub.silent) -> PreTrainedTokenizerBase:
    """The tokenizer of a model id or folder, with its chat template."""
    path = model if isinstance(model, Path) else hub.find(model, report)[0]
    try:
        if _is_generic(path):  # AutoTokenizer reads the model's config first, which imports torch and seconds of models
            from transformers import PreTrainedTokenizerFast

            return PreTrainedTokenizerFast.from_pretrained(path)  # type: ignore[no-any-return]
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(path)  # type: ignore[no-any-return]
    except (OSError, ValueError) as error:
        raise UserError(f"The tokenizer in {path} can't be read: {str(error).splitlines()[0]}") from error


def _is_generic(folder: Path) -> bool:
    """Whether transformers 5 saved it as what its tokenizer.json says, without a class of its own."""
    config, whole = folder / "tokenizer_config.json", folder / "tokenizer.json"
    return (
        config.is_file()
        and whole.is_file()
        and json.loads(config.read_text("utf-8")).get("tokenizer_class") == "TokenizersBackend"
    )


def may_pass(messages: Messages, limit: int) -> bool:
    """Whether the conversation can have more than `limit` tokens; a token is a byte at least, so most needn't be encoded."""
    return sum(len(message["content"].encode()) for message in messages) + TEMPLATE > limit


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """With how many tokens all rows begin alike."""
    return len(os.path.commonprefix(list(rows)))  # type: ignore[arg-type]  # noqa: RUF071 (it takes any lists)


class Rows(Sequence[Encoded]):
    """Encoded rows in 5 bytes a token; as lists of numbers they take 44, half a gigabyte for 100,000 short rows."""

    def __init__(self, rows: Iterable[Encoded] = ()) -> None:
        self.ids, self.supervised = array("i"), bytearray()
        self.ends, self.weights, self.only_read = array("q", [0]), array("d"), array("i")
        for row in rows:
            self.append(row)

    def append(self, row: Encoded) -> None:
        self.ids.extend(row.ids)
        self.supervised.extend(row.supervised)
        self.ends.append(len(self.ids))
        self.weights.append(row.weight)
        self.only_read.append(row.only_read)

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        weight = self.weights[index]  # IndexError where there is no such row
        index %= len(self)
        span = slice(self.ends[index], self.ends[index + 1])
        supervised = [learned == 1 for learned in self.supervised[span]]
        return Encoded(self.ids[span].tolist(), supervised, weight, self.only_read[index])


@dataclass(frozen=True)
class _Turn:
    """An assistant's turn in the text up to it: `whole` as rendered, the prompt's length, where its content ends."""

    number: int
    whole: str
    start: int
    content_end: int


def render(tokenizer: PreTrainedTokenizerBase, messages: Messages, add_generation_prompt: bool = False) -> str:
    """The conversation as the template writes it, one string."""
    if not tokenizer.chat_template:
        raise TemplateError("This model has no chat template; choose a chat (instruct) model.")
    import jinja2

    try:
        return tokenizer.apply_chat_template(  # type: ignore[no-any-return]
            list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except (jinja2.TemplateError, TypeError) as error:
        raise TemplateError(
            f"The model's chat template refuses this conversation: {str(error).rstrip('.')}."
        ) from error


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> list[int]:
    """Token ids up to where the assistant's next answer begins. The template writes BOS, so none is added."""
    return tokenizer(render(tokenizer, messages, add_generation_prompt=True), add_special_tokens=False)["input_ids"]  # type: ignore[no-any-return]


def stop_ids(tokenizer: PreTrainedTokenizerBase, generation_config: Any = None) -> set[int]:
    """The tokens that end an answer: the tokenizer's, the generation config's, and the template's end of turn."""
    found = {tokenizer.eos_token_id}
    configured = getattr(generation_config, "eos_token_id", None)
    found.update(configured if isinstance(configured, list) else [configured])
    asked = {"role": "user", "content": "a"}
    try:
        encoded = encode(tokenizer, [asked, {"role": "assistant", "content": "b"}])
    except TemplateError:  # a template that opens the thoughts wants them closed
        encoded = encode(tokenizer, [asked, {"role": "assistant", "content": f"{CLOSE}b"}])
    found.add(encoded.ids[len(encoded.inputs)])
    return found - {None}


def encode(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> Encoded:
    """Encode a whole conversation; learned are the assistant's tokens and the token that ends each of its turns.

    An answer begins where the prompt that chat would send ends, token for token, so the template needs no
    `{% generation %}` tags, and what is learned is what chat asks for. Raises TemplateError where that can't be had.
    """
    if not tokenizer.is_fast:
        raise TemplateError(
            "This model's tokenizer doesn't tell where its tokens stand in the text; choose another model."
        )
    last = len(messages) - 1
    if last < 0 or messages[last]["role"] != "assistant":
        raise TemplateError("The conversation doesn't end with an assistant's turn.", "supervised_in_each_row")
    final = _turn(tokenizer, messages, last)
    text = final.whole
    batch = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    row = _Row(tokenizer, text, batch["input_ids"], batch["offset_mapping"])
    row.check_bos(messages)
    supervised = [False] * len(row.ids)
    only_read = 0
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        turn = final if index == last else _earlier(tokenizer, messages, index, text)
        end = row.end_of_turn(turn) if turn else None
        if turn is None or end is None or not text.startswith(turn.whole[: row.offsets[end][1]]):
            if index == last:
                raise TemplateError(
                    "The chat template ends the assistant's turn with no special token, so the model could never learn "
                    "to stop; choose a model whose template marks the end of a turn.",
                    "end_of_turn_learned",
                )
            only_read += 1
            continue
        start = row.start_of_answer(turn)
        supervised[start : end + 1] = [True] * (end + 1 - start)
    return Encoded(row.ids, supervised, only_read=only_read)


def answer_ids(tokenizer: PreTrainedTokenizerBase, prompt: Messages, answer: str) -> list[int]:
    """The learned tokens of an answer to these messages, its end of turn included."""
    encoded = encode(tokenizer, [*prompt, {"role": "assistant", "content": answer}])
    start = len(encode_prompt(tokenizer, prompt))
    tail = zip(encoded.ids[start:], encoded.supervised[start:], strict=True)
    return [token for token, learned in tail if learned]


class _Row:
    """One rendered and tokenized conversation."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, text: str, ids: list[int], offsets: list[tuple[int, int]]
    ) -> None:
        self.tokenizer, self.text, self.ids, self.offsets = tokenizer, text, ids, offsets
        # Some tokenizers hold their end of turn as an added token that isn't marked special, and runs of blanks as well.
        self.added = {id for id, token in tokenizer.added_tokens_decoder.items() if token.content.strip()}
        self.added |= set(tokenizer.all_special_ids)
        self._lefts = [left for left, _ in offsets]

    def check_bos(self, messages: Messages) -> None:
        """At most one BOS where the text begins, and none inside what was said."""
        bos = self.tokenizer.bos_token
        if not bos:
            return
        if self.ids[:2] == [self.tokenizer.bos_token_id] * 2:
            raise TemplateError(f"The row begins with two BOS tokens ({bos}).", "bos_once")
        if any(bos in message["content"] for message in messages):
            raise TemplateError(
                f"A message holds {bos}, the model's own BOS token; the template writes it, so take it out of the text.",
                "bos_once",
            )

    def end_of_turn(self, turn: _Turn) -> int | None:
        """The first token of the template's own behind the answer's content that was added for such ends."""
        at = bisect_left(self._lefts, turn.content_end)
        if at and self.offsets[at - 1][1] > turn.content_end:  # it may have taken blanks before it
            at -= 1
        while at < len(self.ids) and self._lefts[at] < len(turn.whole):
            if self.ids[at] in self.added:
                return at
            at += 1
        return None

    def start_of_answer(self, turn: _Turn) -> int:
        """How many tokens the prompt has; raises TemplateError unless they are the ones chat would send.

        A special token parts the text, so only the stretch behind the prompt's last one can be cut otherwise; that
        stretch alone is tokenized again, and most rows have the same.
        """
        cut = bisect_left(self._lefts, turn.start)
        begin = next((at for at in range(cut - 1, -1, -1) if self.ids[at] in self.added), 0)
        stretch = _tokenized(self.tokenizer, self.text[self._lefts[begin] if begin else 0 : turn.start])
        here = self.ids[begin : begin + len(stretch)]
        if here == list(stretch):
            return begin + len(stretch)
        differs = next((at for at, pair in enumerate(zip(here, stretch, strict=False)) if pair[0] != pair[1]), -1)
        token = self.tokenizer.decode([here[differs]])
        raise TemplateError(
            f"The token {token!r} spans the prompt and the answer, so the answer can't be masked safely with this "
            "tokenizer and template.",
            "prompt_prefix_same",
        )


@lru_cache(maxsize=1024)
def _tokenized(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def _turn(tokenizer: PreTrainedTokenizerBase, messages: Messages, index: int) -> _Turn:
    """The turn as it is written when it is the last one: what chat sends before it, then the answer."""
    before = render(tokenizer, messages[:index], add_generation_prompt=True)
    whole = render(tokenizer, messages[: index + 1])
    content = messages[index]["content"]
    if whole.startswith(before + content):
        tail = whole[len(before) + len(content) :]
    else:  # what the template writes after an answer: a stand-in for it can't be mistaken for a part of the template
        tail = render(tokenizer, [*messages[:index], {**messages[index], "content": STAND_IN}]).rpartition(STAND_IN)[2]
    if before.rstrip().endswith(OPEN) and CLOSE in content:
        # The prompt opens the thoughts; the answer goes on from there, though the template may leave past thoughts out.
        whole = before + content.rpartition(OPEN)[2].lstrip("\n") + tail
    if not whole.startswith(before):
        ending = before.removeprefix(os.path.commonprefix([before, whole]))  # noqa: RUF071 (by character is meant)
        raise TemplateError(
            f"In chat the template ends the prompt with {ending[-40:]!r}, which it doesn't write before an answer in "
            "training"
            + (f"; give answers with their thoughts (… {CLOSE} answer)" if OPEN in ending else "")
            + ", or choose another model.",
            "prompt_prefix_same",
        )
    content_end = len(whole) - len(tail)
    if not (whole.endswith(tail) and _holds(whole[:content_end], content.rpartition(OPEN)[2])):
        raise TemplateError(
            f"The chat template doesn't write the answer of turn {index + 1} as it stands in the data.",
            "prompt_prefix_same",
        )
    return _Turn(index + 1, whole, len(before), content_end)


def _earlier(tokenizer: PreTrainedTokenizerBase, messages: Messages, index: int, text: str) -> _Turn | None:
    """An earlier turn, or None where `text` doesn't hold it as chat had it when it was the last."""
    try:
        turn = _turn(tokenizer, messages, index)
    except TemplateError:
        return None
    return turn if text.startswith(turn.whole[: turn.content_end]) else None


def _holds(text: str, ending: str) -> bool:
    """Whether the text ends so, blanks aside: templates strip, and set thoughts apart by lines of their own."""
    return text.rstrip().endswith(ending.strip()) or "".join(text.split()).endswith("".join(ending.split()))


class Detokenizer:
    """Turns a growing list of token ids into text, holding back bytes that don't make a whole character yet."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, skip_special_tokens: bool = True) -> None:
        self.tokenizer, self.skip = tokenizer, skip_special_tokens
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
        self._context, self._shown = self._shown, len(self.ids)
        return new[len(old) :]

    def _decode(self, start: int, end: int) -> str:
        return self.tokenizer.decode(  # type: ignore[no-any-return]
            self.ids[start:end], skip_special_tokens=self.skip, clean_up_tokenization_spaces=False
        )
