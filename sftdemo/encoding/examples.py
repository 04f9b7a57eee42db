"""Examples to the rows they are trained as: faults of the template as `on_fault` wants them, and what goes unused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from sftdemo.encoding import source_target
from sftdemo.encoding.chat_template import TemplateCostError, TemplateError, closes_thoughts, render, texts, traits
from sftdemo.encoding.control_tokens import control_tokens
from sftdemo.encoding.encode import encode_turns
from sftdemo.encoding.rows import Encoded, EncodedRows
from sftdemo.errors import Fault, Text, sentences

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sftdemo.data import Example

UNUSED = {
    "tools": Text("{n} rows declare tools, which the model's chat template doesn't write."),
    "reasoning_content": Text("{n} rows have thoughts, which the model's chat template doesn't write as it is set."),
}
REMEDIES = {
    "tools": Text("They are not used; choose a model whose template knows tools."),
    "reasoning_content": Text("They are not used; set thinking to on, or choose a model that thinks."),
}


@dataclass
class EncodingResult:
    """What became of examples: those that `kept`, their `rows` with the example of each, and what was wrong.

    `dropped` are the faults of examples left out, `fixed` those repaired. `unused` counts the examples by a key that the
    template has no place for, `control` those whose texts spell control tokens.
    """

    kept: list[Example] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    rows: EncodedRows = field(default_factory=EncodedRows)
    faults: list[Fault] = field(default_factory=list)
    checks: dict[str, Text] = field(default_factory=dict)
    dropped: list[Fault] = field(default_factory=list)
    fixed: list[Fault] = field(default_factory=list)
    unused: Counter[str] = field(default_factory=Counter)
    control: int = 0

    def warnings(self, source: str) -> list[Fault]:
        """What the rows bring that isn't used, one warning for each key."""
        return [Fault(0, key, Text(UNUSED[key], n=count), REMEDIES[key], source) for key, count in self.unused.items()]

    def notes(self) -> list[Text]:
        """What the reader should know and needn't mend."""
        if not self.control:
            return []
        return [
            Text(
                "{n} rows spell control tokens of the model in their text; they are read as plain text.",
                n=self.control,
            )
        ]


def encode_example(tokenizer: PreTrainedTokenizerBase, example: Example) -> list[tuple[Example, Encoded]]:
    """The example's rows, each with the example that has this row alone: cut behind it, other answers only read."""
    turn_rows = encode_turns(tokenizer, example["messages"], example.get("tools"))
    weight = float(example.get("weight", 1.0))
    alone = [example] if len(turn_rows) == 1 else [_only(example, turns) for turns, _ in turn_rows]
    return [
        (row_example, row if weight == 1 else replace(row, weight=weight))
        for row_example, (_, row) in zip(alone, turn_rows, strict=True)
    ]


def _only(example: Example, turns: Sequence[int]) -> Example:
    messages = [
        message if message["role"] != "assistant" or at in turns else {**message, "weight": 0.0}
        for at, message in enumerate(example["messages"][: turns[-1] + 1])
    ]
    return cast("Example", {**example, "messages": messages})


def encode_all(
    examples: Iterable[Example], tokenizer: PreTrainedTokenizerBase, on_fault: str, source: str, first: int = 1
) -> EncodingResult:
    """Encode examples, numbered from `first` where they have no line; faults stop, drop or are repaired by `on_fault`."""
    result = EncodingResult()
    for number, example in enumerate(examples, first):
        add(result, example, tokenizer, on_fault, source, number)
    return result


def add(
    result: EncodingResult,
    example: Example,
    tokenizer: PreTrainedTokenizerBase,
    on_fault: str,
    source: str,
    number: int,
) -> list[Encoded]:
    """Encode one example and note what became of it; returns its rows, none after a fault."""
    meta = example.get("meta", {})
    place = meta.get("line", number), meta.get("file", source)
    try:
        pairs = encode_example(tokenizer, example)
    except TemplateCostError:
        raise
    except TemplateError as error:
        fault = Fault(place[0], "messages", error.text, Text(""), place[1])
        mended = repaired(example, tokenizer) if on_fault == "fix" else None
        if mended is None:
            (result.faults if on_fault == "stop" else result.dropped).append(fault)
            if on_fault == "stop":
                result.checks.setdefault(error.check, error.text)
            return []
        example, pairs, how = mended
        result.fixed.append(replace(fault, remedy=how))
    result.kept.append(example)
    result.unused.update(unused(example, tokenizer))
    control = control_tokens(tokenizer)
    result.control += any(
        control.stand_in(text, message["role"] == "assistant")
        for message in example["messages"]
        for text in texts(message)
    )
    for alone, row in pairs:
        result.examples.append(alone)
        result.rows.append(row)
    return [row for _, row in pairs]


def repaired(
    example: Example, tokenizer: PreTrainedTokenizerBase
) -> tuple[Example, list[tuple[Example, Encoded]], Text] | None:
    """The example as the template takes it, its rows, and what was changed; None where no safe repair helps."""
    messages: list[Any] = list(example["messages"])
    changes = []
    while messages and messages[0]["role"] == "assistant":
        messages = messages[1:]
        changes = [Text("The assistant's opening turn is left out.")]
    attempts = [(messages, changes)] if changes else []
    if len(messages) > 1 and [message["role"] for message in messages[:2]] == ["system", "user"]:
        joined = {**messages[1], "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
        attempts.append(
            ([joined, *messages[2:]], [*changes, Text("The system prompt is put before the first question.")])
        )
    for attempt, explanation in attempts:
        mended = cast("Example", {**example, "messages": attempt})
        try:
            return mended, encode_example(tokenizer, mended), sentences(explanation)
        except TemplateError:
            continue
    return None


def unused(example: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The keys of an example that the template doesn't write; a source and a target are text alone."""
    if source_target.of(tokenizer):
        thinks = any(message.get("reasoning_content") for message in example["messages"])
        return [key for key, present in (("tools", example.get("tools")), ("reasoning_content", thinks)) if present]
    keys = []
    if example.get("tools") and not traits(tokenizer).tools:
        keys.append("tools")
    if any(message.get("reasoning_content") for message in example["messages"]):
        prompt = render(tokenizer, [{"role": "user", "content": "a"}], add_generation_prompt=True)
        features = traits(tokenizer)
        if closes_thoughts(prompt) or (features.thoughts == "not" and not features.mark):
            keys.append("reasoning_content")
    return keys
