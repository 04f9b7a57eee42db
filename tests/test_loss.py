"""The loss is the same whether its logits come whole or in chunks, in models that scale or cap them too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import on

from sftdemo.config import TrainConfig
from sftdemo.model import last_layer
from sftdemo.model.loading import add_lora, load_base
from sftdemo.training import fused_layers, loss

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12]])
KEEP = torch.tensor([[False, True, True, False, True, True, True, False]])
LABELS = torch.tensor([7, 8, 10, 11, 12])
WEIGHTS = torch.tensor([1.0, 1.0, 0.5, 2.0, 0.0])


def small(architecture: str):
    """An untrained model of a family that does something to its logits, or doesn't."""
    import transformers

    settings = {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    } | {"Granite": {"logits_scaling": 4.0}}.get(architecture, {})  # fmt: skip
    torch.manual_seed(0)
    config = getattr(transformers, f"{architecture}Config")(**settings)
    name = "GPT2LMHeadModel" if architecture == "GPT2" else f"{architecture}ForCausalLM"
    return getattr(transformers, name)(config)


def ask(model, weights=None):
    model.zero_grad()
    given = {"input_ids": IDS, "logits_to_keep": KEEP, "labels": LABELS}
    total = model(**on(model, given | ({} if weights is None else {"weights": weights})))
    total.backward()
    return total.detach(), [parameter.grad for parameter in model.parameters() if parameter.requires_grad]


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_chunks_give_the_whole_loss_and_its_gradients(tiny, monkeypatch, method, weights):
    """Tied embeddings: with full weights the head's gradient from all chunks meets the embeddings'."""
    torch.manual_seed(0)
    model = load_base(Path(tiny), torch.float32)
    assert loss.enable(model)
    if method == "lora":
        model = add_lora(model, TrainConfig())
        fused_layers.fuse(model)
    scale = torch.ones(len(LABELS)) if weights is None else weights
    logits = model(input_ids=IDS.to(model.device)).logits[KEEP.to(model.device)].float()
    each = torch.nn.functional.cross_entropy(logits, LABELS.to(model.device), reduction="none")
    whole = (each * scale.to(model.device)).sum()
    whole.backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.requires_grad]
    widest = []
    linear = torch.nn.functional.linear

    def watched(x, weight, bias=None):
        if len(weight) == logits.shape[-1]:
            widest.append(len(x))
        return linear(x, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    for rows, parts in ((len(LABELS), [5]), (2, [2, 2, 1])):
        monkeypatch.setattr(loss, "LOGIT_FLOATS", rows * logits.shape[-1])
        widest.clear()
        chunked, chunked_gradients = ask(model, weights)
        assert widest == parts, "never more rows of logits at once, and none twice"
        torch.testing.assert_close(chunked, whole.detach())
        for one, other in zip(gradients, chunked_gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        given = {"input_ids": IDS, "logits_to_keep": KEEP, "labels": LABELS, "weights": scale}
        torch.testing.assert_close(model(**on(model, given)), whole.detach())


@pytest.mark.parametrize(
    ("architecture", "chunked"), [("Qwen2", True), ("Gemma2", False), ("Granite", False), ("Cohere", False)]
)
def test_models_that_scale_or_cap_their_logits_get_them_whole(monkeypatch, architecture, chunked):
    model = small(architecture)
    logits = model(input_ids=IDS).logits[KEEP].float()
    wanted = torch.nn.functional.cross_entropy(logits, LABELS, reduction="sum")
    assert loss.enable(model) is chunked
    monkeypatch.setattr(loss, "LOGIT_FLOATS", 64)
    torch.testing.assert_close(ask(model)[0], wanted.detach())


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("checkpoints", [None, False, True], ids=["kept", "checkpointed", "reentrant"])
def test_the_last_feed_forward_computes_learned_tokens_alone(tiny, monkeypatch, method, checkpoints):
    """Loss and gradients are those of all tokens computed, also where the layer is computed again on the way back."""

    def trained(asked: bool):
        torch.manual_seed(0)
        with monkeypatch.context() as patch:
            if not asked:
                patch.setattr(last_layer, "enable", lambda model: None)
            model = load_base(Path(tiny), torch.float32)
            loss.enable(model)
        tuned = model
        if method == "lora":
            tuned = add_lora(model, TrainConfig())
            for name, parameter in tuned.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(parameter, std=0.1)
            fused_layers.fuse(tuned)
        if checkpoints is not None:
            tuned.activation_checkpointing_enable({"use_reentrant": checkpoints})
            tuned.enable_input_require_grads()
        tuned.train()
        rows = []
        mlp = model.get_decoder().layers[-1].mlp
        mlp.register_forward_hook(lambda layer, given, made: rows.append(given[0].shape[1]))
        return *ask(tuned), rows

    (wanted, gradients, all_rows), (found, others, rows) = trained(asked=False), trained(asked=True)
    assert all_rows[0] == IDS.numel() and rows[0] == len(LABELS)
    torch.testing.assert_close(found, wanted)
    for one, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_model_whose_last_layer_is_something_else_computes_all(tiny):
    shared = load_base(Path(tiny), torch.float32)
    layers = shared.get_decoder().layers
    layers[0].mlp = layers[-1].mlp  # what it gives for one token, the next layer's attention shows to others
    logits = shared(input_ids=IDS.to(shared.device)).logits
    assert last_layer.enable(shared) is None
    assert torch.equal(shared(input_ids=IDS.to(shared.device)).logits, logits)
    assert last_layer.enable(small("GPT2")) is None
