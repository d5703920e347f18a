"""Stand-ins for InfiniCore, written for these tests: headers of an older and a newer style, and
a library that has their functions and writes what it was called with into its outputs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from goldenctl.infini.build import compiler
from goldenctl.infini.find import Install

_CORE = """
#pragma once
#include <cstddef>
#define {mark} extern "C"
#define __export __attribute__((visibility("default")))
typedef enum {{ INFINI_STATUS_SUCCESS = 0, INFINI_STATUS_INTERNAL_ERROR = 1 }} infiniStatus_t;
typedef enum {{ INFINI_DEVICE_CPU = 0, INFINI_DEVICE_NVIDIA, {device} = 8,
               INFINI_DEVICE_TYPE_COUNT }} infiniDevice_t;
typedef enum {{ INFINI_DTYPE_INVALID = 0, INFINI_DTYPE_I32 = 5, INFINI_DTYPE_I64 = 6,
               INFINI_DTYPE_F32 = 13, INFINI_DTYPE_BF16 = 19 }} infiniDtype_t;
"""
_RUNTIME = """
#pragma once
#include "infinicore.h"
typedef void *infinirtStream_t;
typedef enum {{ INFINIRT_MEMCPY_H2H = 0, INFINIRT_MEMCPY_D2D = 3 }} infinirtMemcpyKind_t;
{mark} __export infiniStatus_t infinirtInit();
{mark} __export infiniStatus_t infinirtGetDevice(infiniDevice_t *device_ptr, int *device_id_ptr);
{mark} __export infiniStatus_t infinirtStreamSynchronize(infinirtStream_t stream);
{mark} __export infiniStatus_t infinirtMalloc(void **p_ptr, size_t size);
{mark} __export infiniStatus_t infinirtFree(void *ptr);
{mark} __export infiniStatus_t infinirtMemcpy(void *dst, const void *src, size_t size,
                                              infinirtMemcpyKind_t kind);
"""
_HANDLE = """
#pragma once
#include "../infinicore.h"
typedef struct InfiniopHandle *infiniopHandle_t;
typedef struct InfiniopTensorDescriptor *infiniopTensorDescriptor_t;
{mark} __export infiniStatus_t infiniopCreateHandle(infiniopHandle_t *handle_ptr);
{mark} __export infiniStatus_t infiniopCreateTensorDescriptor(
    infiniopTensorDescriptor_t *desc_ptr, size_t ndim, const size_t *shape,
    const ptrdiff_t *strides, infiniDtype_t dtype);
{mark} __export infiniStatus_t infiniopDestroyTensorDescriptor(infiniopTensorDescriptor_t desc);
struct InfiniopDescriptor;
{mark} __export infiniStatus_t infiniopGetDescriptorDeviceType(
    const struct InfiniopDescriptor *desc_ptr, infiniDevice_t *device_type);
{mark} __export infiniStatus_t infiniopGetDescriptorDeviceId(
    const struct InfiniopDescriptor *desc_ptr, int *device_id);
"""
_OP = """
typedef struct InfiniopDescriptor *infiniop{op}Descriptor_t; // of {op}
{mark} __export infiniStatus_t infiniopCreate{op}Descriptor(
    infiniopHandle_t handle, infiniop{op}Descriptor_t *desc_ptr{create});
{mark} __export infiniStatus_t infiniopGet{op}WorkspaceSize(infiniop{op}Descriptor_t desc,
                                                            size_t *size);
