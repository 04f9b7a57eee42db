"""Sequence-to-sequence models: which there are, how one is loaded or made of an encoder, and what its config declares."""

from __future__ import annotations

import re
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sftdemo.encoding import encode, source_target, source_target_batch
from sftdemo.encoding.source_target import SourceTarget
from sftdemo.errors import Text, UsageError, UserError
from sftdemo.model import validation

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

    from sftdemo.config.train import TrainConfig

# Their loss has parts beside the cross entropy of the next token (several tokens at once, the balance of experts).
OWN_LOSS = {"prophetnet", "switch_transformers", "nllb-moe"}
WARM_START_SEED = 0  # of the cross-attention that no encoder has, so that base and training begin with the same
# A model's own settings of how long, and how unlike itself, a text has to be are about the texts that it was made for.
KEPT_SETTINGS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id", "bad_words_ids")  # fmt: skip
LANGUAGES_SHOWN = 8
LANGUAGE = re.compile(r"[a-z]{2,3}_[A-Za-z]{2,4}")  # as NLLB's tokens are: deu_Latn


def reason_against(kind: Any) -> Text | None:
    """Why models of a type can't be trained as sequence to sequence; None if they can, by themselves or as a warm start."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING

    config = CONFIG_MAPPING[kind]
    if is_encoder(kind):
        return None
    if config not in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING or not _reads_text(config):
        return Text("which doesn't read a text with an encoder and write one with a decoder")
    return Text("whose loss is of its own kind") if kind in OWN_LOSS else None


def _reads_text(config: Any) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING

    kind = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING[config]
    parameters = signature(kind.forward).parameters
    return kind.main_input_name == "input_ids" and {"encoder_outputs", "decoder_input_ids"} <= set(parameters)


def is_encoder(kind: Any) -> bool:
    """Whether a model of this type is an encoder that can be made both parts of an encoder-decoder."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_MASKED_LM_MAPPING,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    )

    if kind not in CONFIG_MAPPING:
        return False
    config = CONFIG_MAPPING[kind]
    has_decoder = config in MODEL_FOR_CAUSAL_LM_MAPPING and config not in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
    if config not in MODEL_FOR_MASKED_LM_MAPPING or not has_decoder:
        return False
    decoder = MODEL_FOR_CAUSAL_LM_MAPPING[config]
    return "encoder_hidden_states" in signature(decoder.forward).parameters


def read_config(folder: Path) -> dict[str, Any]:
    config = validation.read_json(folder / "config.json", validation.CONFIG_BYTES, str(folder))
    validation.check_config(config, str(folder))
    return config


def is_warm_start(folder: Path) -> bool:
    """Whether the folder holds an encoder alone."""
    return is_encoder(read_config(folder).get("model_type"))


def load(folder: Path, **options: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model in a folder and transformers' account of its loading; an encoder is made the encoder and the decoder of
    one, with cross-attention that has learned nothing yet, the same each time."""
    from transformers import AutoModelForSeq2SeqLM, EncoderDecoderModel
    from transformers.utils import logging

    if not is_warm_start(folder):
        return AutoModelForSeq2SeqLM.from_pretrained(  # type: ignore[no-any-return]
            folder, use_safetensors=True, trust_remote_code=False, output_loading_info=True, **options
        )
    options |= {"use_safetensors": True, "trust_remote_code": False}
    parts = {f"{part}_{name}": value for part in ("encoder", "decoder") for name, value in options.items()}
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it lists what no encoder has, at length
    try:
        with torch.random.fork_rng():
            torch.manual_seed(WARM_START_SEED)
            model = EncoderDecoderModel.from_encoder_decoder_pretrained(folder, folder, **parts)
    finally:
        logging.set_verbosity(verbosity)
    return model, {"missing_keys": []}


def longest(folder: Path) -> tuple[int | None, int | None]:
    """How many tokens the model in a folder has positions for, in source and target; None where its config declares no
    limit, as with T5's, which are relative."""
    from transformers import AutoConfig

    read_config(folder)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False).to_dict()
    sizes: list[int | None] = []
    for part in ("encoder", "decoder"):
        own = config.get(part) if isinstance(config.get(part), dict) else {}
        size = config.get(f"max_{part}_position_embeddings") or {**config, **(own or {})}.get("max_position_embeddings")
        # RoBERTa's kind counts positions from behind its padding's.
        kind = str({**config, **(own or {})}.get("model_type"))
        behind = 2 if re.search("roberta|camembert|data2vec", kind) else 0
        sizes.append(size - behind if isinstance(size, int) and size > 0 else None)
    return sizes[0], sizes[1]


