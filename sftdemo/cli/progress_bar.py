"""Progress on stderr: a bar that moves on a terminal, and plain lines in a file, where a bar would be one long line."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from sftdemo import stages
from sftdemo.log import LOG, Reporter
from sftdemo.stages import STAGES, Stage

PARTS = 10  # lines of a stage in a file


class Bar(Reporter):
    """Shows the stages of long work, one after the other."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._shown: tuple[str, int] = ("", 0)  # the stage of the last line, and which part of it

    def stage(self, name: Stage, done: int = 0, total: int = 0) -> None:
        if name in (
            "training",
            "validating",
        ):  # `trained` tells the steps, and their bar stays while losses are measured
            return
        super().stage(name, done, total)
        kind = STAGES[name]
        if done and kind.unit:
            self._show(
                name, str(kind.unit), done // kind.one, total // kind.one, str(stages.sentence(name, done, total))
            )

    def answered(self, rows: int, total: int) -> None:
        self._show("answering", "row", rows, total, f"Answered: {rows} of {total} rows")

    def prefilled(self, prompts: int) -> None:
        if self._bar is not None:
            self._bar.set_postfix({"prompts read": prompts}, refresh=False)
            self._bar.update(0)  # shown where a second has passed

    def trained(self, row: Mapping[str, Any]) -> None:
        figures = {"loss": f"{row['loss']:.3f}", "tok/s": f"{row['tokens_per_s']:.0f}"} if "loss" in row else {}
        step, total = row["step"], row["total"]
        self._show("training", "step", step, total, str(stages.sentence("training", step, total)), figures)

    def _show(
        self, name: str, unit: str, done: int, total: int, line: str, figures: Mapping[str, str] | None = None
    ) -> None:
        if not total:
            return
        if not sys.stderr.isatty():
            self._log(name, PARTS * done // total, line, figures or {})
            return
        from tqdm import tqdm

        if self._bar is None or self._shown[0] != name:
            if self._bar is not None:
                self._bar.close()
            named = str(STAGES[name].name) if name in STAGES else None
            self._bar = tqdm(total=total, unit=unit, desc=named, file=sys.stderr, mininterval=1.0)
        self._shown = (name, done)
        self._bar.set_postfix(figures or {}, refresh=False)
        self._bar.update(done - self._bar.n)
        if done >= total:
            self._bar.close()

    def _log(self, name: str, part: int, line: str, figures: Mapping[str, str]) -> None:
        if part and self._shown != (name, part):
            self._shown = (name, part)
            LOG.info("%s", ", ".join([line, *(f"{key} {value}" for key, value in figures.items())]))
