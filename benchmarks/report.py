"""From records to a Markdown report: medians, ratios within a round with their spread, and what was asked against what came."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.plan import BESIDE, GGUF_KINDS, Record, llamacpp

Value = Callable[[Record], float]


@dataclass(frozen=True)
class Spread:
    """The median of the rounds, and the least and the most."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        found = list(values)
        return cls(statistics.median(found), min(found), max(found)) if found else None

    def text(self, digits: int = 1, factor: float = 1.0) -> str:
        median, low, high = (f"{factor * value:,.{digits}f}" for value in (self.median, self.low, self.high))
        return median if low == high else f"{median} ({low}–{high})"


class Found:
    """The records, asked for by part and by who was measured."""

    def __init__(self, records: list[Record]) -> None:
        self.records = records

    def rounds(self, part: str, who: str) -> dict[int, Record]:
        """What was measured, by round; without what failed."""
        return {
            record["round"]: record
            for record in self.records
            if record["part"] == part and record["who"] == who and "failed" not in record
        }

    def failures(self, part: str) -> dict[str, str]:
        return {
            record["who"]: record["failed"] for record in self.records if record["part"] == part and "failed" in record
        }

    def spread(self, part: str, who: str, value: Value) -> Spread | None:
        return Spread.of(value(record) for record in self.rounds(part, who).values())

    def ratio(self, part: str, over: tuple[str, Value], under: tuple[str, Value]) -> Spread | None:
        """One's value over another's of the same round, so that an hour in which all is slow doesn't count."""
        above, below = self.rounds(part, over[0]), self.rounds(part, under[0])
        return Spread.of(
            over[1](above[number]) / under[1](below[number]) for number in sorted(above.keys() & below.keys())
        )

    # Training ------------------------------------------------------------------------------------------------------

    def row_tokens(self) -> float:
        """Tokens of the rows as our tokenizer call counts them; the same figure for all."""
        return float(next((record["row_tokens"] for record in self.rounds("training", "sftdemo").values()), 0))

    def tokens_per_s(self, record: Record) -> float:
        if record["who"] in ("sftdemo", BESIDE):
            return float(record["tokens_per_s"])
        return (self.row_tokens() or record["row_tokens"]) / record["seconds"]  # type: ignore[no-any-return]

    def faster(self, peer: str) -> Spread | None:
        return self.ratio("training", ("sftdemo", self.tokens_per_s), (peer, self.tokens_per_s))

    def training_beside(self) -> Spread | None:
        """Tokens/s beside a process that never waits, as a share of the quiet ones."""
        return self.ratio("training", (BESIDE, self.tokens_per_s), ("sftdemo", self.tokens_per_s))

    def dtype(self) -> str:
        return next(
            (str(limits["training_dtype"]) for limits in self.rounds("training", "machine").values()), "unknown"
        )

    def used(self, record: Record) -> float:
        """GFLOP/s of the products our training can't do without."""
        return record["needed_flops"] / record["row_tokens"] * record["tokens_per_s"] / 1e9  # type: ignore[no-any-return]

    def limit(self, record: Record) -> float:
        return float(record[f"{self.dtype()}_gflops"])

    def share(self) -> Spread | None:
        return self.ratio("training", ("sftdemo", self.used), ("machine", self.limit))

    # Answers -------------------------------------------------------------------------------------------------------

    def chat_share(self) -> Spread | None:
        return self.ratio("chat", ("sftdemo", side_speed), ("generate", base_speed))

    def chat_beside(self) -> Spread | None:
        """A side's speed beside a process that never waits, as a share of its quiet one."""
        return self.ratio("chat", (BESIDE, side_speed), ("sftdemo", side_speed))

    def faster_than_llamacpp(self, kind: str) -> Spread | None:
        """A side's speed with both at once, over one's with base and tuned in turns."""
        return self.ratio("runtime", ("sftdemo", side_speed), (llamacpp(kind), side_speed))

    def evaluated_faster(self) -> Spread | None:
        return self.ratio("evaluation", ("generate", loops_per_prompt), ("sftdemo", batch_per_prompt))

    def same_tokens(self) -> dict[str, int] | None:
        """How many answers were compared, how many are the same, how many differ only after a tie."""
        checks = [record for part in ("chat", "evaluation") for record in self.rounds(part, "same tokens").values()]
        if not checks:
            return None
        return {key: sum(check[key] for check in checks) for key in ("answers", "identical", "ties")}

    # Memory, start-up ----------------------------------------------------------------------------------------------

    def second_side(self) -> Spread | None:
        """Bytes that both sides hold beyond the base alone, answering alike, over the bytes of the weights."""
        alone, both = self.rounds("memory", "base alone"), self.rounds("memory", "both sides")
        return Spread.of(
            (both[number]["resident_bytes"] - alone[number]["resident_bytes"]) / alone[number]["weights_bytes"]
            for number in sorted(alone.keys() & both.keys())
        )

    def page_ratio(self) -> Spread | None:
        return self.ratio("startup", ("sftdemo", seconds), ("hello world", seconds))


