"""A chat template is a program that comes with a model: whatever it does, it ends soon, small and with one plain line."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest
from conftest import make_tokenizer
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sftdemo.encoding import template_limits
from sftdemo.encoding.chat_template import TemplateCostError, TemplateError, render
from sftdemo.encoding.encode import encode_prompt
from sftdemo.encoding.examples import encode_all
from sftdemo.encoding.template_budget import limited

pytestmark = pytest.mark.slow

TEMPLATES = sorted(Path(__file__).with_name("templates").glob("*.jinja"))
ASK = [{"role": "user", "content": "the film was good"}]
MULTI = [{"role": "system", "content": "be kind"}, *ASK, {"role": "assistant", "content": "nice"}, *ASK]
TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}},
}
DOUBLE = "{% set ns = namespace(x=START) %}{% for i in range(99) %}{% set ns.x = STEP %}{% endfor %}USE"


def doubling(start: str, step: str, use: str = "") -> str:
    return DOUBLE.replace("START", start).replace("STEP", step).replace("USE", use)


HOSTILE = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "loops_that_skip": "{% for i in range(99999) %}{% for j in range(99999) if false %}{% endfor %}{% endfor %}",
    "recursive_loop": "{% for i in [1] recursive %}{{ loop([1, 1]) }}{{ loop([1, 1]) }}{% endfor %}",
    "literal_in_loops": "{% for i in range(99999) %}{% for j in range(99) %}" + "A" * 9999 + "{% endfor %}{% endfor %}",
    "times": "{% set x = 'a' * 10 ** 9 %}",
    "times_list": "{% set x = [1] * 10 ** 9 %}",
    "times_twice": "{% set x = ('a' * 10 ** 6) * 10 ** 6 %}",
    "range": "{% for i in range(10 ** 9) %}{% endfor %}",
    "power": "{% set x = 9 ** (9 ** 9) %}",
    "powers": doubling("9", "ns.x * ns.x"),
    "plus": doubling("'aa'", "ns.x + ns.x"),
    "plus_many": doubling("'aa'", " + ".join(["ns.x"] * 40)),
    "tilde": doubling("'aa'", "ns.x ~ ns.x"),
    "lists": doubling("[1]", "ns.x + ns.x"),
    "nested_lists": doubling("[1]", "[ns.x, ns.x]", "{{ ns.x }}"),
    "nested_lists_compared": doubling("[1]", "[ns.x, ns.x]", "{% if ns.x == [ns.x, ns.x] %}{% endif %}"),
    "nested_tuples_as_key": doubling("(1,)", "(ns.x, ns.x)", "{% set d = {ns.x: 1} %}"),
    "nested_dicts": doubling("{}", "{'a': ns.x, 'b': ns.x}", "{{ ns.x | tojson }}"),
    "nested_namespaces": doubling("1", "namespace(a=[ns.x, ns.x])", "{{ [ns.x] }}"),
    "set_block": "{% set ns = namespace(x='aa') %}{% for i in range(99) %}{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}",
    "written": "{% set x = 'a' * 4000000 %}" + "{{ x }}" * 1000,
    "macro": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "macro_branches": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(90) }}",
    "macro_arguments": "{% macro f() %}{{ f(varargs, varargs) }}{% endmacro %}{{ f(1, 1) }}",
    "block": "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "center": "{{ 'a' | center(10 ** 9) }}",
    "center_method": "{{ 'a'.center(10 ** 9) }}",
    "zfill": "{{ '1'.zfill(10 ** 9) }}",
    "expandtabs": "{{ ('\t' * 999).expandtabs(10 ** 9) }}",
    "translate": "{{ ('a' * 99999).translate({97: 'b' * 99999}) }}",
    "to_bytes": "{{ (1).to_bytes(10 ** 9, 'big') }}",
    "indent": "{{ ('a\n' * 99999) | indent(99999) }}",
    "join": "{{ range(99999) | join('a' * 99999) }}",
    "join_method": "{{ ('a' * 99999).join(['b'] * 99999) }}",
    "replace": "{{ ('a' * 99999) | replace('a', 'b' * 99999) }}",
    "replace_method": "{{ ('a' * 99999).replace('', 'b' * 99999) }}",
    "batch": "{{ [1] | batch(10 ** 9, 1) | list }}",
    "slice": "{{ [1] | slice(10 ** 9) | list }}",
    "json_indent": "{{ [[1]] | tojson(indent=10 ** 9) }}",
    "json_separators": "{{ ([1] * 99999) | tojson(separators=('a' * 99999, 'b')) }}",
    "percent": "{{ '%1000000000d' % 1 }}",
    "percent_star": "{{ '%*d' % (10 ** 9, 1) }}",
    "percent_named": "{{ '%(a)1000000000d' % {'a': 1} }}",
    "format_filter": "{{ '%.1000000000f' | format(1.5) }}",
    "format": "{{ '{:1000000000}'.format(1) }}",
    "format_inner": "{{ '{:{}}'.format(1, 10 ** 9) }}",
    "format_map": "{{ '{a:1000000000}'.format_map({'a': 1}) }}",
    "map_center": "{{ range(9999) | map('string') | map('center', 4000000) | list }}",
    "lipsum": "{{ lipsum(n=10 ** 9) }}",
    "generators": "{% for i in range(99999) %}{% if range(99999) | map('string') | select('equalto', 'a') | first %}{% endif %}{% endfor %}",
    "searching": "{% set x = 'a' * 4000000 %}{% for i in range(99999) %}{% if x + 'b' in x + 'c' %}{% endif %}{% endfor %}",
    "sums": "{{ ([[1] * 9999] * 9999) | sum(start=[]) }}",
    "slices": "{% set x = 'a' * 4000000 %}{% set ns = namespace(l=[]) %}{% for i in range(999) %}"
    "{% set ns.l = ns.l + [x[i:]] %}{% endfor %}",
    "refusal": "{{ raise_exception('a' * 4000000) }}",
    "brackets": "{{ " + "(" * 9999 + "1" + ")" * 9999 + " }}",
    "long": "a" * 999_999,
    "unfinished": "{% for i in",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_templates_end_with_one_line(name):
    tokenizer = make_tokenizer(HOSTILE[name])
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    with pytest.raises(TemplateError) as fault:
        render(tokenizer, ASK)
    assert time.thread_time() - start < 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB
    assert "\n" not in str(fault.value) and len(str(fault.value)) < 400


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_real_templates_write_what_they_did(template, monkeypatch):
    """The budget changes no character, with tools or without."""
    from transformers.utils import chat_template_utils

    def written() -> list[str]:
        texts = []
        for messages, tools, prompt in (
            (ASK, None, True),
            (MULTI, None, False),
            (MULTI, None, True),
            (ASK, [TOOL], True),
        ):
            try:
                with limited(100):
                    texts.append(
                        tokenizer.apply_chat_template(
                            messages, tools=tools, tokenize=False, add_generation_prompt=prompt
                        )
                    )
            except Exception as error:  # noqa: BLE001 (a refusal must stay the same too)
                texts.append(f"{type(error).__name__}: {error}")
        return texts

    tokenizer = make_tokenizer(template.read_text("utf-8"))
    template_limits.install()
    bounded = written()
    monkeypatch.setattr(chat_template_utils, "ImmutableSandboxedEnvironment", ImmutableSandboxedEnvironment)
    chat_template_utils._compile_jinja_template.cache_clear()
    assert bounded == written()
    chat_template_utils._compile_jinja_template.cache_clear()


def test_a_long_conversation_is_within_the_budget(tokenizer):
    long = [{"role": role, "content": "the film was good " * 500} for _ in range(200) for role in ("user", "assistant")]
    assert render(tokenizer, long).count("the film") == 200_000


def test_a_namespace_may_be_a_message():
    """As MiroThinker's template has it."""
    template = (
        "{% set m = namespace(role='system', content='a') %}{% for x in [m] + messages %}{{ x.content }}|{% endfor %}"
    )
    assert render(make_tokenizer(template), ASK) == "a|the film was good|"


def test_what_the_template_takes_is_no_fault_of_a_row():
    """It stops a check at once instead of once a row."""
    tokenizer = make_tokenizer(HOSTILE["loops"])
    rows = [{"messages": [*ASK, {"role": "assistant", "content": "nice"}]}] * 100
    with pytest.raises(TemplateCostError, match="too many steps"):
        encode_all(rows, tokenizer, "drop", "rows.jsonl")
    with pytest.raises(TemplateCostError):
        encode_prompt(tokenizer, ASK)
