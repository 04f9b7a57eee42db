"""Conversations written out as one text ("### Human: …", ChatML, [INST], "User: …"), to turns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from sftdemo.data.values.conversations import ROLES

Turns = list[dict[str, str]]
_ENDS = ("</s>", "<s>", "<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<eos>", "<bos>")
_WORDS = "Human|User|Customer|Client|Prompter|Assistant|Bot|AI|Agent|Chatbot|GPT|ChatGPT|Model|System|Function Response|Tool|用户|助手|系统"
_NAMED = f"{_WORDS}|Question|Q|Answer|Response|A"
# What opens a turn, with the speaker in a group; the likeliest first. What stands before the first marked one is a system
# prompt; names without a mark must begin the text, or they are part of it.
_MARKED = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"<\|im_start\|>\s*(\w+)[ \t]*\n?",
        r"(?:<\|begin_of_text\|>)?<\|start_header_id\|>\s*(\w+)\s*<\|end_header_id\|>\s*",
        r"<start_of_turn>\s*(\w+)[ \t]*\n?",
        rf"<\|({_WORDS})\|>\s*",
        rf"<({_WORDS})>:?\s*",
        rf"###\s*({_NAMED}|Instruction)\s*:?\s*",
    )
)
_NAMES = (r"^[ \t]*\**({names})\**[ \t]*[:：]\**[ \t]*", r"(?:^|(?<=\s))({names})[ \t]*[:：][ \t]*")
_PREAMBLE = re.compile(r"(.+[.!?。])\s+(?=USER[ \t]*:)", re.DOTALL)  # Vicuna's
_SPEAKERS = {
    **ROLES,
    **dict.fromkeys(("q", "question", "instruction"), "user"),
    **dict.fromkeys(("a", "answer", "response"), "assistant"),
    "function response": "tool",
    "用户": "user",
    "助手": "assistant",
    "系统": "system",
}
_ALPACA = re.compile(r"#{2,3} ?(Instruction|Input|Response):?")
ALPACA_OPENING = "Below is an instruction that describes a task"
MOST_ASKED, _SURE = 50, 0.9


def are_transcripts(values: Sequence[str]) -> bool:
    """Whether the texts, or nearly all of them, are conversations."""
    sample = values[:MOST_ASKED]
    return bool(sample) and sum(turns(text) is not None for text in sample) >= _SURE * len(sample)


def turns(text: str) -> Turns | None:
    """The turns of a written conversation that has at least a question and an answer; None for any other text."""
    for reading in (_alpaca(text), _inst(text), *_spoken(text)):
        roles = [turn["role"] for turn in reading or ()]
        if reading and "user" in roles and "assistant" in roles and all(turn["content"] for turn in reading):
            return reading
    return None


def human_assistant(text: str) -> Turns | None:
    """The turns of "Human: …", "Assistant: …", as some preference sets write them; None for any other text."""
    return turns(text) if re.match(r"\s*Human:", text) else None


def _bare(text: str) -> str:
    """Without the marks that end a turn."""
    end = len(text)
    while True:
        while end and text[end - 1].isspace():
            end -= 1
        mark = next((mark for mark in _ENDS if text.endswith(mark, 0, end)), "")
        if not mark:
            return text[:end].strip()
        end -= len(mark)


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _alpaca(text: str) -> Turns | None:
    text = _bare(text)
    place: dict[str, re.Match[str]] = {}  # the first instruction, the first response after it, an input between
    for match in _ALPACA.finditer(text):
        if match[1] == "Instruction" or "Instruction" in place:
            place.setdefault(match[1], match)
        if "Response" in place:
            break
    if "Response" not in place or "### " in text[place["Response"].end() :]:
        return None
    order = [place[name] for name in ("Instruction", "Input", "Response") if name in place]
    ends = [match.start() for match in order[1:]]
    parts = [text[match.end() : end].strip() for match, end in zip(order, ends, strict=False)]
    before, question = text[: order[0].start()].strip(), "\n\n".join(filter(None, parts))
    system = [_turn("system", before)] if before and not before.startswith(ALPACA_OPENING) else []
    return [*system, _turn("user", question), _turn("assistant", text[order[-1].end() :].strip())]


def _inst(text: str) -> Turns | None:
    text = _bare(text).removeprefix("<s>").strip()
    if not text.startswith("[INST]"):
        return None
    turns: Turns = []
    for part in text.split("[INST]")[1:]:
        question, closed, answer = part.partition("[/INST]")
        if not closed:
            return None
        before, opened, inside = question.partition("<<SYS>>")
        system, ended, after = inside.partition("<</SYS>>")
        if opened and ended:
            turns.append(_turn("system", system.strip()))
            question = before + after
        turns += [_turn("user", question.strip()), _turn("assistant", _bare(answer).removesuffix("<s>").strip())]
    return turns


def _spoken(text: str) -> Iterator[Turns | None]:
    """What each way to open a turn makes of the text."""
    text = _bare(text).removeprefix("<s>").strip()
    for opening in _MARKED:
        yield _split(opening, text, True)
    preamble = _PREAMBLE.match(text)
    system = [_turn("system", preamble[1].strip())] if preamble else []
    transcript = text[preamble.end() :] if preamble else text
    for pattern, names in zip(_NAMES, (_NAMED, _WORDS), strict=True):
        first = re.findall(pattern.format(names=names), transcript, re.IGNORECASE | re.MULTILINE)
        # "Question:" in what a User says is no third speaker.
        by_role = {_SPEAKERS.get(name.casefold()): name for name in reversed(first)}
        if len(by_role) > 1:
            marked_opening = re.compile(pattern.format(names="|".join(by_role.values())), re.MULTILINE)
            turns = _split(marked_opening, transcript, False)
            yield turns and system + turns


def _split(opening: re.Pattern[str], text: str, after_system: bool) -> Turns | None:
    """The turns between the openings; text before the first is a system prompt where `after_system`, else no transcript."""
    start, *parts = opening.split(text)
    roles = [_SPEAKERS.get(name.casefold()) for name in parts[::2]]
    contents = [_bare(part) for part in parts[1::2]]
    if len(roles) < 2 or not all(roles) or (start.strip() and not after_system):
        return None
    if contents[-1] == "" and roles[-1] == "assistant" and len(roles) > 2:  # where the next answer would begin
        roles, contents = roles[:-1], contents[:-1]
    before = [_turn("system", start.strip())] if start.strip() else []
    return before + [_turn(str(role), part) for role, part in zip(roles, contents, strict=True)]
