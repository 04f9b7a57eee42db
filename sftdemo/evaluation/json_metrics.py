"""Answers that are JSON: is it valid, is it the same, and which of its fields and entities are right.

A field is a value with its path ("order.item"); items of a list share the path. An entity is an item of a list, whole.
Values are compared, not their writing: the order of keys, white space and how a number is written (1, 1.0, 1e0) don't
matter; the order of a list does to `json_exact` alone. Texts are compared as `exact_match` compares them.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from sftdemo.data.values.entities import numbered
from sftdemo.evaluation.metrics import Scores, check, mean, plain
from sftdemo.evaluation.words import References

Path = tuple[str, ...]
Counts = tuple[int, int, int]  # right, invented, missing: true positives, false positives, false negatives

DEEPEST = 100  # levels; what walks through a value needs Python's stack
_FENCE = re.compile(r"```[\w+-]*\s*\n(.*?)```", re.DOTALL)
_START = re.compile(r"""\{(?=\s*["}])|\[(?=\s*["{\[\]])""")
_TYPES = ("label", "type", "entity_type", "category", "tag")
SIGNATURE = (
    "valid:whole-answer,object-or-list|lenient:first-fence,first-object-or-list|values:lenient|numbers:by-value|"
    "text:nfkc,space|refs:max-f1|mean:micro"
)


# Reading


def parsed(text: str) -> Any:
    """The object or list that the whole text is; None where it is none, or is nested more than DEEPEST times."""
    try:
        value = _DECODER.decode(text.strip())
    except (ValueError, ArithmeticError, RecursionError):
        return None
    return value if isinstance(value, dict | list) and not _is_too_deep(value) else None


def parsed_leniently(text: str) -> Any:
    """As `parsed`, also where it stands in a code fence or amid other text: the first object or list of it.

    One that starts and breaks off, or isn't JSON all through, is none: its parts aren't taken for the whole.
    """
    for candidate in (text, *_FENCE.findall(text)[:1]):
        if (value := parsed(candidate)) is not None:
            return value
    start = _START.search(text)
    before = text[: start.start()] if start else ""
    if start is None or before.count("{") > before.count("}") or before.count("[") > before.count("]"):
        return None
    try:
        value = _DECODER.raw_decode(text, start.start())[0]
    except (ValueError, ArithmeticError, RecursionError):
        return None
    return None if _is_too_deep(value) else value


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        level = [
            item
            for node in level
            if isinstance(node, dict | list)
            for item in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return False
    return True


def _no_json(constant: str) -> None:
    raise ValueError(f"{constant} isn't JSON")


_DECODER = json.JSONDecoder(parse_float=Decimal, parse_int=Decimal, parse_constant=_no_json)


def are_json(references: References) -> bool:
    """Whether all references are objects or lists, and not all of them empty."""
    values = (parsed(text) for texts in references for text in texts)
    some = False
    for value in values:
        if value is None:
            return False
        some = some or bool(value)
    return some


def are_lists(references: References) -> bool:
    return all(isinstance(parsed(text), list) for texts in references for text in texts)


def _comparable(value: Any) -> Hashable:
    """What is equal for equal values; true and 1 are not."""
    if isinstance(value, dict):
        return "object", frozenset((plain(key), _comparable(item)) for key, item in value.items())
    if isinstance(value, list):
        return "list", tuple(map(_comparable, value))
    if isinstance(value, str):
        return "text", plain(value)
    return type(value).__name__, value


def shown(value: Any) -> str:
    """A value as a reader writes it: JSON, a text without quotes."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_number)


def _number(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() and abs(value) < 1e15 else float(value)


# Counting


def _fields(value: Any, path: Path = ()) -> Iterator[tuple[Path, Hashable]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _fields(item, (*path, plain(key)))
    elif isinstance(value, list) and value:
        for item in value:
            yield from _fields(item, path)
    elif path or not isinstance(value, dict | list):
        yield path, _comparable(value)


def _entities(value: Any, path: Path = ()) -> Iterator[tuple[Path, Hashable]]:
    """Each item of each outermost list, under its type where it names one, else under the list's path."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _entities(item, (*path, plain(key)))
    elif isinstance(value, list):
        for item in numbered(value):  # two mentions of one text are two entities
            named = (item.get(key) for key in _TYPES) if isinstance(item, dict) else ()
            kind = next((name for name in named if isinstance(name, str)), None)
            yield (path if kind is None else (kind,)), ("in", path, _comparable(item))


def _counts(answer: Counter[Any], reference: Counter[Any]) -> Counts:
    right = (answer & reference).total()
    return right, answer.total() - right, reference.total() - right


def f1(right: float, invented: float, missing: float) -> float:
    """2·right / (2·right + invented + missing); 1 where there was nothing to find and nothing was invented."""
    whole = 2 * right + invented + missing
    return 2 * right / whole if whole else 1.0


@dataclass(frozen=True)
class Row:
    """How one answer compares with the reference nearest to it. `fields` and `entities` are counts by path or type."""

    valid: bool
    has_json: bool
    exact: bool
    fields: Mapping[Path, Counts]
    entities: Mapping[Path, Counts]

    def total(self, kind: Literal["fields", "entities"]) -> Counts:
        columns = list(zip(*getattr(self, kind).values(), strict=True)) or [(0,)] * 3
        right, invented, missing = map(sum, columns)
        return right, invented, missing

    def f1(self, kind: Literal["fields", "entities"]) -> float:
        """This row's alone; 0 for an answer without JSON."""
        return f1(*self.total(kind)) if self.has_json else 0.0


def _by_path(
    parts: Callable[[Any], Iterator[tuple[Path, Hashable]]], answer: Any, reference: Any
) -> dict[Path, Counts]:
    sides: list[dict[Path, Counter[Hashable]]] = []
    for value in (answer, reference):
        counted: dict[Path, Counter[Hashable]] = defaultdict(Counter)
        for path, part in parts(value) if value is not None else ():
            counted[path][part] += 1
        sides.append(counted)
    answer_parts, reference_parts = sides
    return {
        path: _counts(answer_parts[path], reference_parts[path])
        for path in dict.fromkeys([*reference_parts, *answer_parts])
    }


def _compared(text: str, references: Sequence[str]) -> Row:
    answer = parsed_leniently(text)
    valid, has_json = parsed(text) is not None, answer is not None
    rows = []
    for wanted in map(parsed, references):
        listed = [answer] if isinstance(wanted, list) and isinstance(answer, dict) else answer
        exact = has_json and _comparable(answer) == _comparable(wanted)
        rows.append(Row(valid, has_json, exact, _by_path(_fields, listed, wanted), _by_path(_entities, listed, wanted)))
    return max(rows, key=lambda row: (row.exact, row.f1("fields"), row.f1("entities")))


def json_rows(predictions: Sequence[str], references: References) -> list[Row]:
    """Each answer compared; the references are JSON (`are_json`)."""
    check(predictions, references)
    return [_compared(text, texts) for text, texts in zip(predictions, references, strict=True)]


def has_entities(references: References) -> bool:
    return any(True for texts in references for text in texts for _ in _entities(parsed(text)))


def json_scores(*, predictions: Sequence[str], references: References) -> Scores:
    """{"json_valid", "json_valid_lenient", "json_exact", "field_f1", "fields", "signature"}, and where references have
    lists "entity_f1" and "entities".

    `json_valid` is the share of answers that are JSON and nothing else, `json_valid_lenient` that of answers in which it
    can be found (`parsed_leniently`); the other scores are of what was found. F1 is of all rows' counts together
    (micro); `fields` and `entities` have {"precision", "recall", "f1", "support"} by path or type.
    """
    rows = json_rows(predictions, references)
    scores: Scores = {
        "json_valid": mean([float(row.valid) for row in rows]),
        "json_valid_lenient": mean([float(row.has_json) for row in rows]),
        "json_exact": mean([float(row.exact) for row in rows]),
        "field_f1": f1(*_sum([row.total("fields") for row in rows])),
    }
    if has_entities(references):
        scores["entity_f1"] = f1(*_sum([row.total("entities") for row in rows]))
    return scores | parts(rows, "entity_f1" in scores) | {"signature": SIGNATURE}


def entity_rates(rows: Sequence[Row]) -> Scores:
    """{"entity_precision", "entity_recall"} of all rows' entities together; 0 where nothing was found, or was to be found."""
    right, invented, missing = _sum([row.total("entities") for row in rows])
    return {
        "entity_precision": right / max(right + invented, 1),
        "entity_recall": right / max(right + missing, 1),
    }


def parts(rows: Sequence[Row], with_entities: bool) -> dict[str, dict[str, dict[str, float]]]:
    """{"fields", perhaps "entities"}: {path or type: {"precision", "recall", "f1", "support"}}, of all rows' counts."""
    tables = {"fields": _table([row.fields for row in rows])}
    return tables | ({"entities": _table([row.entities for row in rows])} if with_entities else {})


def _sum(counts: Sequence[Counts]) -> Counts:
    right, invented, missing = map(sum, zip(*counts, strict=True))
    return right, invented, missing


def _table(rows: Sequence[Mapping[Path, Counts]]) -> dict[str, dict[str, float]]:
    grouped: dict[str, list[Counts]] = defaultdict(list)
    for row in rows:
        for path, counts in row.items():
            grouped[".".join(path)].append(counts)
    table = {}
    for name, every in grouped.items():
        right, invented, missing = _sum(every)
        table[name] = {
            "precision": right / max(right + invented, 1),
            "recall": right / max(right + missing, 1),
            "f1": f1(right, invented, missing),
            "support": right + missing,
        }
    return table


# Slot by slot


class Slot(NamedTuple):
    """One difference of an answer from its reference; `invalid`: there is no JSON at all."""

    kind: Literal["missing", "wrong", "invented", "invalid"]
    path: str = ""
    wanted: str = ""
    actual: str = ""

    def __str__(self) -> str:
        change = f": {self.wanted} → {self.actual}" if self.kind == "wrong" else ""
        value = f" ({self.wanted or self.actual})" if self.kind in ("missing", "invented") else ""
        return f"{self.kind} {self.path}{change}{value}".strip()


def slots(text: str, references: Sequence[str]) -> list[Slot]:
    """What an answer lacks, has otherwise, or adds, against the reference from which it differs least."""
    answer = parsed_leniently(text)
    if answer is None:
        return [Slot("invalid")]
    against = []
    for wanted in map(parsed, references):
        listed = [answer] if isinstance(wanted, list) and isinstance(answer, dict) else answer
        against.append(list(_differences(wanted, listed)))
    return min(against, key=len)


def _differences(reference: Any, answer: Any, path: Path = ()) -> Iterator[Slot]:
    name = ".".join(path)
    if isinstance(reference, dict) and isinstance(answer, dict):
        answer_items, reference_items = (
            {plain(key): item for key, item in side.items()} for side in (answer, reference)
        )
        for key in dict.fromkeys([*reference_items, *answer_items]):
            inside = ".".join((*path, key))
            if key not in answer_items:
                yield Slot("missing", inside, wanted=shown(reference_items[key]))
            elif key not in reference_items:
                yield Slot("invented", inside, actual=shown(answer_items[key]))
            else:
                yield from _differences(reference_items[key], answer_items[key], (*path, key))
    elif isinstance(reference, list) and isinstance(answer, list):
        yield from _of_lists(_left(reference, answer), _left(answer, reference), path)
    elif _comparable(reference) != _comparable(answer):
        yield Slot("wrong", name, shown(reference), shown(answer))


def _left(items: list[Any], others: list[Any]) -> list[Any]:
    """The items that aren't among the others, each of which takes away one."""
    unmatched = Counter(map(_comparable, others))
    left = []
    for item in items:
        key = _comparable(item)
        unmatched[key] -= 1
        if unmatched[key] < 0:
            left.append(item)
    return left


def _of_lists(references: list[Any], answers: list[Any], path: Path) -> Iterator[Slot]:
    """Items that have most in common are taken for the same one, told otherwise; the rest is missing or invented."""
    pairs = [
        (sum((Counter(_fields(reference_item)) & Counter(_fields(answer_item))).values()), -i, -j)
        for i, reference_item in enumerate(references)
        for j, answer_item in enumerate(answers)
        if isinstance(reference_item, dict) and isinstance(answer_item, dict)
    ]
    matched: dict[int, int] = {}
    for common, i, j in sorted(pairs, reverse=True):
        if common and -i not in matched and -j not in matched.values():
            matched[-i] = -j
    name = ".".join(path)
    for i, reference_item in enumerate(references):
        if i in matched:
            yield from _differences(reference_item, answers[matched[i]], path)
        else:
            yield Slot("missing", name, wanted=shown(reference_item))
    for j, answer_item in enumerate(answers):
        if j not in matched.values():
            yield Slot("invented", name, actual=shown(answer_item))
