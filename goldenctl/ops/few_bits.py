"""The faults of linear layers in few bits, as data: the name of the emulation, what a report
calls it, and the size of the groups of weights (1 where there are none).

goldenctl.reference.quantized has their arithmetic.
"""

from __future__ import annotations

FEW_BITS: tuple[tuple[str, str, int], ...] = (
    ("w_int8_channel", "weights as if rounded to int8 per channel", 1),
    (
        "w_int8_zero_point",
        "weights as if rounded to int8 per channel, with a zero point",
        1,
    ),
    ("w_int8_tensor", "weights as if rounded to int8 per tensor", 1),
    ("w_fp8_channel", "weights as if rounded to float8_e4m3 per channel", 1),
    ("w_fp8_tensor", "weights as if rounded to float8_e4m3 per tensor", 1),
    ("w_int4_group_32", "weights as if rounded to int4 in groups of 32", 32),
    ("w_int4_group_128", "weights as if rounded to int4 in groups of 128", 128),
    ("a_int8", "activations as if rounded to int8 per token", 1),
    ("a_fp8", "activations as if rounded to float8_e4m3 per token", 1),
    ("w_a_int8", "weights per channel and activations per token as if rounded to int8", 1),
    (
        "w_zero_point_a_int8",
        "weights per channel, with a zero point, and activations per token as if rounded to int8",
        1,
    ),
    (
        "w_a_fp8",
        "weights per channel and activations per token as if rounded to float8_e4m3",
        1,
    ),
)
