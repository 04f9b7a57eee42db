"""Fine-tune chat models on labelled text and see, measured and by blind vote, whether they got better."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sftdemo.config import EvaluateConfig as EvaluateConfig
    from sftdemo.config import GenerateConfig as GenerateConfig
    from sftdemo.config import TrainConfig as TrainConfig
    from sftdemo.data import read as read
    from sftdemo.evaluation.scoring import score as score
    from sftdemo.inference.load_run import load as load
    from sftdemo.log import Reporter as Reporter
    from sftdemo.training.train import train as train
    from sftdemo.ui.report.document import report as report
    from sftdemo.verbs.compare import compare as compare
    from sftdemo.verbs.evaluate import evaluate as evaluate
    from sftdemo.verbs.export import export as export
    from sftdemo.verbs.export_config import ExportConfig as ExportConfig

__version__ = "0.1.0"
_HOMES = {
    "TrainConfig": "config",
    "GenerateConfig": "config",
    "EvaluateConfig": "config",
    "ExportConfig": "verbs.export_config",
    "read": "data",
    "train": "training.train",
    "evaluate": "verbs.evaluate",
    "export": "verbs.export",
    "load": "inference.load_run",
    "compare": "verbs.compare",
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
