"""How a model card says that its model is used: by transformers, vLLM and Ollama, or without chat by transformers alone."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from sftdemo.config import kinds
from sftdemo.data.conversion.wording import wordings_of
from sftdemo.model.label_facts import LabelFacts
from sftdemo.runs import Run

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_TRANSFORMERS = """```python
from {library} import {kind}
from transformers import AutoTokenizer
model, tokenizer = {kind}.from_pretrained({at}), AutoTokenizer.from_pretrained({at})
ids = tokenizer.apply_chat_template({messages}, add_generation_prompt=True, return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, do_sample=False, max_new_tokens=64)[0], skip_special_tokens=True))
```"""
_SEQ2SEQ = """```python
from {library} import {kind}
from transformers import AutoTokenizer
model, tokenizer = {kind}.from_pretrained("{at}"), AutoTokenizer.from_pretrained("{at}")
ids = tokenizer({text!r}, return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, do_sample=False, max_new_tokens=64)[0], skip_special_tokens=True))
```"""
_LABELS = """```python
from transformers import pipeline
print(pipeline("{task}", "{at}"{options})("…"))
```"""
_LABELS_POOLED = """```python
from transformers import AutoModelForTokenClassification, AutoTokenizer
model, tokenizer = AutoModelForTokenClassification.from_pretrained("{at}"), AutoTokenizer.from_pretrained("{at}")
logits = model(**tokenizer("…", truncation=True, return_tensors="pt")).logits[0]{pooled}
print({{model.config.id2label[place]: value for place, value in enumerate(logits.{probabilities}.tolist())}})
```"""
_LABELS_ADAPTER = """```python
from peft import {kind}
from transformers import AutoTokenizer, pipeline
labels = {labels}
model = {kind}.from_pretrained("{at}", num_labels=len(labels), id2label=dict(enumerate(labels))).merge_and_unload()
print(pipeline("{task}", model, tokenizer=AutoTokenizer.from_pretrained("{at}"){options})("…"))
```"""
_COMMAND = """```bash
python -m sftdemo compare {run} --prompt "…"
```"""
HEAD = "head"  # the form of a run that keeps only a head, its encoder lying elsewhere
PIPELINES = {"classification": "text-classification", "tokens": "token-classification"}


# What a fresh environment needs.
_PACKAGES = {"adapter": "torch transformers peft", "merged": "torch transformers"}
_PACKAGES_OF_GGUF = "torch transformers accelerate gguf"
_FOR_SEQ2SEQ = " sentencepiece"
_LOCAL_BASE = (
    "Its base is a folder `{base}` of the machine where it was trained; put that model into a folder of this name beside the "
    "adapter's files."
)
ANY_TEXT = "…"


def is_hub_id(name: str) -> bool:
    return bool(_HUB_ID.fullmatch(name))


def pipeline_of(run: Run) -> str:
    """The Hub's word for what the model does."""
    data = {"translation": "translation", "summarisation": "summarization"}
    if run.kind == kinds.SEQ2SEQ:
        return data.get(run.trained_config()["data"]["task"], "text-generation")
    return PIPELINES.get(run.kind, "text-generation")


def pooling_of(run: Run) -> str:
    """What of a frozen encoder its head for whole texts reads, mean or cls; "" for other runs."""
    frozen = run.kind == "classification" and run.trained_config()["settings"]["method"] == "frozen"
    return LabelFacts.read(run.model_path).pooling if frozen else ""


def _use_without_chat(run: Run, form: str, settings: Mapping[str, Any], at: str) -> str:
    if form == HEAD:
        return f"Where the run is:\n\n{_COMMAND.format(run=run.name)}"
    if pooling := pooling_of(run):
        facts = LabelFacts.read(run.model_path)
        pooled, what = (".mean(0)", "mean of all tokens") if pooling == "mean" else ("[0]", "first token")
        words = {"pooled": pooled, "probabilities": "sigmoid()" if facts.several else "softmax(-1)"}
        return (
            f"transformers. The head reads the {what}, as no text-classification pipeline does, so the labels' logits are "
            f"taken at the tokens:\n\n{_LABELS_POOLED.format(at=at, **words)}"
        )
    if run.kind in PIPELINES:
        # A word is told by its first token, as in training.
        options = ', aggregation_strategy="first"' if run.kind == "tokens" else ""
        words = {"task": PIPELINES[run.kind], "at": at, "options": options}
        if form != "adapter":
            return f"transformers:\n\n{_LABELS.format(**words)}"
        words["kind"] = "AutoPeftModelFor" + ("Token" if run.kind == "tokens" else "Sequence") + "Classification"
        return f"PEFT:\n\n{_LABELS_ADAPTER.format(**words, labels=LabelFacts.read(run.model_path).labels)}"
    library, kind = (
        ("peft", "AutoPeftModelForSeq2SeqLM") if form == "adapter" else ("transformers", "AutoModelForSeq2SeqLM")
    )
    text = f"{settings.get('source_prefix') or ''}{ANY_TEXT}"
    code = _SEQ2SEQ.format(library=library, kind=kind, at=at, text=text)
    return f"{_with_transformers(form, at == '.', _FOR_SEQ2SEQ)}\n\n{code}"


