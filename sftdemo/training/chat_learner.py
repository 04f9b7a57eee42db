"""A chat model as it is trained: with our attention and loss, its rows packed, and LoRA beside its layers."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig

from sftdemo.encoding import encode
from sftdemo.encoding.packing import Collator
from sftdemo.errors import Text
from sftdemo.log import Reporter
from sftdemo.model import loading, selection
from sftdemo.system import malloc
from sftdemo.training import distillation, fused_layers, loss, packed_attention, validation_answers
from sftdemo.training.embedding_noise import EmbeddingNoise
from sftdemo.training.learner import Learner

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sftdemo.config.train import TrainConfig
    from sftdemo.training.prepare import Prepared

WARMED = 0.85  # of what a step's activations will take; the rest of the heap's slack comes with time


def learner(prepared: Prepared, reporter: Reporter) -> Learner:
    """The model in memory, ready to be trained."""
    config = prepared.config
    # Full tuning keeps float32 master weights: small updates of bfloat16 weights get lost in rounding.
    dtype = torch.float32 if config.method == "full" else prepared.dtype
    teacher = None
    adapter = prepared.earlier.run.model_path if prepared.earlier and prepared.earlier.run.has_adapter else None
    if prepared.student:
        model, teacher = distillation.models(prepared)
    else:
        model = loading.load_base(prepared.weights, dtype, config.quantization)
    if adapter and config.method == "full":
        model = loading.merged(model, adapter).requires_grad_(True)
    if model.device.type == "cpu":  # now that what loading took is free again
        malloc.warm_heap(round(WARMED * prepared.memory.activations))
    attention = model.config._attn_implementation
    trained, packed = trainable(model, config, teacher, adapter)
    selection.train_only(model, config, reporter)
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if config.modules_to_save != "none" and head.weight is embeddings.weight:
        reporter.info(Text("The model's embeddings are its head, too (tied weights), and are trained as both."))
    if config.packing and not packed:
        reporter.info("This model keeps its own attention; rows are padded instead of packed.")
    collator = Collator(packed, noisy=config.neftune_alpha > 0)
    stops = sorted(encode.stop_ids(prepared.tokenizer, model.generation_config))
    plain = GenerationConfig(eos_token_id=stops, pad_token_id=stops[0])
    answer = partial(validation_answers.written_answers, model, prepared.tokenizer, attention, plain, config.max_length)
    return Learner(trained, collator, partial(_save, prepared.tokenizer, model.generation_config), answer)


def trainable(
    model: PreTrainedModel, config: TrainConfig, teacher: PreTrainedModel | None = None, adapter: Path | None = None
) -> tuple[Any, bool]:
    """The model with our attention, loss and, for LoRA, its added matrices, or the `adapter` that goes on; and whether its
    rows are packed, else padded."""
    packed = config.packing and packed_attention.enable_all(*filter(None, (teacher, model)))
    teach = distillation.Teacher(teacher, config).lesson if teacher else None
    noise = EmbeddingNoise(config.neftune_alpha) if config.neftune_alpha else None
    loss.enable(model, config.label_smoothing, noise, teach)
    trained: Any = model
    if config.method == "lora":
        trained = loading.add_adapter(model, adapter, learns=config) if adapter else loading.add_lora(model, config)
        fused_layers.fuse(trained)
    if noise:
        noise.begin(model.get_input_embeddings())
    return trained, packed


def _save(tokenizer: Any, generation_config: Any, folder: Path) -> None:
    """The tokenizer with its template, and the tokens that end an answer."""
    tokenizer.save_pretrained(folder)
    generation_config.eos_token_id = sorted(encode.stop_ids(tokenizer, generation_config))
    generation_config.save_pretrained(folder)
