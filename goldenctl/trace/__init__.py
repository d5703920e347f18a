"""Tracing: what an engine computed by itself, read off InfiniCore's C API while it ran."""
