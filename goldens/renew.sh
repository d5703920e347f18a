#!/bin/sh
# Records the golden sets of this repository again and renews their manifests: BIN [NAME]
set -eu
bin=$1 only=${2:-}
goldenctl=$bin/goldenctl
cd "$(dirname "$0")/.."

renew() {
    name=$1 source=$2
    shift 2
    if [ -n "$only" ] && [ "$only" != "$name" ]; then return; fi
    printf '\n== %s\n' "$name"
    # Exit code 1 says that a tensor changed its meaning: that is what a renewal is for.
    "$goldenctl" record "$source" --name "$name" --oracle "$@" >/dev/null || [ $? = 1 ]
    "$goldenctl" manifest "$name" --renew
}

renew qwen3-tiny 'synth:tiny?seed=0' --dtype bfloat16 --random-tokens 8
renew qwen2-tiny 'synth:qwen2-tiny?seed=0' --dtype float32 --random-tokens 8
renew llama-tiny 'synth:llama-tiny?seed=0' --dtype float32 --random-tokens 8 --decode 2 --taps sublayer
model=demo/smollm2/model
if [ "$only" = smollm2-135m ] || { [ -z "$only" ] && [ -d "$model" ]; }; then
    [ -d "$model" ] || { mkdir -p "${model%/*}"; "$bin/python" tests/real_weights.py "$model"; }
    renew smollm2-135m "$model" --prompt 'The capital of France is' --taps sublayer
fi
