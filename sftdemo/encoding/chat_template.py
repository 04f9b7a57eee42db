"""The only place where a chat template is rendered: what a template can do, conversations as it takes them, their text."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sftdemo.encoding import template_limits
from sftdemo.encoding.control_tokens import CLOSE, OPEN, ControlTokens, control_tokens, source
from sftdemo.encoding.template_budget import TemplateLimitError, limited
from sftdemo.encoding.thoughts import MARKS
from sftdemo.errors import UsageError, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]]
STAND_IN = "\u2063answer\u2063"
# What must hold before a row may be trained on; each has its reason in the TemplateError that names it.
CHECKS = ("template_accepts", "bos_once", "end_of_turn_learned", "supervised_in_each_row", "prompt_prefix_same")
# The names under which templates know a switch for thoughts.
SWITCHES = ("enable_thinking", "thinking", "reasoning", "think")
REASON_CHARS = 300  # of what a template says when it refuses
_CLOSED = re.compile(f"(?:{'|'.join(map(re.escape, MARKS.values()))})" + r"(?:\s|<\|START_\w+\|>)*\Z")
_ASKED = {"role": "user", "content": "a"}
_CALL = {"name": "probe_name", "arguments": {"probe_key": "probe_value"}}
_TOOL = {
    "type": "function",
    "function": {
        "name": "probe_name",
        "description": "probe_text",
        "parameters": {"type": "object", "properties": {"probe_key": {"type": "string", "description": "a key"}}},
    },
}


class TemplateError(UserError):
    """The chat template and this conversation don't allow a safe mask; `check` is the one of CHECKS that failed."""

    def __init__(self, template: str, /, check: str = "template_accepts", **values: Any) -> None:
        super().__init__(template, **values)
        self.check = check


class TemplateCostError(TemplateError):
    """The template itself takes too much, whatever the conversation: no fault of a row."""


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Messages,
    add_generation_prompt: bool = False,
    tools: Tools | None = None,
) -> str:
    """The conversation as the template writes it, one string; TemplateError where it refuses."""
    if not tokenizer.chat_template:
        raise TemplateError("This model has no chat template; choose a chat (instruct) model.")
    template_limits.install()
    size = sum(len(message.get("content") or "") for message in messages) + (len(json.dumps(tools)) if tools else 0)
    try:
        template_limits.check_source(tokenizer.chat_template)
        with limited(size):
            return tokenizer.apply_chat_template(  # type: ignore[no-any-return]
                list(messages),
                tools=list(tools) if tools else None,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
            )
    except (TemplateLimitError, RecursionError, MemoryError) as error:
        reason = str(error) if isinstance(error, TemplateLimitError) else "nests or calls itself too deeply"
        raise TemplateCostError(
            "The model's chat template can't be used, since it {reason}; choose another model.", reason=reason
        ) from error
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:REASON_CHARS]
        raise TemplateError(
            "The model's chat template refuses this conversation: {reason}.", reason=reason.rstrip(".")
        ) from error


def set_thinking(tokenizer: PreTrainedTokenizerBase, thinking: str) -> None:
    """Make a template with both modes write prompts with thoughts ("on") or without ("off"); "auto" leaves its own default.

    The default is written into the template, so it is saved with the tokenizer and holds wherever that is loaded.
    Raises UsageError where the template has no such switch.
    """
    if thinking == "auto":
        return
    template = tokenizer.chat_template
    named = {"": template} if isinstance(template, str) else dict(template or {})
    switches = {name: _switches(text) for name, text in named.items()}
    if not any(switches.values()):
        raise UsageError(
            "thinking is {value!r}, but the model's chat template has no switch for thoughts; leave it at auto.",
            value=thinking,
        )
    value = "true" if thinking == "on" else "false"
    for name, names in switches.items():
        lines = (f"{{%- if {it} is not defined %}}{{%- set {it} = {value} %}}{{%- endif %}}\n" for it in names)
        named[name] = "".join(lines) + named[name]
    tokenizer.chat_template = named[""] if isinstance(template, str) else named