def _with_transformers(form: str, here: bool, more: str = "") -> str:
    """What is installed, and where the lines are run."""
    packages = _PACKAGES.get(form, _PACKAGES_OF_GGUF) + more
    return f"transformers (`pip install {packages}`){', in this folder' if here else ''}:"


def messages(run: Run, settings: Mapping[str, Any]) -> list[dict[str, str]]:
    """A conversation as the run was trained on them, "…" where the text is."""
    wordings = wordings_of(run.trained_config())  # type: ignore[arg-type]
    question = wordings[0].shown if len(wordings) == 1 else ANY_TEXT
    system = [{"role": "system", "content": str(settings["system"])}] if settings.get("system") else []
    return [*system, {"role": "user", "content": question}]


def how_to_use(run: Run, form: str, base: str, settings: Mapping[str, Any], repository: str) -> str:
    """How it is talked to by transformers, vLLM and Ollama, a few lines each, and asked as in training."""
    base_here = [_LOCAL_BASE.format(base=base)] if form == "adapter" and not is_hub_id(base) else []
    if run.kind != kinds.CHAT:
        return "\n\n".join([*base_here, _use_without_chat(run, form, settings, repository or ".")])
    name = (repository or run.name).rpartition("/")[2]
    library, kind = (
        ("peft", "AutoPeftModelForCausalLM") if form == "adapter" else ("transformers", "AutoModelForCausalLM")
    )
    file = f"{form.removeprefix('gguf-')}.gguf" if form.startswith("gguf") else ""
    at = f'"{repository or "."}"' + (f', gguf_file="{file}"' if file else "")
    asked = messages(run, settings)
    local = re.sub(r"[^a-z0-9._-]", "-", name.lower())  # as Ollama takes names
    ollama = [f"ollama create {local} -f Modelfile", f"ollama run {local} {_quoted(asked[-1]['content'])}"]
    if form == "adapter" and settings["modules_to_save"] != "none":  # vLLM and Ollama know LoRA alone
        vllm = [f"python -m sftdemo export {run.name} --to {name}-merged --format merged", f"vllm serve {name}-merged"]
        ollama = [
            f"python -m sftdemo export {run.name} --to {name}-gguf --format gguf-q8_0",
            f"cd {name}-gguf",
            *ollama,
        ]
    elif form == "adapter":
        rank = max(16, settings["lora_r"])  # vLLM's own limit is 16
        vllm = [f"vllm serve {base} --enable-lora --max-lora-rank {rank} --lora-modules {name}={repository or '.'}"]
        ollama = [
            f"python -m sftdemo export {run.name} --to {name}-gguf --format gguf-q8_0",
            f"cd {name}-gguf",
            *ollama,
        ]
    elif file:
        vllm = [f"vllm serve ./{file} --tokenizer {base}"]
    else:
        vllm, ollama = [f"vllm serve {repository or '.'}"], ["echo 'FROM .' > Modelfile", *ollama]
    if repository and form != "adapter":
        ollama.insert(0, f"hf download {repository} --local-dir {name} && cd {name}")
    if repository and file:
        vllm.insert(0, ollama[0])
    code = _TRANSFORMERS.format(library=library, kind=kind, at=at, messages=json.dumps(asked, ensure_ascii=False))
    blocks = [
        _with_transformers(form, not repository),
        code,
        "vLLM:",
        _shell(vllm),
        "Ollama:",
        _shell(ollama),
    ]
    return "\n\n".join([*_several(run), *base_here, *blocks])


def _several(run: Run) -> list[str]:
    """How each kind of question is asked, where there are several."""
    wordings = wordings_of(run.trained_config())  # type: ignore[arg-type]
    if len(wordings) < 2:
        return []
    shown = (f"{wording.source}:\n\n{_fenced(wording.shown)}" for wording in wordings)
    return ["It was asked in several ways:", *shown]


def _quoted(text: str) -> str:
    """For a shell, on one line."""
    if "\n" not in text:
        return shlex.quote(text)
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\r", "\\r").replace("\n", "\\n")
    return f"$'{escaped}'"


def _fenced(text: str) -> str:
    """The text as it stands, whatever is in it."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _shell(lines: Sequence[str]) -> str:
    return "\n".join(["```bash", *lines, "```"])
