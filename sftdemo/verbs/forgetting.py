"""What a fine-tuning forgot: both models asked the same general questions, and a warning where the tuned one fell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sftdemo import files
from sftdemo.config.evaluate import EvaluateConfig
from sftdemo.config.generate import GenerateConfig
from sftdemo.data.sources import GENERAL_QUESTIONS
from sftdemo.encoding.encode import answer_ids
from sftdemo.encoding.thoughts import answer_of
from sftdemo.errors import UserError
from sftdemo.evaluation import registry, significance
from sftdemo.evaluation.registry import ANSWERED, METRICS
from sftdemo.evaluation.scorecard import SIDES
from sftdemo.evaluation.sides import Side, Targets
from sftdemo.evaluation.summary import gained
from sftdemo.log import TO_LOG, Quiet, Reporter

if TYPE_CHECKING:
    from sftdemo.inference.side_by_side import SideBySide

ASKED = (ANSWERED, METRICS["perplexity"])
LONGEST_ANSWER = 40  # tokens; the answers asked for are one short sentence


def ask(
    pair: SideBySide, batch_size: int = EvaluateConfig.batch_size, reporter: Reporter = TO_LOG
) -> list[dict[str, Any]]:
    """A row for each question: {"kind", "messages", "references", "base", "tuned", "base_nll", "tuned_nll", …}."""
    rows = list(files.read_jsonl(GENERAL_QUESTIONS))
    answered_rows = [{**row, "messages": row["messages"][:-1]} for row in rows]
    prompts, wanted = [row["messages"] for row in answered_rows], [row["messages"][-1]["content"] for row in rows]
    ids = [answer_ids(pair.tokenizer, prompt, text) for prompt, text in zip(prompts, wanted, strict=True)]
    config = GenerateConfig(max_new_tokens=LONGEST_ANSWER)
    done = 0
    reporter.stage("forgetting", done, len(rows))
    for answers in pair.answers(prompts, config, batch_size, references=ids, reporter=Quiet(reporter)):
        for index, answer in answers.items():
            answered_rows[index] |= answer | {
                "answer_tokens": len(ids[index]),
                "answer_bytes": len(wanted[index].encode()),
            }
        done += len(answers)
        reporter.stage("forgetting", done, len(rows))
    if done < len(rows):
        raise UserError("Stopped after {done} of {n} general questions.", done=done, n=len(rows))
    return answered_rows


def judge(rows: list[dict[str, Any]], seed: int = 42) -> dict[str, Any]:
    """{"n", "base", "tuned", "difference", "kinds", "forgotten", "summary"} of asked rows, no model needed.

    `forgotten` is true where the share answered fell or the perplexity of the right answers rose, clearly, after Holm's
    correction for asking both.
    """
    tokens = [row["answer_tokens"] for row in rows]
    targets = Targets([row["references"] for row in rows], reference_tokens=tokens)
    sides = {
        name: Side(targets, [answer_of(row[name]) for row in rows], [row[f"{name}_nll"] for row in rows])
        for name in SIDES
    }
    statistics = {name: registry.statistics(side, ASKED) for name, side in sides.items()}
    pairs = registry.paired(statistics["base"], statistics["tuned"])
    difference = significance.corrected(significance.paired_differences(pairs, seed))
    result: dict[str, Any] = {"n": len(rows)}
    result |= {name: registry.scores(side, statistics[name]) for name, side in sides.items()}
    right = {name: ANSWERED.of_each(side) for name, side in sides.items()}
    kinds = sorted({row["kind"] for row in rows})
    result["kinds"] = {
        kind: {
            side: sum(value for value, row in zip(right[side], rows, strict=True) if row["kind"] == kind)
            / sum(row["kind"] == kind for row in rows)
            for side in SIDES
        }
        for kind in kinds
    }
    lost = [
        name
        for name, entry in difference.items()
        if gained(name, entry["delta"]) < 0 and entry["p_holm"] < 0.05 and not entry["low"] <= 0 <= entry["high"]
    ]
    return result | {"difference": difference, "forgotten": bool(lost), "summary": _summary(result, lost)}


def _summary(result: dict[str, Any], lost: list[str]) -> dict[str, str]:
    shares = [f"{100 * result[side]['answered']:.0f} %" for side in SIDES]
    surprise = [f"{result[side]['perplexity']:.1f}" for side in SIDES]
    english = f"right answers {shares[0]} → {shares[1]}, perplexity {surprise[0]} → {surprise[1]}"
    chinese = f"答对 {shares[0]} → {shares[1]}，困惑度 {surprise[0]} → {surprise[1]}"
    if lost:
        clear = " and ".join({"answered": "the first", "perplexity": "the second"}[name] for name in lost)
        clear_zh = "、".join({"answered": "前者", "perplexity": "后者"}[name] for name in lost)
        return {
            "en": f"The tuned model forgot: on {result['n']} general questions {english} ({clear} clearly). "
            "Train for fewer steps, at a lower rate, or mix in general conversations.",
            "zh": f"微调后的模型出现遗忘：在 {result['n']} 个通用问题上{chinese}（{clear_zh}差别明显）。可减少步数、降低学习率，或混入通用对话。",
        }
    return {
        "en": f"No clear loss on {result['n']} general questions: {english}.",
        "zh": f"在 {result['n']} 个通用问题上没有明显下降：{chinese}。",
    }


def measure(
    pair: SideBySide,
    batch_size: int = EvaluateConfig.batch_size,
    seed: int = 42,
    reporter: Reporter = TO_LOG,
) -> dict[str, Any]:
    """Ask and judge; the rows come along as "outputs", so that everything can be looked at and judged again."""
    rows = ask(pair, batch_size, reporter)
    return judge(rows, seed) | {"outputs": rows}
