"""Tiny models of many families, built in the process: the layers, windows and caps of the real ones, random weights."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

WINDOW = 64  # tokens that a layer with a sliding window sees
STD = 0.2  # of weights: with inputs of width 64 the attention is peaked, so that a window or a mask matters
CAP = 5.0  # of soft-capped scores and logits; the real ones are 30 to 50, which such scores hardly reach

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
ALTERNATING = ["sliding_attention", "full_attention"] * 2
MOSTLY_SLIDING = ["sliding_attention"] * 3 + ["full_attention"]
VISION = {"hidden_size": 32, "intermediate_size": 64}
# Models that see, too: the model type of the part that reads and writes text.
TEXT = {"gemma3": "gemma3_text", "qwen3_5": "qwen3_5_text"}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 32, "mamba_d_state": 16, "mamba_chunk_size": 16, "mamba_n_groups": 1}

# By the family's name: transformers' model type, and what differs from SIZES. None leaves a size out.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("llama", {"tie_word_embeddings": True}),
    "Mistral": ("mistral", {"sliding_window": WINDOW}),
    "Mistral without a window": ("mistral", {"sliding_window": None}),
    "Ministral": ("ministral", {"head_dim": 16, "sliding_window": WINDOW, "layer_types": MOSTLY_SLIDING}),
    "Qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "Qwen2 with a window": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2},
    ),
    "Qwen3": ("qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
    "Qwen3-MoE": ("qwen3_moe", {"head_dim": 32, **EXPERTS}),
    "Qwen3-Next": (
        "qwen3_next",
        {"head_dim": 32, **EXPERTS, "shared_expert_intermediate_size": 32, "linear_key_head_dim": 16,
         "linear_value_head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 4},
    ),
    "Qwen3.5": (
        "qwen3_5_text",
        {"head_dim": 32, "linear_key_head_dim": 16, "linear_value_head_dim": 16, "linear_num_key_heads": 2,
         "linear_num_value_heads": 4, "tie_word_embeddings": True},
    ),
    "Qwen3.5 with vision": (
        "qwen3_5",
        {"head_dim": 32, "linear_key_head_dim": 16, "linear_value_head_dim": 16, "linear_num_key_heads": 2,
         "linear_num_value_heads": 4,
         "vision_config": {**VISION, "depth": 1, "num_heads": 2, "out_hidden_size": 64}},
    ),
    "Gemma": ("gemma", {"head_dim": 32, "num_key_value_heads": 1}),
    "Gemma 2": (
        "gemma2",
        {"head_dim": 32, "sliding_window": WINDOW, "attn_logit_softcapping": CAP, "final_logit_softcapping": CAP,
         "query_pre_attn_scalar": 32},
    ),
    "Gemma 3": (
        "gemma3_text",
        {"head_dim": 32, "sliding_window": WINDOW, "layer_types": MOSTLY_SLIDING, "query_pre_attn_scalar": 32},
    ),
    "Gemma 3 with vision": (
        "gemma3",
        {"head_dim": 32, "sliding_window": WINDOW, "layer_types": MOSTLY_SLIDING, "query_pre_attn_scalar": 32,
         "vision_config": {**VISION, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
                           "patch_size": 14}},
    ),
    "Gemma 4": (
        "gemma4_text",
        {"head_dim": 16, "global_head_dim": 32, "sliding_window": WINDOW, "layer_types": ALTERNATING,
         "num_kv_shared_layers": 2, "hidden_size_per_layer_input": 8, "final_logit_softcapping": CAP},
    ),
    "Gemma 4 with experts": (
        "gemma4_text",
        {"head_dim": 16, "global_head_dim": 32, "sliding_window": WINDOW, "layer_types": MOSTLY_SLIDING,
         "hidden_size_per_layer_input": 0, "final_logit_softcapping": CAP, "enable_moe_block": True, "num_experts": 4,
         "top_k_experts": 2, "moe_intermediate_size": 32, "attention_k_eq_v": True, "num_global_key_value_heads": 1},
    ),
    "Phi-3": ("phi3", {"sliding_window": WINDOW}),
    "Phi-4": ("phi3", {"sliding_window": None, "partial_rotary_factor": 0.75}),
    "SmolLM3": ("smollm3", {"no_rope_layer_interval": 4, "tie_word_embeddings": True}),
    "OLMo 2": ("olmo2", {}),
    "OLMo 3": ("olmo3", {"sliding_window": WINDOW, "layer_types": MOSTLY_SLIDING}),
    "OLMoE": ("olmoe", {"num_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 32}),
    "Granite 3": (
        "granite",
        {"embedding_multiplier": 2.0, "logits_scaling": 2.0, "residual_multiplier": 0.5, "attention_multiplier": 0.2,
         "tie_word_embeddings": True},
    ),
    "Granite 4 hybrid": (
        "granitemoehybrid",
        {**MAMBA, "layer_types": ["linear_attention", "full_attention"] * 2, "num_local_experts": 4,
         "num_experts_per_tok": 2, "intermediate_size": 32, "shared_intermediate_size": 64, "embedding_multiplier": 2.0,
         "logits_scaling": 2.0, "residual_multiplier": 0.5, "attention_multiplier": 0.2, "tie_word_embeddings": True},
    ),
    "Granite 4 dense hybrid": (
        "granitemoehybrid",
        {**MAMBA, "layer_types": ["linear_attention", "linear_attention", "full_attention", "linear_attention"],
         "num_local_experts": 0, "shared_intermediate_size": 64, "tie_word_embeddings": True},
    ),
    "LFM2": ("lfm2", {"layer_types": ["conv", "full_attention"] * 2, "block_auto_adjust_ff_dim": False}),
    "LFM3": (
        "lfm3",
        {"head_dim": 16, "sliding_window": WINDOW,
         "layer_types": ["conv", "sliding_attention", "conv", "full_attention"]},
    ),
    "Falcon-H1": ("falcon_h1", {**MAMBA, "mamba_d_ssm": 128, "head_dim": 16, "num_hidden_layers": 2}),
    "Mamba": (
        "mamba",
        {"state_size": 16, "num_hidden_layers": 2, "intermediate_size": None, "num_attention_heads": None,
         "num_key_value_heads": None, "max_position_embeddings": None},
    ),
    "Mamba 2": (
        "mamba2",
        {"state_size": 16, "num_heads": 4, "head_dim": 32, "n_groups": 1, "chunk_size": 16, "num_hidden_layers": 2,
         "intermediate_size": None, "num_attention_heads": None, "num_key_value_heads": None,
         "max_position_embeddings": None},
    ),
    "Nemotron": ("nemotron", {"hidden_act": "relu2", "partial_rotary_factor": 0.5}),
    "Nemotron-H": (
        "nemotron_h",
        {"layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"], "head_dim": 16,
         "ssm_state_size": 16, "mamba_num_heads": 4, "mamba_head_dim": 32, "n_groups": 1, "chunk_size": 16,
         "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
         "moe_shared_expert_intermediate_size": 32, "num_hidden_layers": None},
    ),
    "GPT-OSS": (
        "gpt_oss",
        {"head_dim": 16, "sliding_window": WINDOW, "layer_types": ALTERNATING, "num_local_experts": 4,
         "num_experts_per_tok": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 150000.0}},
    ),
    "DeepSeek V3": (
        "deepseek_v3",
        {"num_key_value_heads": 4, "moe_intermediate_size": 32, "n_routed_experts": 4, "num_experts_per_tok": 2,
         "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1, "kv_lora_rank": 16, "q_lora_rank": 32,
         "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16, "num_mtp_layers": 0},
    ),
    "GLM-4": ("glm4", {"head_dim": 16, "partial_rotary_factor": 0.5}),
    "GLM-4 MoE": (
        "glm4_moe",
        {"head_dim": 16, "moe_intermediate_size": 32, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1,
         "topk_group": 1, "first_k_dense_replace": 1, "use_qk_norm": True},
    ),
    "Cohere 2": ("cohere2", {"sliding_window": WINDOW, "layer_types": MOSTLY_SLIDING, "logit_scale": 0.5}),
    "EXAONE 4": ("exaone4", {"sliding_window": WINDOW, "sliding_window_pattern": 4}),
    "EXAONE 4 without a window": ("exaone4", {"sliding_window": None, "layer_types": ["full_attention"] * 4}),
    "ERNIE 4.5": ("ernie4_5", {"head_dim": 16, "tie_word_embeddings": True}),
    "Hunyuan": ("hunyuan_v1_dense", {"head_dim": 16}),
    "StableLM": ("stablelm", {"partial_rotary_factor": 0.25}),
    "Llama 4": (
        "llama4_text",
        {"head_dim": 16, "attention_chunk_size": WINDOW, "layer_types": ["chunked_attention"] * 3 + ["full_attention"],
         "no_rope_layers": [1, 1, 1, 0], "num_local_experts": 4, "num_experts_per_tok": 1, "intermediate_size_mlp": 64,
         "intermediate_size": 32, "interleave_moe_layer_step": 2},
    ),
    "GPT-2": ("gpt2", {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}),
    "GPT-Neo": (
        "gpt_neo",
        {"attention_types": [[["global", "local"], 2]], "window_size": WINDOW, "num_layers": 4, "num_heads": 4},
    ),
    "GPT-NeoX": ("gpt_neox", {"num_key_value_heads": None}),
    "Bloom": ("bloom", {"num_key_value_heads": None, "max_position_embeddings": None}),
    "Falcon with ALiBi": ("falcon", {"alibi": True, "num_key_value_heads": None, "multi_query": False}),
    "Falcon": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2, "num_key_value_heads": None}),
    "MPT": (
        "mpt",
        {"max_position_embeddings": None, "max_seq_len": 512, "num_key_value_heads": None, "intermediate_size": None},
    ),
}  # fmt: skip


def build(name: str, vocabulary: int = 400, **changes: Any) -> tuple[PreTrainedConfig, PreTrainedModel]:
    """A family's tiny model, the same at every call; `changes` are made to its config."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    kind, own = FAMILIES[name]
    values = {**SIZES, "vocab_size": vocabulary, **own, **changes}
    if kind.startswith("gemma4"):
        values["vocab_size_per_layer_input"] = vocabulary
    # Copied, since some configs change their lists.
    given = {key: value for key, value in deepcopy(values).items() if value is not None or key == "sliding_window"}
    torch.manual_seed(0)
    if kind in TEXT:
        vision = given.pop("vision_config")
        config = AutoConfig.for_model(kind, text_config={"model_type": TEXT[kind], **given}, vision_config=vision)
        model = AutoModelForImageTextToText.from_config(config).eval()
        torch.manual_seed(5)
    else:
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **given)).eval()
    _draw(model)
    return model.config, model


@torch.no_grad()
def _draw(model: PreTrainedModel) -> None:
    """Weights large enough for peaked attention. What decides a state's decay keeps the values it begins with."""
    for name, parameter in model.named_parameters():
        leaf = name.rpartition(".")[2]
        if leaf in ("A_log", "D", "dt_bias"):
            continue
        if "sinks" in leaf:
            parameter.normal_(0, 1)
        elif parameter.dim() > 1:
            parameter.normal_(0, STD)
            if model.config.model_type.startswith("gemma") and "embed_tokens.weight" in name:
                parameter.mul_(0.2)  # Gemma multiplies embeddings by 8, and each token would be followed by itself
        elif "norm" in name or "ln_" in name:
            # Queries and keys that are normed need more than 1 for peaked scores.
            factor = (
                1.6 if any(part in name for part in ("q_norm", "k_norm", "query_layernorm", "key_layernorm")) else 1
            )
            parameter.mul_(factor).add_(0.1 * torch.randn_like(parameter))
        else:
            parameter.normal_(0, 0.1)
