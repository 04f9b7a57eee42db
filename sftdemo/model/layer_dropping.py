"""A model without some of its layers: how much each one changes the hidden states, and what is left when some are left out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sftdemo.errors import UserError
from sftdemo.model.parity import answering

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

CLOSE = 1e-3  # relative; the same numbers in another order of sums


def check(config: dict[str, Any], count: int, name: str) -> None:
    """Raise UserError unless the model of a config.json has more layers than are to be dropped."""
    layers = (config.get("text_config") or config).get("num_hidden_layers")
    if not isinstance(layers, int):
        raise UserError("The model of {name} doesn't say how many layers it has, so none can be dropped.", name=name)
    if count >= layers:
        raise UserError(
            "drop_layers is {count}, and the model of {name} has {layers} layers; give {most} at most.",
            count=count,
            name=name,
            layers=layers,
            most=layers - 1,
        )


def block_influence(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> list[float]:
    """For each layer 1 - cos(what goes in, what comes out), the mean over all tokens of the rows (Men et al. 2024)."""
    layers = _layers(model)
    turned = [0.0] * len(layers)
    tokens = 0

    def watch(number: int) -> Any:
        def hook(_layer: Any, arguments: tuple[Any, ...], kept: dict[str, Any], output: Any) -> None:
            before = arguments[0] if arguments else kept["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            cosine = torch.nn.functional.cosine_similarity(before.float(), after.float(), dim=-1)
            turned[number] += float((1 - cosine).sum())

        return hook

    hooks = [layer.register_forward_hook(watch(number), with_kwargs=True) for number, layer in enumerate(layers)]
    try:
        with torch.no_grad(), answering(model):
            for row in rows:
                model(input_ids=torch.tensor([list(row)], device=model.device), use_cache=False, logits_to_keep=1)
                tokens += len(row)
    finally:
        for hook in hooks:
            hook.remove()
    return [value / max(tokens, 1) for value in turned]


def most_important(influence: Sequence[float], dropped: int) -> list[int]:
    """The places of the layers that stay, in order, when so many of least influence are left out."""
    by_influence = sorted(range(len(influence)), key=lambda place: influence[place])
    return sorted(by_influence[dropped:])


def with_layers(model: PreTrainedModel, kept: Sequence[int]) -> PreTrainedModel:
    """A copy of the model with these of its layers alone, as its config then describes it.

    Raises UserError for a model that isn't told by its config which layer is of which kind: the copy must give the logits
    that the model itself gives without those layers.
    """
    from transformers import AutoModelForCausalLM

    config = shortened(model.config, kept)
    try:
        state = _state(model, kept)
        student = AutoModelForCausalLM.from_config(config, dtype=model.dtype, trust_remote_code=False)
        student.load_state_dict(state)
        student.tie_weights()
        student.to(model.device).eval()
        same = torch.allclose(_logits(student), _logits_without(model, kept), rtol=CLOSE, atol=CLOSE)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError("Layers of this kind of model can't be left out: {reason}", reason=reason) from error
    if not same:
        raise UserError("Layers of this kind of model can't be left out: its config doesn't say what each of them is.")
    student.generation_config = copy.deepcopy(model.generation_config)
    return student  # type: ignore[no-any-return]


def shortened(config: PreTrainedConfig, kept: Sequence[int]) -> PreTrainedConfig:
    """The config of a model with these layers alone; what it lists layer by layer is listed of these."""
    changed = copy.deepcopy(config)
    text = changed.get_text_config()
    layers = text.num_hidden_layers
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == layers and name not in ("architectures", "eos_token_id"):
            setattr(text, name, [value[place] for place in kept])
    text.num_hidden_layers = len(kept)
    return changed


def _layers(model: PreTrainedModel) -> Any:
    layers = getattr(model.get_decoder(), "layers", None)
    if layers is None or len(layers) != model.config.get_text_config().num_hidden_layers:
        raise UserError("Layers of a model of kind {kind} can't be left out.", kind=model.config.model_type)
    return layers


def _state(model: PreTrainedModel, kept: Sequence[int]) -> dict[str, Tensor]:
    """The weights of what stays, under the names that they have then."""
    layers = _layers(model)
    prefix = next(name for name, module in model.named_modules() if module is layers) + "."
    places = {str(old): str(new) for new, old in enumerate(kept)}
    state = {}
    for name, values in model.state_dict().items():
        if not name.startswith(prefix):
            state[name] = values
            continue
        place, _, rest = name.removeprefix(prefix).partition(".")
        if place in places:
            state[f"{prefix}{places[place]}.{rest}"] = values
    return state


def _logits(model: PreTrainedModel) -> Tensor:
    drawn = torch.Generator().manual_seed(0)
    count = model.get_input_embeddings().num_embeddings
    ids = torch.randint(count, (2, 12), generator=drawn).to(model.device)  # type: ignore[call-overload]
    with torch.no_grad(), answering(model):
        return model(input_ids=ids, use_cache=False).logits.float()  # type: ignore[no-any-return]


def _logits_without(model: PreTrainedModel, kept: Sequence[int]) -> Tensor:
    """What the model gives where a layer that isn't kept hands on what it was given."""

    def skip(_layer: Any, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
        before = arguments[0] if arguments else named["hidden_states"]
        return (before, *output[1:]) if isinstance(output, tuple) else before

    left_out = [layer for place, layer in enumerate(_layers(model)) if place not in set(kept)]
    hooks = [layer.register_forward_hook(skip, with_kwargs=True) for layer in left_out]
    try:
        return _logits(model)
    finally:
        for hook in hooks:
            hook.remove()
