"""Choosing arithmetic, loading a base model plain or quantized, adding LoRA, and loading a run to talk to."""

from __future__ import annotations

import logging
import math
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sftdemo import grouped, hub, last_layer, machine, memory, runs
from sftdemo.batch import Side
from sftdemo.config import TrainConfig
from sftdemo.encoding import tokenizer
from sftdemo.errors import UserError
from sftdemo.generate import Pair
from sftdemo.log import to_log
from sftdemo.lora import Rows, by_row, stack, store_by_input, targets

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LEAST_GAIN = 1.2  # bfloat16 is taken where its products are that much faster, since float32 is exact
TRIALS = 20  # of a product, before its shortest time is believed
MOST_RUNS = 3  # that answer beside their base in one batch

# Where AVX512-BF16 is, it tells at every import that it found no kernels from the Hub for 4 bits.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
# PEFT asks transformers by an old name; nothing the user could do.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")


def device() -> torch.device:
    """The accelerator if there is one, else the CPU."""
    # A build for GPUs names one whether there is one or not.
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def set_threads(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Let torch start no more threads than this process may run at once; OMP_NUM_THREADS overrules. Returns how many.

    torch counts the host's cores, and in a container with a quota threads beyond it wait for each other at every product.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(min(torch.get_num_threads(), allowed, _quota(cgroup) or allowed))
    return torch.get_num_threads()


def _quota(cgroup: Path) -> int | None:
    """The cores a container may use, rounded up; None without a limit. cgroup v2 has one file, v1 two."""
    for names in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        try:
            quota, period = " ".join((cgroup / name).read_text() for name in names).split()
        except (OSError, ValueError):
            continue
        if quota not in ("max", "-1"):
            return math.ceil(int(quota) / int(period))
    return None


def has_bfloat16_units() -> bool:
    """Whether bfloat16 products run in hardware; without units they are a hundred times slower than float32."""
    if device().type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device().type == "cpu":
        found = torch.cpu.get_capabilities()
        return bool(found.get("amx_bf16") or found.get("avx512_bf16"))
    return False


@cache
def bfloat16_pays() -> bool:
    """Whether training is faster in bfloat16 here. Units alone don't say: AVX512-BF16 is twice as fast as float32 on some
    processors and half as fast on others (178 against 341 GFLOP/s on a Xeon without AMX), so products of a layer are timed.
    """
    if not has_bfloat16_units():
        return False
    if device().type != "cpu":
        return True
    taken = _product_seconds()
    return LEAST_GAIN * taken["bfloat16"] < taken["float32"]


def _product_seconds() -> dict[str, float]:
    """What a product of a training step takes at best, by precision."""

    def product(dtype: torch.dtype) -> Callable[[], object]:
        x, weight = torch.ones(512, 576, dtype=dtype), torch.ones(1536, 576, dtype=dtype)
        return lambda: torch.nn.functional.linear(x, weight)

    return machine.shortest({"bfloat16": product(torch.bfloat16), "float32": product(torch.float32)}, TRIALS)


def training_precision(asked: str) -> tuple[torch.dtype, str]:
    """The arithmetic for training and the reason in words."""
    if asked != "auto":
        return getattr(torch, asked), f"{asked}: as asked"
    if bfloat16_pays():
        return torch.bfloat16, "bfloat16: the processor is faster in it"
    lack = "is faster in it than in bfloat16" if has_bfloat16_units() else "has no bfloat16 units"
    return torch.float32, f"float32: the processor {lack}"


def answering_precision() -> torch.dtype:
    """On a CPU a single token is bound by vector products, where float32 is as fast as bfloat16 and exact."""
    return torch.bfloat16 if device().type == "cuda" and has_bfloat16_units() else torch.float32


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
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # It would lay 4-bit weights out anew at the first look without gradients, and training then reads them wrongly.
            module.support_avx512bf16_for_cpu = False
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
        target_modules=targets(model),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, spec)


def weights_bytes(path: Path) -> int:
    """The size of the safetensors in a folder."""
    return sum(file.stat().st_size for file in path.glob("*.safetensors"))


