"""Loading a tokenizer and a base model, plain or quantized, and adding LoRA to it."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sftdemo.config.train import TrainConfig
from sftdemo.encoding.chat_template import set_thinking
from sftdemo.errors import Text, UserError
from sftdemo.log import TO_LOG, Reporter
from sftdemo.model import download, saved_modules, seq2seq, validation
from sftdemo.model.lora_targets import targets
from sftdemo.system import resources
from sftdemo.system.compute import device

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Where AVX512-BF16 is, it tells at every import that it found no kernels from the Hub for 4 bits.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
# PEFT asks transformers by an old name; nothing the user could do.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")


def load_base(path: Path, dtype: torch.dtype, quantization: str = "none", task: str = "chat") -> PreTrainedModel:
    """The model of a `task` from a folder with safetensors, its linear layers in 8 or 4 bits if asked."""
    from transformers import BitsAndBytesConfig

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
    load = seq2seq.load if task == "seq2seq" else None
    model, info = load_checked(path, _class_of(path, task), dtype, load, **options)
    if missing := sorted(info["missing_keys"]):
        raise UserError(
            "The weights in {path} lack {n} tensors that its config.json asks for, such as {name}; fetch the model again.",
            path=path,
            n=len(missing),
            name=missing[0],
        )
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


def load_checked(
    path: Path, kind: Any, dtype: torch.dtype, load: Callable[..., Any] | None = None, **options: Any
) -> tuple[Any, dict[str, Any]]:
    """A model of one of transformers' auto classes from a folder with sound safetensors, and transformers' account of its
    loading; `load` does it, where that isn't from_pretrained."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # progress is told by us, in one line
    if load is None:
        load = partial(kind.from_pretrained, use_safetensors=True, trust_remote_code=False, output_loading_info=True)
    validation.check_weights(path)
    try:
        _check_size(path, kind, dtype)
        return load(path, dtype=dtype, **options)  # type: ignore[no-any-return]
    except UserError:
        raise
    except Exception as error:  # what the files of a stranger do to a library can't be told beforehand
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError("The model in {path} can't be loaded: {reason}", path=path, reason=reason) from error


def _class_of(path: Path, task: str) -> Any:
    """The auto class of a task's models."""
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    if task != "seq2seq":
        return AutoModelForCausalLM
    config = validation.read_json(path / "config.json", validation.CONFIG_BYTES, str(path))
    return AutoModel if seq2seq.is_encoder(config.get("model_type")) else AutoModelForSeq2SeqLM


def _check_size(path: Path, kind: Any, dtype: torch.dtype) -> None:
    """Refuse a config that asks for more than the memory holds, whatever the weights have; nothing is allocated."""
    from transformers import AutoConfig

    validation.check_config(validation.read_json(path / "config.json", validation.CONFIG_BYTES, str(path)), str(path))
    config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    with torch.device("meta"):
        model = kind.from_config(config, trust_remote_code=False)
    needed = dtype.itemsize * sum(parameter.numel() for parameter in model.parameters())
    stored = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    if needed > max(resources.free(), 16 * stored):
        raise UserError(
            "The config.json of {path} describes a model of {count} MB, which isn't in its weights; choose another model.",
            path=path,
            count=needed // 10**6,
        )


def add_adapter(model: Any, folder: Path, name: str = "default", learns: TrainConfig | None = None) -> Any:
    """The model with a run's adapter; the first one wraps it, and is trained further where it `learns`."""
    from peft import PeftConfig, PeftModel

    validation.check_adapter(folder)
    if isinstance(model, PeftModel):
        model.load_adapter(str(folder), adapter_name=name)
        return model
    options: dict[str, Any] = {}
    if learns:
        spec = PeftConfig.from_pretrained(str(folder), trust_remote_code=False)
        spec.lora_dropout = learns.lora_dropout
        options = {"config": spec, "is_trainable": True}
    adapted = PeftModel.from_pretrained(model, str(folder), adapter_name=name, trust_remote_code=False, **options)
    if learns and saved_modules.are_in(folder):
        saved_modules.learn_in_float32(adapted)
        adapted.load_adapter(str(folder), adapter_name=name, is_trainable=True)  # once more, now unrounded
    return adapted


def add_lora(model: PreTrainedModel, config: TrainConfig) -> Any:
    """Wrap the model so that only rank-r matrices beside its linear layers are trained, in float32, and whole modules if
    asked."""
    from peft import LoraConfig, get_peft_model

    chosen = targets(model, config)
    saved, tied = saved_modules.chosen(model, config)
    spec = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        use_rslora=config.rslora,
        use_dora=config.dora,
        init_lora_weights="pissa_niter_4" if config.pissa else True,
        target_modules=chosen,
        modules_to_save=saved or None,
        ensure_weight_tying=tied,
        task_type="SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM",
    )
    adapted = get_peft_model(model, spec)
    saved_modules.learn_in_float32(adapted)
    return adapted


def merged(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model with what an adapter adds merged into its own weights, in their type."""
    return add_adapter(model, folder).merge_and_unload()  # type: ignore[no-any-return]


def weights_bytes(path: Path) -> int:
    """The size of the safetensors in a folder."""
    return sum(file.stat().st_size for file in path.glob("*.safetensors"))


def tokenizer(model: str | Path, reporter: Reporter = TO_LOG, thinking: str = "auto") -> PreTrainedTokenizerBase:
    """The tokenizer of a model id or folder, with its chat template, which writes prompts with thoughts or without."""
    path = model if isinstance(model, Path) else download.find(model, reporter)[0]
    validation.check_tokenizer(path)
    try:
        if _is_generic(path):  # AutoTokenizer reads the model's config first, which imports torch and seconds of models
            from transformers import PreTrainedTokenizerFast

            loaded = PreTrainedTokenizerFast.from_pretrained(path, trust_remote_code=False)
        else:
            from transformers import AutoTokenizer

            loaded = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        loaded("a")  # some damage is met by its use alone
    except BaseException as error:  # tokenizers raises plain Exceptions, and panics that are none
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, LookupError | TypeError | AttributeError):  # transformers, of what it didn't expect
            reason = Text("its files hold other values than a tokenizer's")
        raise UserError("The tokenizer in {path} can't be read: {reason}", path=path, reason=reason) from error
    set_thinking(loaded, thinking)
    return loaded  # type: ignore[no-any-return]


def tokenizer_for(settings: TrainConfig, base: Path, folder: Path | None = None) -> PreTrainedTokenizerBase:
    """The base's tokenizer, or a run's own in `folder`, which encodes as the settings' task wants it."""
    loaded = tokenizer(folder, thinking="auto") if folder else tokenizer(base, thinking=settings.thinking)
    if settings.task == "seq2seq":
        seq2seq.prepare(loaded, settings, base)
    return loaded


def _is_generic(folder: Path) -> bool:
    """Whether transformers 5 saved it as what its tokenizer.json says, without a class of its own."""
    config, whole = folder / "tokenizer_config.json", folder / "tokenizer.json"
    return (
        config.is_file()
        and whole.is_file()
        and json.loads(config.read_text("utf-8")).get("tokenizer_class") == "TokenizersBackend"
    )
