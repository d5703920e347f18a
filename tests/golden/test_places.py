"""Names of tensors are taken apart in one place, and put together again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from goldenctl.places import place, place_of, step_path, sublayer_path

WORDS = st.from_regex(r"[a-z0-9_]{1,8}", fullmatch=True)


@given(case=WORDS, step=st.integers(0, 999), parts=st.lists(WORDS, min_size=1), tap=WORDS)
def test_a_tensor_of_a_sublayer(case: str, step: int, parts: list[str], tap: str) -> None:
    dotted = ".".join(parts)
    group = sublayer_path(case, step, dotted)
    at = place(f"{group}/{tap}")
    assert (at.group, at.tap, at.case, at.sublayer) == (group, tap, case, dotted)
    assert (at.step, at.step_path) == (f"{step:02d}", step_path(case, step))
    assert at.short == f"{dotted}.{tap}"
    assert place_of(group).sublayer == dotted
    assert place_of(group).step_path == at.step_path


@given(case=WORDS, step=st.integers(0, 999), tap=WORDS)
def test_a_tensor_of_a_step_has_no_sublayer(case: str, step: int, tap: str) -> None:
    name = f"{step_path(case, step)}/{tap}"
    assert (place(name).sublayer, place(name).tap) == ("", tap)
    assert place(name).short == name
    assert place(name).label == f"{case}/{step:02d}"


def test_a_constant_is_in_no_case() -> None:
    at = place("constants/rope_cos")
    assert (at.case, at.step, at.sublayer, at.step_path, at.label) == ("", "", "", "", "")
    assert (at.group, at.tap, at.short) == ("constants", "rope_cos", "constants/rope_cos")
