"""From calls to names: walks a program's calls in order and says which op of the golden each is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from goldenctl.golden.file import GoldenFile
from goldenctl.trace import attention, norms, products, sums, turns
from goldenctl.trace.args import inputs, outputs
from goldenctl.trace.calls import Call, Calls, Copy
from goldenctl.trace.fused import fused
from goldenctl.trace.given import Given, given_tensors, name_given
from goldenctl.trace.opmap import OpMap
from goldenctl.trace.passes import Pass, Tokens, find_passes, hidden_inputs, token_problem
from goldenctl.trace.tracing import Tracing
from goldenctl.trace.values import Place, tag_of
from goldenctl.trace.weights import Book

Handler = Callable[[Tracing, Call], None]
Progress = Callable[[int, int, str], None]


def move(tracing: Tracing, call: Call) -> None:
    """``y, x``: the same elements elsewhere, or in another layout."""
    outs, ins = outputs(call), inputs(call)
    if not outs or not ins or outs[0].shape != ins[0].shape:
        tracing.not_explained(call)
        return
    tracing.memory.write(outs[0], tracing.tags(ins[0]))


def elsewhere(tracing: Tracing, call: Call) -> None:
    """Rows that are chosen or put into a cache: by their bytes they are known when they are read
    (recover.py). Of a sampled token nothing is read."""
    for arg in outputs(call):
        tracing.forget(arg)


HANDLERS: Mapping[str, Handler] = {
    "RMSNorm": norms.rms_norm,
    "AddRMSNorm": norms.add_rms_norm,
    "Gemm": products.gemm,
    "Matmul": products.gemm,
    "RoPE": turns.rope,
    "RoPEv2": turns.rope,
    "CausalSoftmax": attention.softmax,
    "Softmax": attention.softmax,
    "SwiGLU": sums.swiglu,
    "SiluAndMul": sums.silu_and_mul,
    "Add": sums.add_call,
    "Rearrange": move,
    "Cast": move,
    "Embedding": elsewhere,
    "KVCaching": elsewhere,
    "PagedCaching": elsewhere,
    "SelectLastTokenHidden": elsewhere,
    "RandomSample": elsewhere,
    "Attention": fused,
    "FlashAttention": fused,
    "PagedAttention": fused,
    "PagedAttentionPrefill": fused,
}


def name_calls(
    golden: GoldenFile,
    book: Book,
    logs: Sequence[Calls],
    *,
    ops: OpMap | None = None,
    progress: Progress = lambda *_: None,
) -> tuple[Tracing, list[Pass]]:
    """Name every call of a program's processes; return what was found, and their passes.

    Where two processes computed one tensor, the first one's is taken. Raises UsageError where
    ``ops`` name what is not a tensor of the golden or of a call.
    """
    entries = golden.recipe["cases"]
    cases = [Tokens.of(golden, entry) for entry in entries]
    first = Tracing(golden, book, logs[0], {tokens.case.name: tokens for tokens in cases})
    processes = [first, *(first.of_process(calls) for calls in logs[1:])]
    passes = []
    for number, process in enumerate(processes, 1):
        given = given_tensors(ops or OpMap(), process, number)
        passes += _name_process(process, cases, given, progress)
    _join(processes)
    _check_tokens(first, passes, cases)
    return first, passes


def _name_process(
    tracing: Tracing, cases: Sequence[Tokens], given: Given, progress: Progress
) -> list[Pass]:
    passes = find_passes(tracing.calls, tracing.book, cases)
    beginning = {each.call: each for each in passes}
    events = tracing.calls.events
    for count, event in enumerate(events):
        if isinstance(event, Copy):
            tracing.memory.copy(event)
        elif isinstance(event, Call) and event.status == 0:
            if event.number in beginning:
                _begin(tracing, beginning[event.number], event)
            if not name_given(tracing, event, given):
                _name(tracing, event)
        progress(count + 1, len(events), "naming calls")
    _finish(tracing)
    return passes


def _join(processes: Sequence[Tracing]) -> None:
    """Put together what processes computed, and say which one gave what."""
    first = processes[0]
    if len(processes) == 1:
        return
    for number, process in enumerate(processes, 1):
        count = sum(1 for _ in process.calls.calls)
        said = f"process {number} (pid {process.calls.start.pid}): {count} calls"
        said += f", {len(process.ever)} of the model's tensors in whole or in part"
        first.notes[said] = None
        disputed = first.canvas.merge(process.canvas) if process is not first else []
        if disputed:
            said = f"process {number} computes {len(disputed)} tensors otherwise than those before"
            said += f", such as {disputed[0]}: it is not judged there; trace --calls its log alone"
            first.notes[said] = None


def _begin(tracing: Tracing, pass_: Pass, call: Call) -> None:
    """Start a pass: the rows of its first norm's input are its tokens' embeddings."""
    _finish(tracing)
    tracing.pass_ = pass_ if pass_.tokens_of is not None else None
    tracing.hidden.clear()
    tracing.done.clear()
    if tracing.pass_ is None:
        return
    place = Place(tracing.flow.case, "embedding", "output")
    number = tracing.number(place)
    for arg in hidden_inputs(call, tracing.calls):
        size, width = tracing.values.row_size(number), tracing.values.shape(number)[1]
        first = (pass_.rows * width + pass_.tokens) * size
        tags = tag_of(number, first[:, None] + np.arange(size)).reshape(arg.shape)
        tracing.hidden[arg.before or ""] = tags.reshape(-1)
        values = tracing.book.array(tracing.calls.weights[arg.before or ""], arg)
        tracing.found_embeddings(arg, tags, values)


def _name(tracing: Tracing, call: Call) -> None:
    if tracing.pass_ is None:
        if call.op in ("Rearrange", "Cast"):
            move(tracing, call)
        else:
            _forget_outputs(tracing, call)
        return
    handler = HANDLERS.get(call.op)
    if handler is None:
        tracing.not_explained(call)
        _forget_outputs(tracing, call)
        return
    try:
        handler(tracing, call)
    except (ValueError, IndexError, KeyError) as error:
        # Tensors of other shapes than this op has here: an op of something else.
        if not tracing.unexplained[call.function]:
            what = f"call {call.number}, {call.function}, fits no op here"
            tracing.notes[f"{what} ({type(error).__name__}: {error})"] = None
        tracing.not_explained(call)
        _forget_outputs(tracing, call)


def _forget_outputs(tracing: Tracing, call: Call) -> None:
    for arg in outputs(call):
        tracing.forget(arg)


def _finish(tracing: Tracing) -> None:
    """Hold what a pass computed against what it should have."""
    pass_ = tracing.pass_
    if pass_ is None or pass_.tokens_of is None:
        return
    for place in tracing.done:
        node = tracing.flow.nodes[place]
        if len(node.op.weights) > 1 and place not in tracing.biased:
            text = f"{place.tap} is computed without its bias, {node.op.weights[1]}"
            tracing.find(place, "missing", text)
    _check_last_token(tracing, pass_)


def _check_last_token(tracing: Tracing, pass_: Pass) -> None:
    """The logits that a pass computes must have its last token's among them."""
    place = Place(tracing.flow.case, "lm_head", "output")
    picture = tracing.canvas.pictures.get(place)
    if place not in tracing.done or picture is None or pass_.wrong:
        return
    for row in np.unique(pass_.rows):
        mine = pass_.tokens[pass_.rows == row]
        computed = [int(t) for t in mine if picture.rows[row, t]]
        if computed and int(mine.max()) not in computed:
            text = f"the logits are of token {computed[-1]}, expected the last, {int(mine.max())}"
            tracing.find(place, "input", text)
            return


def _check_tokens(tracing: Tracing, passes: list[Pass], cases: list[Tokens]) -> None:
    tracing.pass_ = None
    for tokens, problem in token_problem(passes, cases):
        if problem:
            tracing.find_tokens(tokens.case.name, problem)
    for each in passes:
        if each.wrong:
            tracing.notes[f"{', '.join(each.names)}: {each.wrong}, so this step is not judged"] = (
                None
            )
