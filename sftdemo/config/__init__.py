"""Every setting, declared once: its default, help, bounds and choices give the flag, the form, the docs and the JSON."""

from sftdemo.config.evaluate import EvaluateConfig as EvaluateConfig
from sftdemo.config.generate import GenerateConfig as GenerateConfig
from sftdemo.config.train import TrainConfig as TrainConfig
