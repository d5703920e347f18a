"""Record-and-replay golden tensors: find the op that a port of a transformer gets wrong."""

__version__ = "0.1.0"
