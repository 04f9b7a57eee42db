"""data/ancestry.json: what the runs before a run, and its teacher, were trained and tested on."""

from __future__ import annotations

import os
from typing import cast

from sftdemo.runs.folder import Run
from sftdemo.schema.lineage import Ancestry

NAME = "data/ancestry.json"


def read(run: Run) -> Ancestry:
    """As hashes of rows; nothing where there are none before. Raises DamagedRun."""
    if not os.path.lexists(run.path / NAME):
        return {"trained": [], "validation": [], "test": []}
    return cast("Ancestry", run._json(NAME, Ancestry))
