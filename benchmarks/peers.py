"""The peers' own virtual environments, made once with venv and pip."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

PACKAGES = {"trl": ["trl", "peft"], "llamafactory": ["llamafactory"], "llamacpp": ["xllamacpp"]}
WITHOUT_TORCH = {"llamacpp"}
# Built for CUDA, they break imports beside a CPU build of torch; text needs neither.
UNUSED = ("torchvision", "torchaudio")
TOLD = ("trl", "llamafactory", "torch", "transformers", "peft", "accelerate", "xllamacpp")
SECONDS = 1800
PROBE = """
import importlib.metadata, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def python(folder: Path, peer: str) -> Path:
    return folder / peer / "bin" / "python"


def install(folder: Path, peer: str) -> str | None:
    """Make the peer's environment if it isn't there: newest release that installs beside our build of torch.

    Returns None, or in one line why it isn't usable. What was half built is built anew by the next run.
    """
    if PACKAGES[peer][0] in versions(folder, peer):
        return None
    place = folder / peer
    torch = [] if peer in WITHOUT_TORCH else [f"torch=={importlib.metadata.version('torch')}"]
    pip = [str(python(folder, peer)), "-m", "pip"]
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(place)],
        [*pip, "install", "--quiet", *torch, *PACKAGES[peer]],
        [*pip, "uninstall", "--quiet", "--yes", *UNUSED],
    ):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return f"installing was not done after {SECONDS} s"
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
            return f"can't be installed: {errors[-1][:200] if errors else done.returncode}"
    return None


def versions(folder: Path, peer: str) -> dict[str, str]:
    """The releases in the peer's environment; empty if there is none."""
    if not python(folder, peer).exists():
        return {}
    done = subprocess.run([python(folder, peer), "-c", PROBE, *TOLD], capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else {}
