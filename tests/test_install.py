"""What pip installs: the package with its sample sets and its command, at home in any folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import sftdemo

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the project."""
    source, target = tmp_path_factory.mktemp("source") / "project", tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "__pycache__", "results"))
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(source)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(target.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_asks_for_what_requirements_txt_lists(wheel):
    described: Distribution = PathDistribution(zipfile.Path(wheel, f"sftdemo-{sftdemo.__version__}.dist-info/"))
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = {str(Requirement(line.split("#")[0])) for line in lines if not line.startswith("#")}
    asked = {str(asked) for text in described.requires or [] if not (asked := Requirement(text)).marker}
    # A name may be written with "_" or "-".
    assert {text.replace("_", "-") for text in asked} == {text.replace("_", "-") for text in listed}


@pytest.mark.slow
def test_the_installed_command_checks_a_sample_from_another_folder(wheel, tmp_path):
    place = tmp_path / "venv"
    venv.create(place, with_pip=False)
    python = place / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, str(wheel)], check=True)
    # The libraries are those of this environment; the project itself is not among them.
    libraries = sysconfig.get_path("purelib")
    (next(place.glob("lib/python*/site-packages")) / "libraries.pth").write_text(f"{libraries}\n", encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run(str(python), "-c", "import sftdemo.data.sources as s; print(s.__file__, s.SAMPLES)")
    assert all(path.startswith(str(place)) for path in where.split())
    command = str(place / "bin" / "sftdemo")
    assert run(command, "--version") == f"sftdemo {sftdemo.__version__}\n"
    assert run(command, "demo", "--help").startswith("usage: sftdemo demo")
    value = json.loads(run(command, "check", "support_tickets", "--json"))
    assert value["examples"] > 100 and not value["faults"]
