"""The settings of a push to the Hub."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sftdemo.config.settings import Settings, setting
from sftdemo.errors import Text

WHAT = ("auto", "adapter", "merged", "gguf")
FORMATS = {"gguf": "gguf-q8_0"}  # of an export; what else is pushed has its own name
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*|")


@dataclass(frozen=True)
class PushConfig(Settings):
    """What of a run goes to the Hub, and who sees it."""

    what: str = setting(
        "auto",
        "adapter is what LoRA trained; merged is plain safetensors; gguf is one file of 8 bits for llama.cpp and Ollama; auto "
        "takes adapter, or merged where all weights were trained.",
        group="Push",
        choices=WHAT,
    )
    public: bool = setting(False, "Let everybody see the repository; without it only its owner does.", group="Push")
    with_data: bool = setting(
        False,
        "Push the rows that it was trained and measured on, too, to a data set of the same name with -data behind it.",
        group="Push",
    )
    license: str = setting("", "The model's licence as the Hub writes it, such as apache-2.0.", group="Push", high=60)
    data_license: str = setting("", "The data's licence as the Hub writes it.", group="Push", high=60)

    def problems(self) -> list[Text]:
        problems = super().problems()
        for name in ("license", "data_license") if not problems else ():
            if not _LICENCE.fullmatch(value := getattr(self, name)):
                problems.append(
                    Text(
                        "{name} is {value!r}; write it as the Hub does, such as apache-2.0 or cc-by-4.0.",
                        name=Text(name),
                        value=value,
                    )
                )
        return problems
