"""Golden sets over time: what a manifest says of a golden, and what a new version changes."""
