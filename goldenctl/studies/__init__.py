"""Work that orchestrates recording, replay and scoring: blame, selftest, check, bench."""
