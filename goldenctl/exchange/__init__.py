"""Goldens and runs in other formats: archives, safetensors, npz, InfiniCore's test cases."""
