"""A short run over the corpora and mutations of them, without atheris; found bugs stay here."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from targets import CORPUS, TARGETS

SEEDS = {name: sorted((CORPUS / name).iterdir()) for name in TARGETS if (CORPUS / name).is_dir()}
PIECES = [b"", b"-1", b"1e999", b"9" * 400, b"null", b"[]", b"{}", b'"', b"\\u0000", b"\xff", b"["]


@pytest.mark.parametrize(
    "name_and_file", [(name, path) for name in SEEDS for path in SEEDS[name]], ids=str
)
def test_the_corpus(name_and_file: tuple[str, object]) -> None:
    name, path = name_and_file
    TARGETS[name](path.read_bytes())  # type: ignore[attr-defined]


@st.composite
def mutated(draw: st.DrawFn, name: str) -> bytes:
    data = draw(st.sampled_from([path.read_bytes() for path in SEEDS[name]]))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        cut = draw(st.integers(0, 12))
        piece = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=3)))
        data = data[:at] + piece + data[at + cut :]
    return data


@settings(max_examples=150, deadline=None)
@given(st.data())
@pytest.mark.parametrize("name", sorted(SEEDS))
def test_mutations_are_refused_or_right(name: str, data: st.DataObject) -> None:
    TARGETS[name](data.draw(mutated(name)))
