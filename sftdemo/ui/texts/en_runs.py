"""The words of the Runs tab in English."""

RUNS: dict[str, str] = {}
