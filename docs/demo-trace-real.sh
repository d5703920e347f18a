#!/bin/sh
# The demo behind `make demo-trace-real`: BIN FOLDER, in which the model lies
set -eu
bin=$1 folder=$2
goldenctl=$bin/goldenctl
tokens=504,3575,282,4649,314 # The capital of France is

step() {
    printf '\n== %s\n' "$1"
    shift
    printf '$ %s\n' "$*" | sed "s|$bin/||g"
    "$@"
}

root=$("$goldenctl" infinicore status | sed -n 's/^root: //p')
printf '\n== build a C++ engine that knows nothing of goldenctl\n'
{
    "$bin/cmake" -S docs/examples/engine -B "$folder/engine" -G Ninja \
        -DCMAKE_MAKE_PROGRAM="$(cd "$bin" && pwd)/ninja" -DINFINI_ROOT="$root" &&
        "$bin/cmake" --build "$folder/engine"
} >"$folder/engine.log" || {
    cat "$folder/engine.log"
    exit 1
}
for dtype in float32:fp32 bfloat16:bf16 float16:fp16; do
    golden=$folder/golden-${dtype#*:}.h5 run=$folder/engine-${dtype#*:}.h5
    step "record what PyTorch computes in ${dtype%:*}: five tokens and a decode step" \
        "$goldenctl" record "$folder/model" "$golden" --force --token-ids $tokens --decode 1 \
        --dtype "${dtype%:*}" --oracle
    step "run the engine in that type, and see every op that it has InfiniCore compute" \
        "$goldenctl" trace "$golden" "$run" -- \
        "$folder/engine/engine" "$folder/model" --tokens $tokens --decode 1 --dtype "${dtype#*:}"
    step "judge it" "$goldenctl" diff "$golden" "$run"
done
