"""The only place where a chat template is applied: conversations to token ids and to the mask of what is learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftdemo.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = Sequence[Mapping[str, Any]]
STAND_IN = "\u2063answer\u2063"


class TemplateError(UserError):
    """The chat template and this conversation don't allow a safe mask."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of a conversation, and for each whether it is learned (an assistant's token or its end of turn)."""

    ids: list[int]
    supervised: list[bool]
    weight: float = 1.0

    @property
    def prompt_length(self) -> int:
        """How many tokens stand before the first learned one."""
        return self.supervised.index(True)


def render(tokenizer: PreTrainedTokenizerBase, messages: Messages, add_generation_prompt: bool = False) -> str:
    """The conversation as the template writes it, one string."""
    if not tokenizer.chat_template:
        raise TemplateError("This model has no chat template; choose a chat (instruct) model.")
    import jinja2

    try:
        return tokenizer.apply_chat_template(  # type: ignore[no-any-return]
            list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except jinja2.TemplateError as error:
        raise TemplateError(f"The model's chat template refuses this conversation: {error}.") from error


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> list[int]:
    """Token ids up to where the assistant's next answer begins. The template writes BOS, so none is added."""
    return tokenizer(render(tokenizer, messages, add_generation_prompt=True), add_special_tokens=False)["input_ids"]  # type: ignore[no-any-return]


def stop_ids(tokenizer: PreTrainedTokenizerBase, generation_config: Any = None) -> set[int]:
    """The tokens that end an answer: the tokenizer's, the generation config's, and the template's end of turn."""
    found = {tokenizer.eos_token_id}
    configured = getattr(generation_config, "eos_token_id", None)
    found.update(configured if isinstance(configured, list) else [configured])
    probe = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    encoded = encode(tokenizer, probe)
    found.add(encoded.ids[max(i for i, learned in enumerate(encoded.supervised) if learned)])
    return found - {None}


def encode(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> Encoded:
    """Encode a whole conversation; learned are the assistant's tokens and the token that ends each of its turns.

    The text is rendered once and tokenized once; an answer's characters are found by rendering the conversation up to
    it, so the template needs no `{% generation %}` tags. Raises TemplateError where the template rewrites earlier turns,
    ends an answer with no special token, or where a token spans prompt and answer.
    """
    text = render(tokenizer, messages)
    batch = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids: list[int] = batch["input_ids"]
    offsets: list[tuple[int, int]] = batch["offset_mapping"]
    specials = _special_ids(tokenizer)
    supervised = [False] * len(ids)
    for start, content_end, turn_end in _answer_spans(tokenizer, messages, text):
        ended = False
        for index, (left, right) in enumerate(offsets):
            if left < start < right:
                raise TemplateError(
                    f"The token {tokenizer.decode([ids[index]])!r} spans the prompt and the answer, so the answer can't "
                    "be masked safely with this tokenizer and template."
                )
            if left < start or right <= left or left >= turn_end or ended:
                continue
            supervised[index] = True
            ended = left >= content_end and ids[index] in specials
        if not ended:
            raise TemplateError(
                "The chat template ends the assistant's turn with no special token, so the model could never learn to "
                "stop; choose a model whose template marks the end of a turn."
            )
    return Encoded(ids, supervised)


def answer_ids(tokenizer: PreTrainedTokenizerBase, prompt: Messages, answer: str) -> list[int]:
    """The learned tokens of an answer to these messages, its end of turn included."""
    encoded = encode(tokenizer, [*prompt, {"role": "assistant", "content": answer}])
    start = len(encode_prompt(tokenizer, prompt))
    tail = zip(encoded.ids[start:], encoded.supervised[start:], strict=True)
    return [token for token, learned in tail if learned]


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def _answer_spans(tokenizer: PreTrainedTokenizerBase, messages: Messages, text: str) -> Iterator[tuple[int, int, int]]:
    """For each assistant turn the characters (start, end of its content, end of its turn) in the rendered text."""
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = render(tokenizer, messages[:index], add_generation_prompt=True)
        upto = text if index == len(messages) - 1 else render(tokenizer, messages[: index + 1])
        if not (text.startswith(before) and text.startswith(upto)):
            raise TemplateError(
                f"The chat template rewrites turn {index + 1} once later turns follow, so what is trained would differ "
                "from what chat sees; use single-turn rows with this model, or another model."
            )
        tail = _tail(tokenizer, messages[:index], message, before)
        content_end = len(upto) - len(tail)
        if not (upto.endswith(tail) and upto[len(before) : content_end].rstrip().endswith(message["content"].strip())):
            raise TemplateError(
                f"The chat template doesn't write the answer of turn {index + 1} as it stands in the data."
            )
        yield len(before), content_end, len(upto)


def _tail(tokenizer: PreTrainedTokenizerBase, earlier: Messages, message: Mapping[str, Any], before: str) -> str:
    """What the template writes after an answer; a stand-in for it can't be mistaken for a part of the template."""
    marked = render(tokenizer, [*earlier, {**message, "content": STAND_IN}])
    return marked[len(before) :].rpartition(STAND_IN)[2]


def xray(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> list[dict[str, Any]]:
    """Every token as it is trained on: [{"id", "text", "supervised"}]."""
    encoded = encode(tokenizer, messages)
    return [
        {"id": token, "text": tokenizer.decode([token]), "supervised": learned}
        for token, learned in zip(encoded.ids, encoded.supervised, strict=True)
    ]


class Detokenizer:
    """Turns a growing list of token ids into text, holding back bytes that don't make a whole character yet."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
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
            self.ids[start:end], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
