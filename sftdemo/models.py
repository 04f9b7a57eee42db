"""Choosing arithmetic, loading a base model plain or quantized, adding LoRA, and loading a run to talk to."""

from __future__ import annotations

import logging
import math
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sftdemo import hub, memory, runs
from sftdemo.config import TrainConfig
from sftdemo.errors import UserError
from sftdemo.generate import Pair, Side
from sftdemo.lora import by_row

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# PEFT asks transformers by an old name; nothing the user could do.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")


def device() -> torch.device:
    """The accelerator if there is one, else the CPU."""
    return torch.accelerator.current_accelerator() or torch.device("cpu")  # type: ignore[return-value]


def has_bfloat16_units() -> bool:
    """Whether bfloat16 products run in hardware; without units they are a hundred times slower than float32."""
    if device().type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device().type == "cpu":
        found = torch.cpu.get_capabilities()
        return bool(found.get("amx_bf16") or found.get("avx512_bf16"))
    return False


def training_precision(asked: str) -> tuple[torch.dtype, str]:
    """The arithmetic for training and the reason in words."""
    if asked == "auto":
        if has_bfloat16_units():
            return torch.bfloat16, "bfloat16: the processor has units for it"
        return torch.float32, "float32: the processor has no bfloat16 units"
    return getattr(torch, asked), f"{asked}: as asked"


def answering_precision() -> torch.dtype:
    """On a CPU a single token is bound by vector products, where float32 is as fast as bfloat16 and exact."""
    return torch.bfloat16 if device().type == "cuda" and has_bfloat16_units() else torch.float32


def tokenizer(model: str | Path, report: hub.Report = hub.silent) -> PreTrainedTokenizerBase:
    """The tokenizer of a model id or folder, with its chat template."""
    from transformers import AutoTokenizer

    path = model if isinstance(model, Path) else hub.find(model, report)[0]
    try:
        return AutoTokenizer.from_pretrained(path)  # type: ignore[no-any-return]
    except (OSError, ValueError) as error:
        raise UserError(f"The tokenizer in {path} can't be read: {str(error).splitlines()[0]}") from error


def load_base(path: Path, dtype: torch.dtype, quantization: str = "none") -> PreTrainedModel:
    """A causal language model from a folder with safetensors, its linear layers in 8 or 4 bits if asked."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # progress is told by us, in one line
    options: dict[str, Any] = {}
    if quantization == "int8":
        # Outliers kept in floating point help models of several billion weights; on a CPU they double the time of a step.
        outliers = 0.0 if device().type == "cpu" else 6.0
        options["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=outliers)
        # It says at every layer that it casts what it multiplies in 8 bits.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    elif quantization == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    if options:
        options["device_map"] = {"": device()}
    try:
        model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, use_safetensors=True, **options)
    except (OSError, ValueError) as error:
        raise UserError(f"The model in {path} can't be loaded: {str(error).splitlines()[0]}") from error
    if not options:
        return model.to(device())  # type: ignore[no-any-return]
    for parameter in model.parameters():
        # What isn't quantized is mapped from the file, and would hold the whole of it.
        if parameter.is_floating_point() and parameter.device.type == "cpu":
            parameter.data = parameter.data.clone()
    return model  # type: ignore[no-any-return]


def add_lora(model: PreTrainedModel, config: TrainConfig) -> Any:
    """Wrap the model so that only rank-r matrices beside its linear layers are trained, in float32."""
    from peft import LoraConfig, get_peft_model

    spec = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, spec)


def weights_bytes(path: Path) -> int:
    """The size of the safetensors in a folder."""
    return sum(file.stat().st_size for file in path.glob("*.safetensors"))


def load(run: str | runs.Run, report: hub.Report = hub.silent) -> Pair:
    """The base and the tuned model of a run, ready to answer side by side.

    A LoRA run keeps one copy of the weights; a run with full weights needs two, and memory is checked first.
    """
    run = runs.find(run) if isinstance(run, str) else run
    if not run.model_path.is_dir():
        status = run.status()
        raise UserError(f"Run {run.name} has no model to talk to ({status['state']}); finish a training first.")
    from transformers import GenerationConfig

    config = run.config()
    settings = TrainConfig.from_json(config["settings"])
    base_path = Path(config["base_model"])
    if not (base_path / "config.json").is_file():
        base_path, _ = hub.find(settings.model, report)
    report("Loading the model …")
    words = tokenizer(run.model_path)
    stops = GenerationConfig.from_pretrained(run.model_path)
    dtype = answering_precision()
    # An adapter stands beside one copy of the weights, a run with full weights beside another.
    copies = [base_path] if settings.method == "lora" else [base_path, run.model_path]
    memory.check_loading(copies, dtype.itemsize, settings.quantization)
    if settings.method == "lora":
        from peft import PeftModel

        peft_model = PeftModel.from_pretrained(load_base(base_path, dtype, settings.quantization), str(run.model_path))
        rows = by_row(peft_model, dtype)
        sides = [Side(peft_model.get_base_model().eval(), ("base", "tuned"), rows)]
    else:
        sides = [
            Side(load_base(base_path, dtype).eval(), ("base",)),
            Side(load_base(run.model_path, dtype).eval(), ("tuned",)),
        ]
    return Pair(words, sides, stops, name=run.name)


def check_disk(folder: Path, needed: int, what: str) -> None:
    """Refuse before anything is written when the disk can't hold it."""
    while not folder.exists():
        folder = folder.parent
    if (free := shutil.disk_usage(folder).free) < needed:
        raise UserError(
            f"{what} needs about {math.ceil(needed / 10**6)} MB under {folder}, and {free // 10**6} MB are free; make room, "
            "or set SFTDEMO_HOME to a larger disk."
        )
