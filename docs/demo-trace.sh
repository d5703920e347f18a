#!/bin/sh
# The demo behind `make demo-trace`: BIN FOLDER
set -eu
bin=$1 folder=$2
goldenctl=$bin/goldenctl
tokens=3,22,41,60,79,98,117,136,155

step() {
    printf '\n== %s\n' "$1"
    shift
    printf '$ %s\n' "$*" | sed "s|$bin/||g"
    "$@"
}

build() { # NAME OPTIONS: the example engine, as a porting team builds it
    printf '$ cmake -S docs/examples/engine -B %s -DINFINI_ROOT=... %s\n' "$folder/$1" "${2:-}"
    "$bin/cmake" -S docs/examples/engine -B "$folder/$1" -G Ninja \
        -DCMAKE_MAKE_PROGRAM="$(cd "$bin" && pwd)/ninja" -DINFINI_ROOT="$root" ${2:-} >"$folder/$1.log" &&
        "$bin/cmake" --build "$folder/$1" >>"$folder/$1.log" || {
        cat "$folder/$1.log"
        exit 1
    }
}

mkdir -p "$folder"
"$goldenctl" infinicore status >/dev/null 2>&1 ||
    step "InfiniCore: build its CPU libraries from source" "$goldenctl" infinicore install
root=$("$goldenctl" infinicore status | sed -n 's/^root: //p')
[ -d "$folder/model" ] || step "make a small random Qwen3" "$goldenctl" synth tiny "$folder/model"
step "record what PyTorch computes: nine tokens and two decode steps" \
    "$goldenctl" record "$folder/model" "$folder/golden.h5" --force \
    --token-ids $tokens --decode 2 --dtype bfloat16 --oracle

printf '\n== build a C++ engine that knows nothing of goldenctl\n'
build engine
step "run it, and see every op that it has InfiniCore compute" \
    "$goldenctl" trace "$folder/golden.h5" "$folder/engine.h5" -- \
    "$folder/engine/engine" "$folder/model" --tokens $tokens --decode 2 --dtype bf16
step "judge it" "$goldenctl" diff "$folder/golden.h5" "$folder/engine.h5"

printf '\n== build it again with a mistake that ports make\n'
build wrong -DMISTAKE=no_q_norm
step "run that" \
    "$goldenctl" trace "$folder/golden.h5" "$folder/wrong.h5" -- \
    "$folder/wrong/engine" "$folder/model" --tokens $tokens --decode 2 --dtype bf16
step "judge it" "$goldenctl" diff "$folder/golden.h5" "$folder/wrong.h5" || test $? = 1
