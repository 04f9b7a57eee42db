"""A student and its teacher in memory: the model that is trained, and the one whose probabilities it learns (Hinton 2015)."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import torch

from sftdemo.config.train import TrainConfig
from sftdemo.inference.merged import adapter_base, merged_model
from sftdemo.model import last_layer, layer_dropping, loading
from sftdemo.runs import Run
from sftdemo.training import loss
from sftdemo.training.loss import Lesson
from sftdemo.training.teacher import teacher_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sftdemo.training.prepare import Prepared


def models(prepared: Prepared) -> tuple[PreTrainedModel, PreTrainedModel]:
    """The student as it begins, and its teacher, which nothing changes."""
    config, planned = prepared.config, prepared.student
    assert planned
    teacher = teacher_of(config)
    dtype = torch.float32 if config.method == "full" else prepared.dtype
    if "layers_kept" not in planned:
        return loading.load_base(prepared.base, dtype, config.quantization), _frozen(teacher, prepared.dtype)
    whole = merged_model(teacher, adapter_base(teacher))
    student = layer_dropping.with_layers(whole, planned["layers_kept"])
    del whole
    gc.collect()
    return student, _frozen(teacher, prepared.dtype)


def _frozen(run: Run, dtype: torch.dtype) -> PreTrainedModel:
    """A run's model as it answers: with quantized weights if it was trained beside such."""
    settings, base = TrainConfig.from_json(run.trained_config()["settings"]), adapter_base(run)
    if base and settings.quantization != "none":
        model = loading.add_adapter(
            loading.load_base(base, dtype, settings.quantization), run.model_path
        ).get_base_model()
    else:
        model = merged_model(run, base).to(dtype)
    return model.eval().requires_grad_(False)  # type: ignore[no-any-return]


class Teacher:
    """Gives the logits of the tokens that a student learns; it is never trained, and no part of the student."""

    def __init__(self, model: PreTrainedModel, config: TrainConfig) -> None:
        self.model, self.ratio, self.temperature = model, config.kd_ratio, config.kd_temperature
        self.last = last_layer.enable(model)
        self.head_alone = loss.head_alone(model)

    @torch.no_grad()
    def lesson(self, inputs: dict[str, Any]) -> Lesson:
        """What it says of a Collator's batch; where the head allows, its logits are made as they are asked for."""
        if self.last:
            self.last.ask(inputs["logits_to_keep"].flatten().nonzero()[:, 0])
        if not self.head_alone:
            logits = self.model(**inputs).logits.flatten(0, -2)
            return Lesson(logits.__getitem__, self.ratio, self.temperature)
        hidden, head = loss.kept_states(self.model, inputs), self.model.get_output_embeddings()
        return Lesson(lambda span: head(hidden[span]), self.ratio, self.temperature)
