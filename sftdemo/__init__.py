"""Fine-tune chat models on labelled text and see, measured and by blind vote, whether they got better."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sftdemo.config.evaluate import EvaluateConfig as EvaluateConfig
    from sftdemo.config.export import ExportConfig as ExportConfig
    from sftdemo.config.generate import GenerateConfig as GenerateConfig
    from sftdemo.config.push import PushConfig as PushConfig
    from sftdemo.config.sweep import SweepConfig as SweepConfig
    from sftdemo.config.train import TrainConfig as TrainConfig
    from sftdemo.data import read as read
    from sftdemo.evaluation.scoring import score as score
    from sftdemo.inference.load_run import load as load
    from sftdemo.log import Reporter as Reporter
    from sftdemo.training.train import train as train
    from sftdemo.ui.report.document import report as report
    from sftdemo.verbs.compare import compare as compare
    from sftdemo.verbs.compress import compress as compress
    from sftdemo.verbs.evaluate import evaluate as evaluate
    from sftdemo.verbs.export import export as export
    from sftdemo.verbs.importing import import_run as import_run
    from sftdemo.verbs.push import push as push
    from sftdemo.verbs.sweep import sweep as sweep

__version__ = "0.1.0"
_HOMES = {
    "TrainConfig": "config.train",
    "GenerateConfig": "config.generate",
    "EvaluateConfig": "config.evaluate",
    "ExportConfig": "config.export",
    "SweepConfig": "config.sweep",
    "PushConfig": "config.push",
    "read": "data",
    "train": "training.train",
    "sweep": "verbs.sweep",
    "evaluate": "verbs.evaluate",
    "export": "verbs.export",
    "push": "verbs.push",
    "import_run": "verbs.importing",
    "load": "inference.load_run",
    "compare": "verbs.compare",
    "compress": "verbs.compress",
    "score": "evaluation.scoring",
    "report": "ui.report.document",
    "Reporter": "log",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    # Loaded at first use: `import sftdemo` brings neither torch nor gradio. A module must not have the name of a
    # function here, or the import system would put the module in the function's place.
    if name not in _HOMES:
        raise AttributeError(f"module 'sftdemo' has no attribute {name!r}")
    return getattr(importlib.import_module(f"sftdemo.{_HOMES[name]}"), name)