def load(run: str | runs.Run | Sequence[str | runs.Run], report: hub.Report = to_log) -> Pair:
    """The base and the tuned model of a run, ready to answer side by side; or a base and up to three runs of it.

    The sides are "base" and "tuned", or "base" and the runs' names. LoRA runs share one copy of the weights; a run with
    full weights needs two, and memory is checked first.
    """
    set_threads()
    machine.keep_freed_memory()
    asked = [run] if isinstance(run, str | runs.Run) else list(run)
    chosen = [runs.find(each) if isinstance(each, str) else each for each in asked]
    for each in chosen:
        if not each.model_path.is_dir():
            raise UserError(
                f"Run {each.name} has no model to talk to ({each.status()['state']}); finish a training first."
            )
    from transformers import GenerationConfig

    names = ["tuned"] if len(chosen) == 1 else [each.name for each in chosen]
    settings = [TrainConfig.from_json(each.config()["settings"]) for each in chosen]
    _check_together(chosen, settings)
    first = chosen[0]
    base_path = Path(first.config()["base_model"])
    if not (base_path / "config.json").is_file():
        base_path, _ = hub.find(settings[0].model, report)
    report("Loading the model …")
    dtype = answering_precision()
    # Adapters stand beside one copy of the weights, a run with full weights beside another.
    copies = [base_path] if settings[0].method == "lora" else [base_path, first.model_path]
    memory.check_loading(copies, dtype.itemsize, settings[0].quantization)
    if settings[0].method == "lora":
        model, rows = _with_adapters(base_path, chosen, dtype, settings[0].quantization)
        sides = [answering(model, ("base", *names), rows)]
    else:
        paths = {"base": base_path, "tuned": first.model_path}
        sides = [answering(load_base(path, dtype), (name,)) for name, path in paths.items()]
    stops = GenerationConfig.from_pretrained(first.model_path)
    return Pair(tokenizer(first.model_path), sides, stops, name=" ".join(each.name for each in chosen))


def answering(model: PreTrainedModel, names: tuple[str, ...], rows: Rows | None = None) -> Side:
    """A loaded model under these names, made fast at answering; with adapters by row under one for each and the base's."""
    model.eval()
    grouped.group(model)
    if rows:
        stack(model)
    _open_gates_in_place(model)
    if device().type == "cpu":
        store_by_input(model)
    return Side(model, names, rows, last_layer.enable(model, rows))


def _open_gates_in_place(model: PreTrainedModel) -> None:
    """Let SiLU write over what gate_proj gave, which nobody else reads."""
    from transformers.activations import SiLUActivation

    for module in model.modules():
        if hasattr(module, "gate_proj") and isinstance(getattr(module, "act_fn", None), SiLUActivation):
            module.act_fn = torch.nn.SiLU(inplace=True)


def _with_adapters(
    path: Path, chosen: list[runs.Run], dtype: torch.dtype, quantization: str
) -> tuple[PreTrainedModel, Rows]:
    from peft import PeftModel

    model = PeftModel.from_pretrained(load_base(path, dtype, quantization), str(chosen[0].model_path), adapter_name="0")
    for number, run in enumerate(chosen[1:], 1):
        model.load_adapter(str(run.model_path), adapter_name=str(number))
    rows = by_row(model, [str(number) for number in range(len(chosen))], dtype)
    return model.get_base_model(), rows


def _check_together(chosen: list[runs.Run], settings: list[TrainConfig]) -> None:
    """Several runs answer in one batch if they are different LoRA runs of one base."""
    if len(chosen) == 1:
        return
    if len(chosen) > MOST_RUNS or len({run.name for run in chosen}) < len(chosen):
        names = ", ".join(run.name for run in chosen)
        raise UserError(f"{names}: give at most {MOST_RUNS} runs, each once.")
    for run, each in zip(chosen, settings, strict=True):
        if each.method != "lora":
            raise UserError(f"Run {run.name} has full weights; only LoRA runs answer together, talk to it alone.")
        if not runs.same_base(chosen[0], run):
            raise UserError(f"Runs {chosen[0].name} and {run.name} have different bases; talk to them one at a time.")


def check_disk(folder: Path, needed: int, what: str) -> None:
    """Refuse before anything is written when the disk can't hold it."""
    while not folder.exists():
        folder = folder.parent
    if (free := shutil.disk_usage(folder).free) < needed:
        raise UserError(
            f"{what} needs about {math.ceil(needed / 10**6)} MB under {folder}, and {free // 10**6} MB are free; make room, "
            "or set SFTDEMO_HOME to a larger disk."
        )