/* What it does: {op}(...); */
{mark} __export infiniStatus_t infiniop{op}(
    infiniop{op}Descriptor_t desc, void *workspace, size_t workspace_size{launch}, void *stream);
{mark} __export infiniStatus_t infiniopDestroy{op}Descriptor(infiniop{op}Descriptor_t desc);
"""
_T = "infiniopTensorDescriptor_t"
# An accelerator's memory lies beyond what a processor can address.
_MEMORY = """
#include <cstdlib>
#include <cstring>
static size_t made = 64;
constexpr size_t away = AWAY;
constexpr infiniDevice_t device = away ? INFINI_DEVICE_NVIDIA : INFINI_DEVICE_CPU;
static void *there(size_t size) { return static_cast<char *>(std::malloc(size)) + away; }
static char *here(const void *at) {
    size_t address = reinterpret_cast<size_t>(at);
    return reinterpret_cast<char *>(address >> 47 ? address - away : address);
}
"""
_MODE = """typedef enum {
    INFINIOP_TWIST_PAIRS = 0, // neighbours
    INFINIOP_TWIST_HALVES,
} infiniopTwist_t;
"""
# Name: what Create gets beside handle and descriptor, what the launch gets beside its own.
COMMON = {
    "Gemm": (
        "c_desc a_desc b_desc",
        "",
        "void *c, void const *a, void const *b",
        "float alpha, float beta",
    ),
    "RMSNorm": (
        "y_desc x_desc w_desc",
        "float epsilon",
        "void *y, const void *x, const void *w",
        "",
    ),
    "SwiGLU": ("c_desc a_desc b_desc", "", "void *c, void const *a, void const *b", ""),
}
NEWER = {
    "AddRMSNorm": (
        "y_desc residual_out_desc a_desc b_desc weight_desc",
        "float epsilon",
        "void *y, void *residual_out, const void *a, const void *b, const void *weight",
        "",
    ),
    "SiluAndMul": ("output input", "", "void *output, const void *input", ""),
    "FlashAttention": (
        "out_desc q_desc k_desc v_desc total_kv_len",
        "float scale, char is_causal",
        "void *out, const void *q, const void *k, const void *v, const void *total_kv_len",
        "",
    ),
    "PagedAttention": (
        "out_desc q_desc k_cache_desc v_cache_desc block_tables_desc seq_lens_desc slopes_desc",
        "float scale",
        "void *out, const void *q, const void *k_cache, const void *v_cache, "
        "const void *block_tables, const void *seq_lens, const void *slopes",
        "",
    ),
    "PagedCaching": (
        "k_cache_desc v_cache_desc k_desc v_desc slot_mapping_desc",
        "",
        "void *k_cache, void *v_cache, const void *k, const void *v, const void *slot_mapping",
        "",
    ),
    "Tan": ("input out", "", "void *output, const void *input", ""),
    "Twist": ("y x", "infiniopTwist_t twist", "void *y, const void *x", ""),
    "Topksoftmax": (
        "x_desc",
        "",
        "void *values, void *indices, const void *x",
        "const size_t topk, const int norm",
    ),
    "QuantGemm": (
        "out_desc a_desc b_scales_desc",
        "",
        "void *c, const void *a, void *b_scales",
        "",
    ),
    "Axpy": ("alpha_desc x_desc y_desc", "", "const void *alpha, const void *x, void *y", ""),
    "Pad": ("y x", "void *pad, const char *mode, double value", "void *y, const void *x", ""),
}
_EXTRA = """
struct infiniopOptions {{ int a; }};
{mark} __export infiniStatus_t infiniopGather(infiniopHandle_t handle, void *out, int count);
{mark} __export infiniStatus_t infiniopByValue(struct infiniopOptions options);
{mark} __export infiniStatus_t infiniopSetSpeed(infiniopHandle_t handle, float speed);
"""


def write_headers(root: Path, *, newer: bool) -> Path:
    """Write the headers of one style below ``root/include``; return that folder."""
    mark = "__INFINI_C" if newer else "__C"
    device = "INFINI_DEVICE_HYGON" if newer else "INFINI_DEVICE_SUGON"
    include = root / "include"
    (include / "infiniop" / "ops").mkdir(parents=True)
    (include / "infinicore.h").write_text(_CORE.format(mark=mark, device=device))
    (include / "infinirt.h").write_text(_RUNTIME.format(mark=mark))
    (include / "infiniop" / "handle.h").write_text(_HANDLE.format(mark=mark))
    for op, (tensors, scalars, data, more) in {**COMMON, **(NEWER if newer else {})}.items():
        create = "".join(f",\n    {_T} {name}" for name in tensors.split())
        create += f",\n    {scalars}" if scalars else ""
        launch = "".join(f",\n    {part}" for part in (data, more) if part)
        text = _OP.format(op=op, mark=mark, create=create, launch=launch)
        head = '#pragma once\n#include "../handle.h"\n' + (_MODE if "Twist_t" in create else "")
        (include / "infiniop" / "ops" / f"{op.lower()}.h").write_text(head + text)
    if newer:
        (include / "infiniop" / "ops" / "extra.h").write_text(
            '#pragma once\n#include "../handle.h"\n' + _EXTRA.format(mark=mark)
        )
    return include


def write_install(root: Path, *, newer: bool, accelerator: bool = False) -> Install:
    """Make headers and a library of functions that do nothing but succeed; return the install.

    Descriptors are counted; a launch writes 1.0 into the first element of its first output.
    The memory of an ``accelerator`` cannot be read but by infinirtMemcpy.
    """
    include = write_headers(root, newer=newer)
    (root / "lib").mkdir()
    paths = [include / "infinirt.h", *sorted((include / "infiniop").rglob("*.h"))]
    lines = [f'#include "{path}"' for path in paths]
    lines.append(_MEMORY.replace("AWAY", str(1 << 46 if accelerator else 0)))
    function = re.compile(r"__(?:INFINI_)?C __export infiniStatus_t (\w+)\(([^()]*)\);")
    for path in paths:
        for name, parameters in function.findall(path.read_text()):
            lines.append(f'extern "C" infiniStatus_t {name}({parameters}) {{{_body(name)}}}')
    library = root / "lib" / "libinfiniop.so"
    words = [compiler(), "-std=c++17", "-shared", "-fPIC", "-x", "c++", "-", "-o", str(library)]
    words += [f"-I{include}", "-Wl,-soname,libinfiniop.so"]
    subprocess.run(words, input="\n".join(lines), text=True, check=True)
    (root / "lib" / "libinfinirt.so").symlink_to(library)
    return Install(root, "option", include, (root / "lib" / "libinfinirt.so", library), None)


def _body(name: str) -> str:
    if re.fullmatch(r"infiniopCreate\w+", name):
        pointer = "handle_ptr" if name.endswith("Handle") else "desc_ptr"
        value = f"*reinterpret_cast<size_t*>({pointer}) = ++made;"
        return f"{value} return INFINI_STATUS_SUCCESS;"
    fills = {
        "infiniopGetDescriptorDeviceType": "*device_type = device;",
        "infiniopGetDescriptorDeviceId": "*device_id = away ? 1 : 0;",
        "infinirtGetDevice": "*device_ptr = device; *device_id_ptr = 0;",
        "infinirtMalloc": "*p_ptr = there(size);",
        "infinirtFree": "std::free(here(ptr));",
        "infinirtMemcpy": "std::memcpy(here(dst), here(src), size);",
    }
    outputs = ["y", "output", "out", "c", "k_cache", "values"]
    ops = {**COMMON, **NEWER}
    if (op := name.removeprefix("infiniop")) in ops:
        data = ops[op][2]
        first = next(o for o in outputs if re.search(rf"void \*{o}\b", data))
        fills[name] = f"*reinterpret_cast<float*>(here({first})) = 1.0f;"
    return f"{fills.get(name, '')} return INFINI_STATUS_SUCCESS;"
