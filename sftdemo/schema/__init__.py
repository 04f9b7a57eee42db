"""Every key of every file in a run folder, as types: docs/run-folder.md is written from them."""