def languages(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The languages that a multilingual model's tokenizer marks texts with; none of one that knows no such marks."""
    if not hasattr(tokenizer, "tgt_lang"):
        return []
    codes: dict[str, int] = getattr(tokenizer, "lang_code_to_id", None) or {}
    return sorted(codes) or sorted(filter(LANGUAGE.fullmatch, tokenizer.all_special_tokens))


def _set_languages(tokenizer: Any, settings: TrainConfig) -> None:
    """Tell the tokenizer of both languages; UsageError where the model needs them, or doesn't know them."""
    known = languages(tokenizer)
    for name, attribute in (("source_language", "src_lang"), ("target_language", "tgt_lang")):
        asked = getattr(settings, name)
        if asked is None and not known:
            continue
        if not known:
            raise UsageError(
                "{name} is {value!r}, and the model's tokenizer marks no languages; leave it out, or name the language in "
                "source_prefix as the model wants it.",
                name=Text(name),
                value=asked,
            )
        if asked is None:
            raise UsageError(
                "The model translates between languages; give {name}, such as {value!r}.",
                name=Text(name),
                value=known[0],
            )
        if asked not in known:
            shown = [*known[:LANGUAGES_SHOWN], "…"] if len(known) > LANGUAGES_SHOWN else known
            raise UsageError(
                "{name} is {value!r}, and the model translates between languages of its own names; give one of: {names}.",
                name=Text(name),
                value=asked,
                names=shown,
            )
        setattr(tokenizer, attribute, asked)


def prepare(tokenizer: PreTrainedTokenizerBase, settings: TrainConfig, folder: Path) -> None:
    """Make the tokenizer encode sources and targets as `settings` and the model in `folder` (its base) want them."""
    from transformers import AutoConfig

    _set_languages(tokenizer, settings)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    warm = is_encoder(config.model_type)
    start = tokenizer.cls_token_id if warm else getattr(config, "decoder_start_token_id", None)
    pairs = SourceTarget(settings.source_prefix or "", start, *longest(folder))
    source_target.attach(tokenizer, pairs)


def plain_generation(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """What decoding with this model needs: its first token, the language's where it has one, what ends a text, and what
    never stands in one; none of its own wishes about lengths and repetitions."""
    from transformers import GenerationConfig

    own, config = model.generation_config, model.config
    kept = {name: getattr(own, name, None) for name in KEPT_SETTINGS}
    kept = {name: getattr(config, name, None) if value is None else value for name, value in kept.items()}
    pairs = source_target.of(tokenizer)
    if kept["decoder_start_token_id"] is None:
        kept["decoder_start_token_id"] = pairs.start if pairs and pairs.start is not None else kept["bos_token_id"]
    kept["pad_token_id"] = tokenizer.pad_token_id if kept["pad_token_id"] is None else kept["pad_token_id"]
    kept["eos_token_id"] = sorted(encode.stop_ids(tokenizer, own))
    if languages(tokenizer) and pairs:
        target = source_target.target_ids(tokenizer, pairs, "a")
        if target[-1] == source_target.end_id(tokenizer):
            kept["forced_bos_token_id"] = target[0]
        else:  # mBART of 25 languages: the language stands last, and the decoder begins with it
            kept["decoder_start_token_id"] = target[-1]
    return GenerationConfig(**kept)


def complete_config(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write into the model's config what it needs to shift targets, where a warm start or an old config lacks it, and leave
    it no more wishes about its answers: `generate` takes from them whatever it isn't told."""
    plain = plain_generation(model, tokenizer)
    model.generation_config = plain
    for name in ("decoder_start_token_id", "pad_token_id"):
        if getattr(model.config, name, None) is None:
            setattr(model.config, name, getattr(plain, name))
    if model.config.pad_token_id is None:
        raise UserError("The model has no padding token, which batches of sources need; choose another model.")


def decoder_inputs(model: PreTrainedModel, targets: torch.Tensor) -> torch.Tensor:
    """[B, T]: what the decoder reads to learn `targets`: the same one place later, as the model itself moves them."""
    if prepare := getattr(model, "prepare_decoder_input_ids_from_labels", None):
        return prepare(targets)  # type: ignore[no-any-return]
    read = targets.new_full(targets.shape, model.config.decoder_start_token_id)
    read[:, 1:] = targets[:, :-1]
    return read.masked_fill(read == source_target_batch.IGNORED, model.config.pad_token_id)
