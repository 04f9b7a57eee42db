"""One answer as text: the prompt that chat would send, what stands behind it, and what ends it."""

from __future__ import annotations

import os.path
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sftdemo.encoding.chat_template import STAND_IN, Chat, TemplateError, closes_thoughts, prepare, split_tags, traits
from sftdemo.encoding.control_tokens import CLOSE, OPEN, added_tokens, source
from sftdemo.encoding.thoughts import MARKS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What a prompt may have where a past turn has nothing: thoughts that are opened, or closed at once.
_THOUGHT_TAGS = re.compile(r"(\s|</?think>|\[/?THINK\]|<\|channel\|?>|<channel\|>|thought|<\|(START|END)_THINKING\|>)*")
_NEXT = "\u2063next\u2063"


@dataclass(frozen=True)
class Turn:
    """An assistant's turn: the prompt of chat and what is `written` behind it, in which its end may stand from `words_end`.

    `natural`: the template itself writes prompt and answer one after the other. `calls`: tools are called in it.
    """

    prompt: str
    written: str
    words_end: int
    natural: bool
    calls: bool = False

    @property
    def whole(self) -> str:
        return self.prompt + self.written


def turn(chat: Chat, index: int) -> Turn:
    """The turn as it is written when it is the last one; TemplateError where the template writes something else."""
    prompt = chat.text(index, add_generation_prompt=True)
    whole = chat.text(index + 1)
    message = chat.messages[index]
    if not chat.plain and closes_thoughts(prompt):  # thoughts that the prompt has closed aren't asked for
        content = split_tags(chat.tagged[index]["content"])[1]
        message = {**message, "content": content, "reasoning_content": None, "reasoning": None}
        whole = chat.replaced(index, **message)
    content = message["content"]
    calls = bool(message.get("tool_calls"))
    thinks = not chat.plain and split_tags(chat.tagged[index]["content"])[0] != ""
    plain = not calls and not thinks and content and CLOSE not in content
    if plain and whole.startswith(prompt + content):
        return Turn(prompt, whole[len(prompt) :], len(content), natural=True)
    natural = whole.startswith(prompt)
    written = whole[len(prompt) :] if natural else _behind(chat, index, prompt, whole)
    if lost := _lost_thoughts(chat, index, prompt, written):
        written, natural = lost + written, False
    answer_turn = Turn(prompt, written, len(written) - len(_tail(chat, index, written)), natural, calls)
    _check_words(chat, index, answer_turn)
    return answer_turn


def _behind(chat: Chat, index: int, prompt: str, whole: str) -> str:
    """What stands behind a prompt that the template doesn't write before an answer."""
    common = _common(chat, prompt, whole)
    extra, written = prompt[common:], whole[common:]
    thoughts, answer = split_tags(chat.tagged[index]["content"])
    if _THOUGHT_TAGS.fullmatch(extra):
        opened = next((mark for mark in MARKS if prompt.rstrip().endswith(mark)), None)
        if opened is None:  # the prompt has closed them, and so may the turn
            _, closed, past = written.partition(CLOSE)
            return _from_answer(past if closed and answer.strip() in past else written, answer)
        if thoughts and MARKS[opened] in written:
            return written.partition(opened)[2].removeprefix("\n") or written
        if written.lstrip().startswith(MARKS[opened]):
            return written
        gap = prompt[len(prompt.rstrip()) :]
        return (thoughts + gap if thoughts else gap) + MARKS[opened] + 2 * gap + _from_answer(written, answer)
    opening = extra.strip()
    if written.lstrip().startswith(opening):  # blanks aside both open the turn alike
        blanks = extra[len(extra.rstrip()) :]
        return written.lstrip()[len(opening) :].removeprefix(blanks)
    features = traits(chat.tokenizer)
    if features.lead is not None and not chat.messages[index].get("tool_calls"):
        in_tags = thoughts and features.thoughts == "tags"
        return features.lead + (chat.tagged[index]["content"] if in_tags else answer) + features.tail
    added = added_tokens(chat.tokenizer, source(chat.tokenizer))
    if common >= len(chat.text(index)) and not added.search(extra):
        return written  # the prompt only has words of its own behind what opens the turn
    opening = prompt[max((match.start() for match in added.finditer(prompt)), default=len(prompt)) :]
    if opening and opening in written:  # prompts differ before what opens the turn
        return written.rpartition(opening)[2]
    raise TemplateError(
        "In chat the template ends the prompt with {ending!r}, which it doesn't write before an answer in training; "
        "choose another model.",
        check="prompt_prefix_same",
        ending=extra[-40:],
    )


def _from_answer(written: str, answer: str) -> str:
    """The text without blanks before the answer that aren't the answer's own."""
    own = answer[: len(answer) - len(answer.lstrip())]
    text = written.lstrip()
    return own + text if written[: len(written) - len(text)].endswith(own) else text


