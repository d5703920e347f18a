"""Finds or builds InfiniCore, and builds and caches the harness that drives it."""