def _switches(template: str) -> list[str]:
    from jinja2 import TemplateError as JinjaError
    from jinja2 import meta
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"])
    try:
        tree = environment.parse(re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", template))
    except JinjaError:
        return []
    undeclared = meta.find_undeclared_variables(tree)
    return [name for name in SWITCHES if name in undeclared]


def split_tags(content: str) -> tuple[str, str]:
    """(thoughts, answer) of a text with its thoughts in <think> tags, as templates take them apart: the answer keeps its
    blanks. The first tag is missing where a prompt had it."""
    head, close, answer = content.partition(CLOSE)
    before, opened, thoughts = head.partition(OPEN)
    if not close or (opened and before.strip()):
        return "", content
    return (thoughts if opened else head).strip(), answer.lstrip("\n")


def with_tags(message: Mapping[str, Any]) -> str:
    """An assistant's content with its thoughts in tags before it."""
    content: str = message.get("content") or ""
    thoughts = message.get("reasoning_content")
    return f"{OPEN}\n{thoughts}\n{CLOSE}\n\n{content}" if thoughts else content


@dataclass(frozen=True)
class Traits:
    """What a template can do, found by trying it.

    `thoughts` is how it takes them: in a "field" of their own, in content "blocks", as "tags" in the content, or "not".
    `mark` opens thoughts where the model writes them and the template doesn't; "" where none is known.
    `lead` and `tail` stand around an answer behind the prompt of chat; `lead` is None where an answer isn't written behind
    that prompt. `tool_calls` is how arguments are given: as "object", as "string", or "not" at all.
    """

    thoughts: str
    mark: str
    lead: str | None
    tail: str
    tools: bool
    tool_calls: str
    tool_results: bool


def traits(tokenizer: PreTrainedTokenizerBase) -> Traits:
    return _traits(tokenizer, source(tokenizer))


@lru_cache(maxsize=32)
def _traits(tokenizer: PreTrainedTokenizerBase, template: str) -> Traits:
    def rendered(*messages: Mapping[str, Any], prompt: bool = False, tools: Tools | None = None) -> str:
        try:
            return render(tokenizer, messages, prompt, tools)
        except TemplateCostError:
            raise
        except TemplateError:
            return ""

    before, whole = rendered(_ASKED, prompt=True), rendered(_ASKED, {"role": "assistant", "content": STAND_IN})
    lead, _, tail = whole.rpartition(STAND_IN)
    call = {"id": "callprobe", "type": "function", "function": _CALL}
    as_object = rendered(_ASKED, _calling(call), tools=[_TOOL])
    as_string = rendered(_ASKED, _calling(_with_string_arguments(call)), tools=[_TOOL])
    result = {"role": "tool", "content": "probe_result", "tool_call_id": "callprobe", "name": "probe_name"}
    style = "not"
    if "probe_value" in as_object and "{'probe_key'" not in as_object:
        style = "object"
    elif "probe_value" in as_string:
        style = "string"
    called = _calling(_with_string_arguments(call) if style == "string" else call)
    return Traits(
        thoughts=_way_of_thoughts(tokenizer, before, rendered),
        mark=_mark(tokenizer, template),
        lead=lead.removeprefix(before) if before and lead.startswith(before) else None,
        tail=tail if lead else "",
        tools="probe_text" in rendered(_ASKED, prompt=True, tools=[_TOOL]),
        tool_calls=style,
        tool_results="probe_result" in rendered(_ASKED, called, result, prompt=True, tools=[_TOOL]),
    )


def _calling(call: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def _with_string_arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    function = dict(call["function"])
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False)
    return {**call, "function": {**function, "arguments": text}}


def _way_of_thoughts(tokenizer: PreTrainedTokenizerBase, before: str, rendered: Any) -> str:
    answer = {"role": "assistant", "content": "b"}
    if STAND_IN in rendered(_ASKED, {**answer, **_fields(STAND_IN)}):
        return "field"
    blocks = rendered(_ASKED, {**answer, "content": _blocks(STAND_IN, "b")})
    if STAND_IN in blocks and "'type'" not in blocks and '"type"' not in blocks:
        return "blocks"
    think_tokens = {OPEN, CLOSE} <= set(tokenizer.get_added_vocab())
    return "tags" if think_tokens or before.rstrip().endswith(OPEN) else "not"


def _mark(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    written = next((mark for mark, closing in MARKS.items() if mark in template and closing in template), "")
    return written or (OPEN if {OPEN, CLOSE} <= set(tokenizer.get_added_vocab()) else "")


def closes_thoughts(prompt: str) -> bool:
    """Whether a prompt ends with thoughts that are over, so that none are asked for."""
    return _CLOSED.search(prompt) is not None


def _fields(thoughts: str) -> dict[str, str]:
    return {"reasoning_content": thoughts, "reasoning": thoughts}


def _blocks(thoughts: str, content: str) -> list[dict[str, str]]:
    return [{"type": "thinking", "thinking": thoughts}, {"type": "text", "text": content}]


_NINE = re.compile(r"length *!= *9")  # of a call's id
_PLAIN = {"role", "content", "weight"}


@dataclass(frozen=True)
class Chat:
    """A conversation as its template takes it.

    In `messages` and `tools` whatever spells a control token is marked when `marked`, so that tokenizing keeps it text;
    `tagged` are the messages with thoughts in tags. `plain` ones have roles and contents alone.
    """

    tokenizer: PreTrainedTokenizerBase
    messages: list[dict[str, Any]]
    tagged: list[dict[str, Any]]
    tools: Tools | None
    marked: bool
    plain: bool

    def text(self, count: int, add_generation_prompt: bool = False) -> str:
        """The first `count` messages as the template writes them."""
        return render(self.tokenizer, self.messages[:count], add_generation_prompt, self.tools)

    def replaced(self, index: int, **keys: Any) -> str:
        """The messages up to `index`, that one with other keys; a key that is None is left out."""
        message = {key: value for key, value in {**self.messages[index], **keys}.items() if value is not None}
        return render(self.tokenizer, [*self.messages[:index], message], tools=self.tools)


def prepare(tokenizer: PreTrainedTokenizerBase, messages: Messages, tools: Tools | None = None) -> Chat:
    """Give thoughts, tool calls and control tokens in texts the form in which the template keeps them right.

    Raises TemplateError where the template knows no tools and the conversation calls them.
    """
    control = control_tokens(tokenizer)
    plain = not tools and all(message.keys() <= _PLAIN for message in messages)
    marked = any(
        control.stand_in(text, message["role"] == "assistant") for message in messages for text in texts(message)
    ) or any(control.stand_in(text) for text in _strings(tools or []))
    originals = [dict(message) for message in messages]
    if marked:
        originals, tools = _marked(control, originals, tools)
    if plain and not any(CLOSE in message["content"] for message in originals):
        return Chat(tokenizer, originals, originals, None, marked, True)
    features = traits(tokenizer)
    if _NINE.search(source(tokenizer)):
        originals = [_with_short_ids(message) for message in originals]
    tagged = [_in_tags(message) for message in originals]
    adapted = [_for_template(message, features) for message in originals]
    return Chat(tokenizer, adapted, tagged, tools or None, marked, False)


def texts(message: Mapping[str, Any]) -> list[str]:
    """All that a message says."""
    if message.keys() <= _PLAIN:
        return [message["content"]]
    return _strings({key: value for key, value in message.items() if key not in ("role", "weight")})


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [text for part in inner for text in _strings(part)]


def _marked(
    control: ControlTokens, messages: list[dict[str, Any]], tools: Tools | None
) -> tuple[list[dict[str, Any]], Tools | None]:
    from transformers.utils.chat_template_utils import mark_control_tokens

    marked = []
    for message in messages:
        pattern = control.patterns[message["role"] == "assistant"]
        marked.append(
            {key: value if key == "role" else mark_control_tokens(value, pattern) for key, value in message.items()}
        )
    return marked, mark_control_tokens(list(tools), control.patterns[False]) if tools else None


def _with_short_ids(message: dict[str, Any]) -> dict[str, Any]:
    """The message with ids of nine letters or digits, which Mistral's templates ask for; equal ones stay equal."""
    shortened = dict(message)
    if calls := message.get("tool_calls"):
        shortened["tool_calls"] = [{**call, "id": _short(call.get("id") or str(at))} for at, call in enumerate(calls)]
    if message["role"] == "tool":
        shortened["tool_call_id"] = _short(message.get("tool_call_id") or "0")
    return shortened


def _short(name: str) -> str:
    return name if re.fullmatch("[a-zA-Z0-9]{9}", name) else hashlib.sha256(name.encode()).hexdigest()[:9]


def _in_tags(message: Mapping[str, Any]) -> dict[str, Any]:
    return {**message, "content": with_tags(message)}


def _for_template(message: Mapping[str, Any], features: Traits) -> dict[str, Any]:
    adapted = {key: value for key, value in message.items() if key not in ("weight", "reasoning_content")}
    adapted["content"] = message.get("content") or ""
    if message["role"] == "tool" and not features.tool_results:
        raise TemplateError("The model's chat template doesn't write tool results; choose a model that knows tools.")
    if message["role"] != "assistant":
        return adapted
    if calls := message.get("tool_calls"):
        if features.tool_calls == "not":
            raise TemplateError("The model's chat template doesn't write tool calls; choose a model that knows tools.")
        adapted["tool_calls"] = (
            [_with_string_arguments(call) for call in calls] if features.tool_calls == "string" else calls
        )
    thoughts, content = split_tags(with_tags(message))
    if features.thoughts == "tags":
        adapted["content"] = with_tags(message)
    elif thoughts and features.thoughts in ("field", "blocks"):
        adapted |= {"content": content, **_fields(thoughts)}
        if features.thoughts == "blocks":
            adapted["content"] = _blocks(thoughts, content)
    return adapted