def seconds(record: Record) -> float:
    return float(record["seconds"])


def side_speed(record: Record) -> float:
    """Tokens a second of the slower side; both answers take the same time."""
    return min(record["tokens"].values()) / record["seconds"]  # type: ignore[no-any-return]


def base_speed(record: Record) -> float:
    return record["base"]["tokens"] / record["base"]["seconds"]  # type: ignore[no-any-return]


def loops_per_prompt(record: Record) -> float:
    return (record["base"]["seconds"] + record["tuned"]["seconds"]) / record["prompts"]  # type: ignore[no-any-return]


def batch_per_prompt(record: Record) -> float:
    return record["seconds"] / record["prompts"]  # type: ignore[no-any-return]


def table(head: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> list[str]:
    """A Markdown table and the empty line behind it."""
    rows = [head, tuple("---" for _ in head), *lines]
    return [f"| {' | '.join(row)} |" for row in rows] + [""]


def markdown(records: list[Record], about: dict[str, Any], plot: str) -> str:
    """The whole report; `about` says machine, versions, command, date and sizes; `plot` is the picture's file name."""
    found = Found(records)
    lines = [
        "# Benchmark",
        "",
        *(f"- {key}: {value}" for key, value in about.items()),
        "",
        f"![The main figures]({plot})",
        "",
    ]
    lines += ["Medians of the rounds, least and most in brackets; a ratio is taken within a round.", ""]
    lines += targets(found)
    if "no bfloat16 units" in str(about.get("arithmetic", "")):
        lines += [
            "This processor has no bfloat16 units; what is asked is asked of one that has, so here it is only told.",
            "",
        ]
    for section in (training, chat, runtime, evaluation, startup, memory, scaling):
        if any(record["part"] == section.__name__ for record in records):
            lines += section(found)
            failed = found.failures(section.__name__)
            lines += [f"- {who} was not measured: {reason}" for who, reason in failed.items()] + [""] * bool(failed)
    return "\n".join(lines).rstrip() + "\n"


def targets(found: Found) -> list[str]:
    """What is asked of sftdemo, and whether it was reached; as text where nothing was measured."""
    asked: list[tuple[str, Spread | None, float, float, bool]] = [
        ("training against TRL, times", found.faster("TRL"), 4, 5, True),
        ("training against TRL with packing, times", found.faster("TRL, packing"), 2.6, 3.5, True),
        ("training against LLaMA-Factory, times", found.faster("LLaMA-Factory"), 3.6, 4.5, True),
        ("training beside a busy process against quiet", found.training_beside(), 0.4, 0.5, True),
        ("share of the product limit used in training", found.share(), 0.35, 0.5, True),
        ("a side's tokens/s in chat against the base alone", found.chat_share(), 0.8, 0.95, True),
        ("chat beside a busy process against quiet", found.chat_beside(), 0.4, 0.5, True),
        ("both sides against llama.cpp in turns (Q4_1), times", found.faster_than_llamacpp("q4_1"), 1.3, 2, True),
        ("evaluation against two loops of generate, times", found.evaluated_faster(), 8, 15, True),
        ("memory of the second side, share of the weights", found.second_side(), 0.1, 0.05, False),
        ("first page against a hello-world app, times", found.page_ratio(), 1.3, 1.1, False),
    ]
    rows = [
        (what, f"{'≥' if more else '≤'} {least:g}, aim {aim:g}", got.text(2), verdict(got.median, least, aim, more))
        for what, got, least, aim, more in asked
        if got
    ]
    if same := found.same_tokens():
        explained = same["identical"] + same["ties"] == same["answers"]
        counted = f"{same['identical']} of {same['answers']} identical, {same['ties']} parted at a tie"
        rows.append(("greedy tokens against generate", "identical but for ties", counted, "aim" if explained else "no"))
    return ["## Asked and reached", "", *table(("what", "asked", "measured", "reached"), rows)] if rows else []


def verdict(value: float, least: float, aim: float, more: bool) -> str:
    if not more:
        value, least, aim = -value, -least, -aim
    return "aim" if value >= aim else "yes" if value >= least else "no"


def training(found: Found) -> list[str]:
    rows = []
    for who in ("sftdemo", "TRL", "TRL, packing", "LLaMA-Factory"):
        if speed := found.spread("training", who, found.tokens_per_s):
            ratio = found.faster(who) if who != "sftdemo" else None
            counted = next(iter(found.rounds("training", who).values()))["row_tokens"]
            rows.append((who, speed.text(), ratio.text(2) if ratio else "", f"{counted:,}"))
    if beside := found.spread("training", BESIDE, found.tokens_per_s):
        rows.insert(1, (BESIDE, beside.text(), "", ""))
    lines = [f"## Training ({found.dtype()})", ""]
    lines += table(("who", "tokens/s", "sftdemo is faster by", "tokens it counts in the rows"), rows)
    limits = [
        ("float32 products", "float32_gflops", "GFLOP/s"),
        ("bfloat16 products", "bfloat16_gflops", "GFLOP/s"),
        ("memory read", "read_gb_s", "GB/s"),
    ]
    for what, key, unit in limits:
        measured = [limit[key] for limit in found.rounds("training", "machine").values() if limit[key]]
        if limit := Spread.of(measured):
            lines.append(f"- the machine's {what}: {limit.text(1)} {unit}")
    used, share = found.spread("training", "sftdemo", found.used), found.share()
    if used and share:
        lines.append(
            f"- products sftdemo's training needs: {used.text(1)} GFLOP/s, {share.text(0, 100)} % of the limit"
        )
    return [*lines, ""]


def chat(found: Found) -> list[str]:
    rows = []
    if ours := found.spread("chat", "sftdemo", side_speed):
        rows.append(
            ("sftdemo, each of both sides", ours.text(), ((share := found.chat_share()) and share.text(2)) or "")
        )
    if beside := found.spread("chat", BESIDE, side_speed):
        rows.append((BESIDE, beside.text(), ""))
    if plain := found.spread("chat", "generate", base_speed):
        rows.append(("generate, the base alone", plain.text(), ""))
    return ["## Side by side in the chat", "", *table(("who", "tokens/s", "share of the base alone"), rows)]


def runtime(found: Found) -> list[str]:
    rows = []
    if ours := found.spread("runtime", "sftdemo", side_speed):
        rows.append(("sftdemo, both sides at once", ours.text(), ""))
    for kind in GGUF_KINDS:
        if theirs := found.spread("runtime", llamacpp(kind), side_speed):
            ratio = found.faster_than_llamacpp(kind)
            rows.append((f"{llamacpp(kind)}, in turns", theirs.text(), ratio.text(2) if ratio else ""))
    head = ("who", "tokens/s of a side", "sftdemo is faster by")
    return ["## Side by side with another runtime", "", *table(head, rows)]


def evaluation(found: Found) -> list[str]:
    rows = []
    if ours := found.spread("evaluation", "sftdemo", batch_per_prompt):
        rows.append(
            ("sftdemo, both sides batched", ours.text(3), ((f := found.evaluated_faster()) and f.text(1)) or "")
        )
    if plain := found.spread("evaluation", "generate", loops_per_prompt):
        rows.append(("generate, base and then tuned", plain.text(3), ""))
    return ["## Evaluation", "", *table(("who", "seconds a prompt", "sftdemo is faster by"), rows)]


def startup(found: Found) -> list[str]:
    pages = ((who, found.spread("startup", who, seconds)) for who in ("sftdemo", "hello world"))
    return ["## First page", "", *table(("app", "seconds"), [(who, page.text(2)) for who, page in pages if page])]


def memory(found: Found) -> list[str]:
    lines = ["## Memory", ""]
    answered = ("generate, the base alone", "base alone", "both sides")
    held = ((who, found.spread("memory", who, lambda r: r["resident_bytes"])) for who in answered)
    lines += table(("held after an answer", "MB"), [(who, got.text(0, 1e-6)) for who, got in held if got])
    modes = ((mode, found.spread("memory", mode, peak)) for mode in ("full", "lora", "int8", "nf4"))
    return lines + table(
        ("training", "peak MB of the process"), [(mode, got.text(0, 1e-6)) for mode, got in modes if got]
    )


def scaling(found: Found) -> list[str]:
    names = dict.fromkeys(record["who"] for record in found.records if record["part"] == "scaling")
    rows = []
    for who in names:
        for record in found.rounds("scaling", who).values():
            rows.append((who, f"{record['tokens_per_s']:,.1f}", f"{peak(record) * 1e-6:,.0f}", f"{record['steps']}"))
    return ["## Growth", "", *table(("data", "tokens/s", "peak MB", "steps"), rows)]


def peak(record: Record) -> float:
    return float(record["peak_bytes"])
