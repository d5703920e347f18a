"""Owns what a checkpoint is: its config, weights, tokens, and how to make up a random one."""
