"""Fuzzes a Python target with atheris: ``fuzz_python.py TARGET [libFuzzer options]``.

The golden's bytes are mutated by tests/integrity/mutate.py, which repairs HDF5's checksums:
a mutation that they refuse would teach nothing.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["goldenctl", "json"]):
    import targets

MAX_BYTES = 1 << 18


def main() -> None:
    name, *options = sys.argv[1:]
    target = targets.TARGETS[name]
    corpus = targets.CORPUS / name
    arguments = [sys.argv[0], f"-max_len={MAX_BYTES}", *options]
    if corpus.is_dir():
        arguments += [tempfile.mkdtemp(prefix=f"goldenctl-fuzz-{name}-"), str(corpus)]
    atheris.Setup(arguments, target, custom_mutator=_mutator() if name == "golden" else None)
    atheris.Fuzz()


def _mutator() -> object:
    from hdf5_blocks import blocks
    from mutate import mutations
    from subjects import golden_and_run

    sound = golden_and_run(Path(tempfile.mkdtemp()))[0].read_bytes()
    places = blocks(sound)

    def mutate(_data: bytes, _max_size: int, seed: int) -> bytes:
        return next(mutations(sound, 1, seed=seed, blocks=places)).data

    return mutate


if __name__ == "__main__":
    main()
