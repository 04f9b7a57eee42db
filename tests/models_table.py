"""Writes docs/models.md from what the code does with each family's tiny model: `python tests/models_table.py`."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from families import FAMILIES, build  # noqa: E402

from sftdemo.config import TrainConfig  # noqa: E402
from sftdemo.inference import load_run  # noqa: E402
from sftdemo.model.lora_targets import targets  # noqa: E402
from sftdemo.model.support import OWN_STATES  # noqa: E402
from sftdemo.training.chat_learner import trainable  # noqa: E402

PAGE = ROOT / "docs" / "models.md"
LAYERS = {
    "full_attention": "full",
    "sliding_attention": "window",
    "chunked_attention": "chunks",
    "linear_attention": "recurrent",
    "conv": "convolution",
    "hybrid": "attention beside recurrence",
    "dummy": "with another's keys",
}
HEAD = """<!-- Written by tests/models_table.py; edit that instead. -->
# Models

Each family here is a row of the tests: a tiny model with the real one's layers, built in the process with random weights
(`tests/families.py`), trained and answered by this code and by transformers and PEFT alone (`tests/test_families.py`). Windows
and chunks are 64 tokens; rows have 11 to 190 tokens, prompts up to 200, and answers 80. For every family, these are equal:

- the losses of rows read together and of each by itself, to 1e-5, and the gradients, with LoRA and with full weights;
- the validation loss of a run and that of its saved model;
- the greedy answers of base and tuned, token for token: streamed, side by side, with histories of their own, in the next
  turn, of unlike prompts together, where others have ended, and behind a common beginning;
- the likelihoods of labels and references, and what a merged model says.

Slower tests train each by LoRA from data to an evaluation; one with windows and tied embeddings, one with experts and one with
recurrences on 8- and 4-bit weights, with gradients checkpointed in both ways, and the first two by two processes.

**Trained** *packed*: rows end to end without padding, each layer's window honoured; *padded*: padding behind the rows, where no
layer looks. **Answered** *shared*: many prompts at once, their common beginning and a conversation's past computed once;
*joined*: many at once, each prompt read by itself without padding, nothing kept from one turn to the next; *one by one*: as
that, and one conversation after the other. **LoRA** is put on all linear layers of the decoder but those named.

"""
TAIL = """
## Other models

A model of another family is treated by what its layers declare and by a trial: packed or shared only if its attention is known
and a trial gives the logits of before, padded and one by one otherwise. Experts' tensors and routers get no LoRA, and where
PEFT takes the names of dense or shared layers for experts', neither do these.

Refused before its weights are fetched: a model of a type that transformers doesn't know (code that comes with a model is
never run), encoders and encoder-decoders, models that AutoModelForCausalLM doesn't load (Mistral 3 with vision), and those that
keep what they have read in a way of their own: {own}, and what has no `cache` in its forward pass (RWKV, XLNet).

## Seen in transformers {version}

- RecurrentGemma keeps states in the model itself: answers of a batch were others than those of each prompt by `generate`.
- xLSTM fails with a DynamicCache; MiniMax says that it takes none.
- Mamba begins anew where several tokens follow what was read before; labels and references are read one token at a time.
"""


def row(name: str) -> list[str]:
    """What one family's row says."""
    kind = FAMILIES[name][0]
    config, model = build(name)
    leaves = {path.rpartition(".")[2] for path, module in model.get_decoder().named_modules() if is_linear(module)}
    head = {"lm_head"}
    left_out = leaves - {path.rpartition(".")[2] for path in targets(model, TrainConfig())} - head
    _, packed = trainable(model, TrainConfig(method="full"))
    side = load_run.answering(build(name)[1].float(), ("base",))
    answered = "shared" if side.can_share else "joined" if side.can_join else "one by one"
    return [name, f"`{kind}`", layers(config), "packed" if packed else "padded", answered,
            ", ".join(f"`{leaf}`" for leaf in sorted(left_out))]  # fmt: skip


def is_linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"


def layers(config: Any) -> str:
    """How many layers of which kind."""
    from transformers.cache_utils import get_layer_types_and_kwargs

    text = config.get_text_config()
    kinds = Counter(LAYERS[kind] for kind in get_layer_types_and_kwargs(text)[0])
    found = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return found.replace("with another's keys", "feed-forward") if text.model_type == "nemotron_h" else found


def page() -> str:
    """The whole document."""
    import transformers

    head = ["family", "type", "layers of the tiny one", "trained", "answered", "no LoRA on"]
    lines = [head, ["---"] * len(head), *map(row, FAMILIES)]
    table = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    own = ", ".join(f"`{kind}`" for kind in sorted(OWN_STATES))
    return HEAD + table + TAIL.format(own=own, version=transformers.__version__)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
