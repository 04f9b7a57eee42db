"""A run is a folder: its config, status, metrics, data, model and evaluations, and how they are read and written."""

from sftdemo.runs.folder import ACTIVE, SPLITS, DamagedRun, Run, error_keys, home
from sftdemo.runs.listing import adopt, check_free, create, find, known, list_runs, named, rename, show_to, valid_name
from sftdemo.runs.notes import annotate, title
from sftdemo.runs.overview import details, differences, disk_bytes, outline, overview, same_base, source_name, students
from sftdemo.runs.process import boot_id, identity, is_alive, process_start
from sftdemo.runs.queue import active, ahead, cut_off, expected, next_turn, place, training, waiting

__all__ = [
    "ACTIVE", "SPLITS", "DamagedRun", "Run", "active", "adopt", "ahead", "annotate", "boot_id", "check_free", "create", "cut_off", "details",
    "differences", "disk_bytes", "error_keys", "expected", "find", "home", "identity", "is_alive", "known", "list_runs", "named", "next_turn", "outline",
    "overview", "place", "process_start", "rename", "same_base", "show_to", "source_name", "students", "title", "training", "valid_name",
    "waiting",
]  # fmt: skip
