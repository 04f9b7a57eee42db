"""Rows of an evaluation answered by a run of a kind that doesn't chat."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sftdemo.config.evaluate import EvaluateConfig
from sftdemo.errors import UserError
from sftdemo.inference import kinds
from sftdemo.model import calibration

if TYPE_CHECKING:
    from sftdemo.log import Reporter
    from sftdemo.runs import Run

SIDES = ("base", "tuned")
OF_TEXTS = ("beams", "max_new_tokens")  # settings of answers that are written


def fill(
    run: Run, rows: list[dict[str, Any]], longest: int, config: EvaluateConfig, reporter: Reporter
) -> dict[str, Any]:
    """Fill in what both sides answer, and return what scores.json has beside the scores: time and calibration.

    Raises UserError when the reporter says stop, and for what such a run has no answer to.
    """
    if config.general:
        raise UserError(
            "Run {name} doesn't chat, so it can't be asked general questions; leave general out.", name=run.name
        )
    for setting in () if config.against else OF_TEXTS:  # other systems may write
        if getattr(config, setting) != getattr(EvaluateConfig, setting):
            raise UserError(
                "Run {name} gives labels and writes no text; leave {setting} out.", name=run.name, setting=setting
            )
    answering = kinds.load(run, reporter)
    done, ms = 0, {}
    for side in SIDES:  # apart: one of them may be no model at all, and take no time
        began = time.perf_counter()
        for answers in answering.answers(rows, longest, config.batch_size, reporter=reporter, sides=(side,)):
            for place, answer in answers.items():
                rows[place] |= answer
            done += len(answers)
            reporter.answered(done // len(SIDES), len(rows))
        ms[side] = 1000 * (time.perf_counter() - began) / max(len(rows), 1)
    if done < len(SIDES) * len(rows):
        raise UserError(
            "Stopped after {done} of {n} rows; ask again for all of them.", done=done // len(SIDES), n=len(rows)
        )
    more: dict[str, Any] = {"ms_per_answer": sum(ms.values()) / len(SIDES), "ms_by_side": ms}
    return more | _calibration(rows)


def _calibration(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How far the probabilities of both sides can be believed, before and after they were scaled by temperature."""
    if not all(f"{side}_probabilities" in row and row["label"] for row in rows for side in SIDES):
        return {}
    by_side = {}
    for side in SIDES:
        right = [row[side] == row["label"] for row in rows]
        after = [max(row[f"{side}_probabilities"].values()) for row in rows]
        before = [row[f"{side}_confidence"] for row in rows]
        by_side[side] = {"before": calibration.curve(before, right), "after": calibration.curve(after, right)}
    return {"calibration": by_side}
