"""Chat templates are programs that come with a model: they run on a budget of time, memory and output, in this process.

Jinja's sandbox keeps a template from Python's internals, but not from nested loops over 99,999 numbers or texts of a
gigabyte. So its compiler is made to ask the budget at every iteration, call and operation that makes something, before it
is made. Lists are weighed as they would be written out, so that lists of lists can't grow unseen either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache, wraps
from types import BuiltinMethodType, GeneratorType
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.runtime import Context, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter

from sftdemo.encoding import template_growth as growth
from sftdemo.encoding.template_budget import Budget, TemplateLimitError, current

# The longest of 200 templates in use has 20,000 characters.
SOURCE_CHARS = 2**17
# What no template in use asks for, and what takes its time in regular expressions or makes things up.
_WITHOUT = ("urlize", "wordwrap", "striptags", "xmlattr", "pprint", "random", "filesizeformat")
SHOWN_SUMS = 16  # a sum of more parts is paid for before it is written
# Filters that only look at a value, and those that go over its parts one at a time.
_LOOKING = frozenset(("length", "count", "first", "default", "d", "int", "float", "abs", "round", "attr"))
_LAZY = frozenset(("map", "select", "reject", "selectattr", "rejectattr", "items", "last", "reverse"))
_FREE = frozenset((bool, int, float, type(None)))
# Methods that make nothing longer, and are asked at every turn.
_PLAIN_METHODS = frozenset(
    [
        "startswith",
        "endswith",
        "strip",
        "lstrip",
        "rstrip",
        "lower",
        "upper",
        "find",
        "rfind",
        "removeprefix",
        "removesuffix",
        "get",
        "items",
        "keys",
        "values",
    ]
)
_COMPARING = (
    "==",
    "eq",
    "equalto",
    "!=",
    "ne",
    ">",
    "gt",
    "greaterthan",
    "ge",
    ">=",
    "<",
    "lt",
    "lessthan",
    "<=",
    "le",
    "in",
)


@cache
def install() -> None:
    """Have transformers compile chat templates in `BoundedEnvironment`; RuntimeError where it no longer can be made to."""
    from transformers.utils import chat_template_utils as utils

    utils.ImmutableSandboxedEnvironment = BoundedEnvironment
    utils._compile_jinja_template.cache_clear()
    if not isinstance(utils._compile_jinja_template("").environment, BoundedEnvironment):
        raise RuntimeError("This version of transformers compiles chat templates elsewhere, where they aren't bounded.")


def check_source(template: Any) -> None:
    """Refuse a template, or one of several named ones, that is too long to be compiled."""
    if max(map(len, template.values() if isinstance(template, dict) else [template]), default=0) > SOURCE_CHARS:
        raise TemplateLimitError(f"is longer than {SOURCE_CHARS:,} characters")


class _Generator(CodeGenerator):
    """Compiles a template as Jinja does, with a question to the budget wherever work or memory could grow."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sizes: dict[int, int] = {}  # by a body's id: how many pieces it may write, in characters' worth
        self._shown: set[int] = set()  # the ids of sums that are written at once
        self._around: dict[int, str] = {}  # by a node's id: the environment's function that is put around it

    def _count(self, node: nodes.For | nodes.Macro | nodes.CallBlock) -> None:
        self._sizes[id(node.body)] = 8 * sum(len(output.nodes) for output in node.find_all(nodes.Output))

    def blockvisit(self, body: Any, frame: Frame) -> None:
        if (size := self._sizes.pop(id(body), None)) is not None:
            self.writeline(f"environment.spend({size})")
        super().blockvisit(body, frame)

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        function = self._around.pop(id(node), None) or _function_around(node)
        if function is None:
            return super().visit(node, *args, **kwargs)
        self.write(f"environment.{function}(")
        super().visit(node, *args, **kwargs)
        return self.write(")")

    def visit_For(self, node: nodes.For, frame: Frame) -> None:
        self._count(node)
        if node.test is not None:  # it is asked also where the body isn't run
            self._around[id(node.test)] = "counted"
        super().visit_For(node, frame)

    def visit_Macro(self, node: nodes.Macro, frame: Frame) -> None:
        self._count(node)
        super().visit_Macro(node, frame)

    def visit_CallBlock(self, node: nodes.CallBlock, frame: Frame) -> None:
        self._count(node)
        super().visit_CallBlock(node, frame)

    def visit_Output(self, node: nodes.Output, frame: Frame) -> None:
        for part in node.nodes:
            sums = list(_sums(part))
            if len(sums) < SHOWN_SUMS:
                self._shown.update(map(id, sums))
        super().visit_Output(node, frame)

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        if frame.eval_ctx.volatile or frame.eval_ctx.autoescape:
            super()._output_child_pre(node, frame, finalize)
        self.write("environment.text(")

    def _output_child_post(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        if frame.eval_ctx.volatile or frame.eval_ctx.autoescape:
            super()._output_child_post(node, frame, finalize)
        self.write(")")

    def visit_Add(self, node: nodes.BinExpr, frame: Frame) -> None:
        self._joined("added", _terms(node), node, super().visit_Add, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self._joined("joined", node.nodes, node, super().visit_Concat, frame)

    def _joined(
        self, function: str, parts: list[nodes.Expr], node: Any, visit: Callable[..., None], frame: Frame
    ) -> None:
        """What is written at once is paid for there, unless it has many parts."""
        if id(node) in self._shown:
            return visit(node, frame)
        self.write(f"environment.{function}((")
        for part in parts:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:
        operands = [node.expr, *(operand.expr for operand in node.ops)]
        if not any(_is_constant(operand) for operand in operands):
            self._around |= {id(operand): "weighed" for operand in operands}
        elif any(operand.op in ("in", "notin") for operand in node.ops) and not _is_constant(operands[-1]):
            self._around[id(operands[-1])] = "scanned"
        super().visit_Compare(node, frame)


def _sums(node: nodes.Node) -> Iterator[nodes.Node]:
    """A sum of texts and the sums that are its parts."""
    if isinstance(node, nodes.Add | nodes.Concat):
        yield node
        for part in node.iter_child_nodes():
            yield from _sums(part)


def _terms(node: nodes.Expr) -> list[nodes.Expr]:
    return [*_terms(node.left), node.right] if isinstance(node, nodes.Add) else [node]


def _function_around(node: nodes.Node) -> str | None:
    """Around what makes a list, or a part of a text or list."""
    makes = isinstance(node, nodes.List | nodes.Dict) or (isinstance(node, nodes.Tuple) and node.ctx == "load")
    if (makes and not _is_constant(node)) or (isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)):
        return "measured"
    return None


def _is_constant(node: nodes.Node) -> bool:
    """Whether nothing stands in a value but numbers and texts of the template."""
    if isinstance(node, nodes.List | nodes.Tuple):
        return all(map(_is_constant, node.items))
    if isinstance(node, nodes.Dict):
        return all(_is_constant(pair.key) and _is_constant(pair.value) for pair in node.items)
    return isinstance(node, nodes.Const)


def _result(budget: Budget, value: Any) -> Any:
    if type(value) in _FREE:
        return value
    if isinstance(value, str | bytes):
        budget.spend(len(value))
    elif isinstance(value, list | tuple | dict):
        budget.weight(value)
        budget.spend(16 * len(value))
    return value


def _longer(budget: Budget, left: Any, right: Any) -> Any:
    """Two lists as one, whose weight is the sum of theirs."""
    namespaces = budget.namespaces
    total = budget.weight(left) + budget.weight(right)
    budget.spend(total if total > budget.most else 8 * (len(left) + len(right)))
    result = left + right
    if namespaces == budget.namespaces:
        budget.keep_weight(result, total)
    return result


def _counted(parts: GeneratorType[Any, Any, Any]) -> Iterator[Any]:
    budget = current()
    for part in parts:
        budget.spend(0)
        yield part


class _Filters(dict[str, Callable[..., Any]]):
    """Filters by name, each on the budget, also one that is set later."""

    def __setitem__(self, name: str, function: Callable[..., Any]) -> None:
        super().__setitem__(name, _on_budget(name, function))


def _on_budget(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    if name in _LOOKING:
        return function
    at = 1 if hasattr(function, "jinja_pass_arg") else 0  # some are given the context first

    growing, lazy = growth.FILTERS.get(name), name in _LAZY

    @wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        budget, value = current(), args[at]
        if isinstance(value, GeneratorType):
            value = list(_counted(value)) if name == "join" else _counted(value)
        elif name == "join" and not isinstance(value, list):
            value = list(value)
        if growing:
            growing(budget, value, *args[at + 1 :], **kwargs)
        elif lazy:
            budget.spend(len(value) if hasattr(value, "__len__") else 0)
        else:
            budget.spend(budget.written(value))
        return _result(budget, function(*args[:at], value, *args[at + 1 :], **kwargs))

    return bounded


def _comparing(test: Any) -> Callable[..., Any]:
    @wraps(test)
    def bounded(left: Any, right: Any) -> Any:
        budget = current()
        budget.spend((budget.weight(left) + budget.weight(right)) // 64)
        return test(left, right)

    return bounded


class _Formatter(SandboxedFormatter):
    def format_field(self, value: Any, format_spec: str) -> Any:
        growth.check_width(format_spec)
        budget = current()
        budget.spend(budget.written(value) + growth.WIDTH)
        return super().format_field(value, format_spec)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which all that makes or repeats something is paid for."""

    code_generator_class = _Generator
    intercepted_binops = frozenset(growth.OPERATORS)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        del self.globals["lipsum"]
        builtin, self.filters = self.filters, _Filters()
        for name in builtin.keys() - set(_WITHOUT):
            self.filters[name] = builtin[name]
        for name in _COMPARING:
            self.tests[name] = _comparing(self.tests[name])

    @staticmethod
    def spend(chars: int) -> None:
        current().spend(chars)

    @staticmethod
    def text(value: Any) -> str:
        """A value as it is written."""
        if type(value) is str:
            return value
        budget = current()
        budget.spend(budget.written(value))
        return value if isinstance(value, str) else str(value)  # a Markup is written as it is

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """All that a template, a macro or a block has written."""
        pieces = list(parts)
        current().spend(sum(map(len, pieces)))
        return "".join(pieces)

    @staticmethod
    def counted(value: Any) -> Any:
        """A condition, each asking of which is a step."""
        current().spend(0)
        return value

    @staticmethod
    def weighed(value: Any) -> Any:
        """One side of a comparison with what the template doesn't spell out."""
        budget = current()
        budget.spend(budget.weight(value) // 64)
        return value

    @staticmethod
    def scanned(value: Any) -> Any:
        """What is searched for a constant."""
        if type(value) is dict:
            return value
        current().spend(len(value) // 64 if hasattr(value, "__len__") else 0)
        return _counted(value) if isinstance(value, GeneratorType) else value

    @staticmethod
    def measured(value: Any) -> Any:
        """A list just made, or a part of a text or list."""
        budget = current()
        if not isinstance(value, str):
            budget.weight(value)
        return _result(budget, value)

    @staticmethod
    def joined(parts: tuple[Any, ...]) -> str:
        budget = current()
        budget.spend(sum(map(budget.written, parts)))
        return str_join(parts)

    @staticmethod
    def added(parts: tuple[Any, ...]) -> Any:
        budget, result = current(), parts[0]
        for part in parts[1:]:
            if isinstance(result, list | tuple) and isinstance(part, list | tuple):
                result = _longer(budget, result, part)
                continue
            if isinstance(part, str | bytes):
                budget.spend(len(part) + (len(result) if isinstance(result, str | bytes) else 0))
            result = result + part
        return result

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        growth.OPERATORS[operator](current(), left, right)
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if super().wrap_str_format(value) is None:
            return None
        text = str(value.__self__)

        def formatted(*args: Any, **kwargs: Any) -> str:
            of_map = value.__name__ == "format_map"
            current().spend(len(text))
            return _Formatter(self).vformat(text, () if of_map else args, args[0] if of_map else kwargs)

        return formatted

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        budget, method = current(), type(__obj) is BuiltinMethodType
        if method and __obj.__name__ in _PLAIN_METHODS:
            kwargs.pop("_loop_vars", None)  # Jinja's own, for functions that ask for the context
            kwargs.pop("_block_vars", None)
            return _result(budget, __obj(*args, **kwargs))
        budget.spend(0)
        for value in args if method else (*args, *kwargs.values()):
            if type(value) is not str and type(value) not in _FREE:
                budget.weight(value)
        if method and __obj.__name__ == "join":
            parts = list(__self.scanned(args[0]))
            growth.joined(budget, parts, __obj.__self__)
            args = (parts,)
        elif method:
            growth.of_method(budget, __obj.__self__, __obj.__name__, args, kwargs)
        elif getattr(__obj, "__name__", "") == "strftime_now":
            growth.check_date(args)
        return _result(budget, super().call(__context, __obj, *args, **kwargs))
