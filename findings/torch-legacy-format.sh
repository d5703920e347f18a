#!/bin/sh
# Guess: whatever torch.save writes without a warning, torch.load of the same version reads again,
# in the legacy format (_use_new_zipfile_serialization=False) as in the zip format.
#
# Seen with torch 2.13.0 on the CPU: a float8_e5m2 or uint16 tensor is written in the legacy
# format without a word, and torch.load fails on the file, with weights_only and without:
#   AttributeError: type object 'torch.storage.UntypedStorage' has no attribute 'dtype'
# The format names a tensor's storage by a class for each dtype, and newer dtypes have none. In
# the zip format the same tensors come back. Files of these dtypes in the legacy format are lost.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "torch==2.13.0" "numpy==2.4.6"
"$folder/venv/bin/python" - "$folder/x.pt" <<'PYTHON'
import sys

import torch

path = sys.argv[1]
print("torch", torch.__version__)
changed = False
for dtype in (torch.float32, torch.bfloat16, torch.float8_e5m2, torch.uint16):
    for zipped in (True, False):
        torch.save(torch.zeros(3, dtype=dtype), path, _use_new_zipfile_serialization=zipped)
        for weights_only in (True, False):
            try:
                torch.load(path, weights_only=weights_only)
                seen = "read again"
            except AttributeError as error:
                seen = f"AttributeError: {error}"
            expected = zipped or dtype in (torch.float32, torch.bfloat16)
            changed |= (seen == "read again") != expected
            print(f"{dtype}, {'zip' if zipped else 'legacy'}, {weights_only=}: {seen}")
sys.exit(changed)
PYTHON
