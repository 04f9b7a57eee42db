"""A run is a folder: its config, status, metrics, data, model and evaluations, and how they are read and written."""

from sftdemo.runs.folder import ACTIVE, SPLITS, DamagedRun, Run, error_keys, home
from sftdemo.runs.listing import active, create, find, list_runs, named, rename, valid_name
from sftdemo.runs.notes import annotate, title
from sftdemo.runs.overview import details, differences, disk_bytes, outline, overview, same_base, source_name
from sftdemo.runs.process import boot_id, identity, is_alive, process_start

__all__ = [
    "ACTIVE", "SPLITS", "DamagedRun", "Run", "active", "annotate", "boot_id", "create", "details", "differences", "disk_bytes", "error_keys", "find", "home",
    "identity", "is_alive", "list_runs", "named", "outline", "overview", "process_start", "rename", "same_base", "source_name",
    "title", "valid_name",
]  # fmt: skip
