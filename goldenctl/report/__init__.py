"""Renderers of what goldenctl finds: each takes one object and yields text or a file."""
