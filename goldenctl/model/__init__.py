"""Checkpoints: config, graph, weights and tokens, and how to make up a random one."""
