"""Scoring of a run against a golden: metrics, tolerances and the verdict."""
