"""Runs that label texts, in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftdemo.log import TO_LOG, Reporter

if TYPE_CHECKING:
    from sftdemo import runs
    from sftdemo.inference.labeller import Labeller


def load(run: runs.Run, reporter: Reporter = TO_LOG) -> Labeller:
    """The run's models, ready to answer. Raises UserError where it has none, or its files aren't sound."""
    from sftdemo.inference import classifier, tagger  # torch, which the page doesn't wait for

    kind = tagger.Tagger if run.kind == "tokens" else classifier.Classifier
    return kind.load(run, reporter)
