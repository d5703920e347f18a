#!/bin/sh
# Guess: a forward hook that is registered after torch.compile's first call is called from the next
# call on: the code is compiled again, as it is for any other change of the module that it guards.
#
# Seen with torch 2.13.0 on the CPU, backend "eager", with no warning: hooks on a model and on a layer
# of it that are registered before the first call are called; registered after it, neither is
# called, until torch.compiler.reset(). So a recorder that adds its hooks to a model which ran
# compiled before sees nothing.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "torch==2.13.0" "numpy==2.4.6"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
from torch import nn


def calls(*, late):
    """What hooks see of two calls, registered before the first or between them; then of a third
    one, after a reset."""
    seen = []
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    compiled, x = torch.compile(model, backend="eager"), torch.ones(2, 4)

    def register():
        model[0].register_forward_hook(lambda *_: seen.append("layer"))
        model.register_forward_hook(lambda *_: seen.append("model"))

    if not late:
        register()
    compiled(x)
    if late:
        register()
    seen.clear()
    compiled(x)
    before = list(seen)
    torch.compiler.reset()
    seen.clear()
    compiled(x)
    return before, list(seen)


print("torch", torch.__version__)
both = ["layer", "model"]
early, late = calls(late=False), calls(late=True)
print("registered before the first call: seen", early[0], "and after a reset", early[1])
print("registered after it: seen", late[0], "and after a reset", late[1])
sys.exit((early, late) != ((both, both), ([], both)))
PYTHON
