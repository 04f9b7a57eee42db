"""The settings of an export."""

from __future__ import annotations

from dataclasses import dataclass

from sftdemo.config.settings import Settings, setting

FORMATS = ("auto", "adapter", "merged", "gguf-f16", "gguf-q8_0", "gguf-q4_0")


@dataclass(frozen=True)
class ExportConfig(Settings):
    """How a run's model is exported."""

    format: str = setting(
        "auto",
        "adapter is what LoRA trained, for its base; merged is plain safetensors; gguf is one file for llama.cpp and Ollama; "
        "auto takes adapter, or merged where all weights were trained.",
        group="Export",
        choices=FORMATS,
    )
    dtype: str = setting(
        "float32",
        "The numbers that merged weights are saved in.",
        group="Export",
        choices=("float32", "bfloat16", "float16"),
    )
    shard_mb: int = setting(5000, "The largest file of merged weights, in MB.", group="Export", low=1)
    verify: bool = setting(
        True, "Open the export in a new process and compare its answers with the run's.", group="Export"
    )
    zip: bool = setting(False, "Write one ZIP instead of a folder.", group="Export")
