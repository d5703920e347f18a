"""What a report notes of tensors that are within tolerance, a line for each kind of note."""

from __future__ import annotations

from goldenctl.errors import printable
from goldenctl.records.report import Report, TensorResult
from goldenctl.records.units import plural
from goldenctl.records.words import Places


def note_lines(report: Report) -> list[str]:
    """Return ``note: 12 tensors round toward zero, such as layers.00.attention.q_proj: ...``."""
    kinds: dict[str, list[TensorResult]] = {}
    for tensor in report.noted:
        kinds.setdefault(tensor.note.split()[0], []).append(tensor)
    places = Places(report)
    return [
        printable(
            f"note: {plural(len(tensors), 'tensor')}, such as {places.tensor(tensors[0].name)}: "
            f"{tensors[0].note}"
        )
        for tensors in kinds.values()
    ]
