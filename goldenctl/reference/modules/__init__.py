"""Goldens of any ``nn.Module``: record, budget and replay every call of every submodule."""