def _common(chat: Chat, prompt: str, whole: str) -> int:
    """How many characters both begin with; a token or a tag of thoughts is never parted."""
    count = len(os.path.commonprefix([prompt, whole]))  # noqa: RUF071 (by character is meant)
    added = added_tokens(chat.tokenizer, source(chat.tokenizer)).pattern
    parted = re.compile(f"{added}|{OPEN}|{CLOSE}")
    spans = [match.span() for text in (prompt, whole) for match in parted.finditer(text, max(0, count - 100))]
    return min([count, *(start for start, end in spans if start < count < end)])


def _lost_thoughts(chat: Chat, index: int, prompt: str, written: str) -> str:
    """Thoughts, in their marks, that the template leaves out of the turn though the prompt lets the model think."""
    thoughts = split_tags(chat.tagged[index]["content"])[0]
    if not thoughts or closes_thoughts(prompt) or "".join(thoughts.split()) in "".join(written.split()):
        return ""
    mark = traits(chat.tokenizer).mark
    blank = "\n\n" if mark == OPEN else ""
    return f"{mark}\n{thoughts}\n{MARKS[mark]}{blank}" if mark else ""


def _tail(chat: Chat, index: int, written: str) -> str:
    """What the template writes behind the answer's own words."""
    features, message = traits(chat.tokenizer), chat.messages[index]
    added = added_tokens(chat.tokenizer, source(chat.tokenizer))
    if written.endswith(features.tail) and added.search(features.tail):
        return features.tail
    content = message["content"]
    if message.get("tool_calls"):
        last = max((match.start() for match in added.finditer(written)), default=len(written))
        return written[last:] if added.fullmatch(written[last:].rstrip()) and not _closes_call(written[last:]) else ""
    # A stand-in can't be mistaken for a part of the template.
    stand_in = [*content[:-1], {**content[-1], "text": STAND_IN}] if isinstance(content, list) else STAND_IN
    tail = chat.replaced(index, content=stand_in).rpartition(STAND_IN)[2]
    return tail if written.endswith(tail) else ""


def _closes_call(token: str) -> bool:
    """Whether a token only closes a call, as </tool_call> does where the next role's marker ends the turn."""
    return token.strip().startswith("</") and "tool" in token


def _check_words(chat: Chat, index: int, answer_turn: Turn) -> None:
    """The answer, and what it calls, must be written as it stands in the data; blanks aside, since templates strip."""
    message = chat.messages[index]
    written = "".join(answer_turn.written[: answer_turn.words_end].split())
    expected = [split_tags(chat.tagged[index]["content"])[1]]
    expected += [call["function"]["name"] for call in message.get("tool_calls") or []]
    if not all("".join(text.split()) in written for text in expected):
        raise TemplateError(
            "The chat template doesn't write the answer of turn {n} as it stands in the data.",
            check="prompt_prefix_same",
            n=index + 1,
        )


def learned_text(chat: Chat, answer_turn: Turn) -> str:
    """The answer with what ends it: up to the first token behind its words that was added for such ends.

    Where a template writes none, the marker of the next role ends the turn. TemplateError where there is none either.
    """
    words, tail = answer_turn.written[: answer_turn.words_end], answer_turn.written[answer_turn.words_end :]
    if end := added_tokens(chat.tokenizer, source(chat.tokenizer)).search(tail):
        return words + tail[: end.end()]
    if marker := _next_marker(chat.tokenizer, source(chat.tokenizer), answer_turn.calls):
        return words + marker
    raise TemplateError(
        "The chat template ends the assistant's turn with no special token, so the model could never learn "
        "to stop; choose a model whose template marks the end of a turn.",
        check="end_of_turn_learned",
    )


@lru_cache(maxsize=64)
def _next_marker(tokenizer: PreTrainedTokenizerBase, template: str, calls: bool) -> str:
    """How the turn after an answer, or after a call, begins, through its first special token; "" if it has none.

    What opens the assistant's own turns as well ends nothing.
    """
    function = {"name": "f", "arguments": {"x": "y"}}
    answer: dict[str, Any] = {"role": "assistant", "content": "" if calls else STAND_IN}
    following = {"role": "user", "content": _NEXT}
    if calls:
        answer["tool_calls"] = [{"id": "callprobe", "type": "function", "function": function}]
        following = {"role": "tool", "content": _NEXT, "tool_call_id": "callprobe", "name": "f"}
    try:
        chat = prepare(tokenizer, [{"role": "user", "content": "a"}, answer, following])
        history, prompt, answered = chat.text(1), chat.text(1, add_generation_prompt=True), chat.text(2)
        between = chat.text(3).partition(_NEXT)[0]
    except TemplateError:
        return ""
    between = between[len(answered) :] if between.startswith(answered) else between.rpartition(STAND_IN)[2]
    added = added_tokens(tokenizer, template)
    marker, own = added.search(between), added.findall(prompt.removeprefix(history))
    if marker is None or marker[0] == tokenizer.bos_token or marker[0] in own[-1:]:
        return ""
    return between[: marker.end()]
