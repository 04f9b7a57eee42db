"""Why this answer: what each side thought of its every token, and what it would have said instead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from sftdemo.encoding import Messages, encode, encode_prompt
from sftdemo.errors import UserError
from sftdemo.generate import SIDES, Batch, Row

if TYPE_CHECKING:
    from torch import Tensor

    from sftdemo.generate import Pair

ALTERNATIVES = 5


def answer_ids(pair: Pair, messages: Messages, answer: str) -> list[int]:
    """The tokens of an answer to the messages, its end of turn included, as they would be learned."""
    encoded = encode(pair.tokenizer, [*messages, {"role": "assistant", "content": answer}])
    prompt = len(encode_prompt(pair.tokenizer, messages))
    tail = zip(encoded.ids[prompt:], encoded.supervised[prompt:], strict=True)
    return [token for token, learned in tail if learned]


@torch.inference_mode()
def forced(
    pair: Pair, conversations: Sequence[Messages], answers: Sequence[list[int]]
) -> Iterator[tuple[str, int, int, Tensor]]:
    """Both sides reading given answers: (side, conversation, token of the answer, log-probabilities [vocabulary]).

    All rows go in one batch, a token a step. Raises UserError where prompt and answer are longer than the model takes.
    """
    prompts = [encode_prompt(pair.tokenizer, messages) for messages in conversations]
    for prompt, answer in zip(prompts, answers, strict=True):
        if len(prompt) + len(answer) > pair.context:
            length = len(prompt) + len(answer)
            raise UserError(f"Prompt and answer have {length} tokens and the model takes {pair.context}; shorten them.")
    with pair.lock:
        for side in pair.sides:
            rows = [
                Row(name, index, prompt, len(answers[index]), None)
                for name in SIDES
                for index, prompt in enumerate(prompts)
                if name in side.names and answers[index]
            ]
            if not rows:
                continue
            batch, step = Batch(side, rows), 0
            while batch.rows:
                logs = torch.log_softmax(batch.logits.float(), -1)
                tokens, keep = [], []
                for position, row in enumerate(batch.rows):
                    yield row.side, row.index, answers[row.index][step], logs[position]
                    if step + 1 < len(answers[row.index]):
                        tokens.append(answers[row.index][step])
                        keep.append(position)
                batch.advance(tokens, keep)
                step += 1


def explain(pair: Pair, messages: Messages, answer: str) -> dict[str, list[dict[str, Any]]]:
    """{"base": [{"token": str, "probability": float, "alternatives": [[str, float], …]}], "tuned": […]}.

    A token for each of the answer's, its end of turn included; the alternatives are the likeliest at that place, the
    token itself among them where it is one.
    """

    def text(token: int) -> str:
        return str(pair.tokenizer.decode([token]))

    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for side, _, token, logs in forced(pair, [messages], [answer_ids(pair, messages, answer)]):
        best = logs.topk(ALTERNATIVES)
        others = [[text(int(k)), float(p)] for k, p in zip(best.indices, best.values.exp(), strict=True)]
        found[side].append({"token": text(token), "probability": float(logs[token].exp()), "alternatives": others})
    return found
