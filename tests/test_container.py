"""The container's files, as far as they can be held without an engine: what they name is there, and nobody is root."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from sftdemo.__main__ import parser

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} ((?:.*\\\n)*.*)", DOCKERFILE, re.M)


def test_what_is_copied_is_there_and_let_through() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [name for line in instructions("COPY") if "--from" not in line for name in line.split()[:-1]]
    assert "sftdemo" in copied
    for name in copied:
        assert (ROOT / name).exists() and f"!{name}" in ignored, name


def test_it_runs_as_a_user_and_starts_the_app() -> None:
    stages = DOCKERFILE.split("\nFROM ")
    assert "USER sftdemo" in stages[-1] and stages[-1].index("USER") < stages[-1].index('CMD ["sftdemo"')
    command = re.search(r'^CMD \["sftdemo", (.*)\]', DOCKERFILE, re.M)
    assert command
    assert parser().parse_args([word.strip('" ') for word in command[1].split(",")]).command == "app"
    assert "/healthz" in instructions("HEALTHCHECK")[0] and instructions("STOPSIGNAL") == ["SIGTERM"]


def test_compose_mounts_one_home_and_asks_for_what_it_needs() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    app, proxy = services["app"], services["proxy"]
    assert app["volumes"] == ["home:/data"] and "VOLUME /data" in DOCKERFILE and "ports" not in app
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    asked = set(re.findall(r"\$\{(\w+)", yaml.safe_dump(services)))
    assert asked == set(re.findall(r"^(\w+)=", example, re.M))
    mounted = [volume.split(":")[0] for volume in proxy["volumes"] if volume.startswith("./")]
    assert mounted and all((ROOT / path).is_file() for path in mounted)
    prefix = app["environment"]["GRADIO_ROOT_PATH"]
    assert f"handle_path {prefix}/*" in (ROOT / mounted[0]).read_text(encoding="utf-8")
