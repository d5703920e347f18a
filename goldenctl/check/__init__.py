"""The regression check of golden sets: integrity, recording again, replay; and attestations."""
