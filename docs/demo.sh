#!/bin/sh
# The demo behind `make demo` and `make demo-real`: BIN FOLDER synth|real
set -eu
bin=$1 folder=$2 kind=$3
goldenctl=$bin/goldenctl

step() {
    printf '\n== %s\n' "$1"
    shift
    printf '$ %s\n' "$*" | sed "s|$bin/||g"
    "$@"
}

mkdir -p "$folder"
"$goldenctl" infinicore status >/dev/null 2>&1 ||
    step "InfiniCore: build its CPU libraries from source" "$goldenctl" infinicore install
if [ ! -d "$folder/model" ]; then
    if [ "$kind" = synth ]; then
        step "make a small random Qwen3" "$goldenctl" synth tiny "$folder/model"
    else
        step "unpack real weights: SmolLM2-135M-Instruct" \
            "$bin/python" tests/real_weights.py "$folder/model"
    fi
fi
step "record every op of the PyTorch reference" \
    "$goldenctl" record "$folder/model" "$folder/golden.h5" --force
step "replay each op and each sublayer on InfiniCore" \
    "$goldenctl" replay "$folder/golden.h5" "$folder/run.h5" --backend infinicore --force
step "score it" "$goldenctl" diff "$folder/golden.h5" "$folder/run.h5"
