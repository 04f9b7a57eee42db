"""Scores, intervals, tests and the sentence that sums them up; no model here."""
