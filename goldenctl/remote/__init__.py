"""Goldens on other machines: content-addressed stores, push and pull."""
