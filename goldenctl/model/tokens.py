"""The inputs: prompts, token ids and random tokens become named cases."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from goldenctl.errors import DamagedError, MissingError, UsageError
from goldenctl.model.case import Case, Rows, Wording
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.model.config import ModelConfig, load_config
from goldenctl.model.fields import is_int, show
from goldenctl.model.inputs import Inputs
from goldenctl.model.jsonfile import parse_object
from goldenctl.model.suite import standard_suite
from goldenctl.model.tokenizer import Encoded, encode_apart

DEFAULT_PROMPT = "Hello, this is a test input"
# Padding is hidden from every other token, so that its id matters nowhere.
PADDING_TOKEN = 0
PROMPTS_LIMIT_BYTES = 16 << 20
CASES_LIMIT = 10_000
_LINE_KEYS = {"name", "prompt", "token_ids", "force_tokens", "why", "position_offset"}
_WHY_LIMIT = 1000
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True)
class _Draft:
    """A case before its text is encoded; ``source`` names it in errors."""

    source: str
    name: str
    text: str | None = None
    token_ids: Rows | None = None
    forced: Rows = ()
    why: str = ""
    position_offset: int = 0


def make_cases(inputs: Inputs, folder: str | Path, config: ModelConfig) -> tuple[Case, ...]:
    """Return the cases of ``inputs``, with unique names, in the order given.

    ``folder`` is the checkpoint, whose ``tokenizer.json`` encodes the prompts. Raises
    UsageError for ids or lengths that are beyond the model's, MissingError without a tokenizer.
    """
    inputs.refuse_contradictions()
    drafts = [*_suite_drafts(inputs, Path(folder), config), *_drafts(inputs, config)]
    if len(drafts) > CASES_LIMIT:
        message = f"{len(drafts)} cases, at most {CASES_LIMIT} are possible"
        raise UsageError(message)
    encoded = _encode(drafts, Path(folder), config)
    if inputs.batch:
        return (_batch(drafts, encoded, inputs, config),)
    cases = []
    taken: set[str] = set()
    for draft, (token_ids, wording) in zip(drafts, encoded, strict=True):
        if draft.name in taken:
            message = f"{draft.source}: the case name {draft.name} is taken already"
            raise UsageError(message)
        taken.add(draft.name)
        cases.append(replace(_case(draft, token_ids, inputs, config), wording=wording))
    return tuple(cases)


def _batch(
    drafts: list[_Draft],
    encoded: list[tuple[Rows, Wording]],
    inputs: Inputs,
    config: ModelConfig,
) -> Case:
    """Make one case of all rows, padded to one length."""
    rows = tuple(row for token_ids, _ in encoded for row in token_ids)
    counts = [len(token_ids) for token_ids, _ in encoded]
    forced = tuple(
        row
        for draft, count in zip(drafts, counts, strict=True)
        for row in (draft.forced * count if len(draft.forced) == 1 else draft.forced)
    )
    if forced and not all(draft.forced for draft in drafts):
        message = "the batch: only some rows have forced tokens"
        raise UsageError(message, hint="give force_tokens in every line, or in none")
    texts = tuple(d.text for d, count in zip(drafts, counts, strict=True) for _ in range(count))
    padding, padded = pad(rows, (inputs.padding_side or "left"))
    case = _case(_Draft("the batch", "batch", forced=forced), padded, inputs, config)
    case = replace(
        case,
        padding=padding,
        padding_side=(inputs.padding_side or "left"),
        row_texts=texts if any(text is not None for text in texts) else (),
        wording=_joined([wording for _, wording in encoded], counts),
    )
    return _checked("the batch", case, config)


def pad(rows: Rows, side: str) -> tuple[tuple[int, ...], Rows]:
    """Return how many padding tokens each row gets on ``side``, and the rows with them; no
    counts at all where the rows have one length."""
    length = max(map(len, rows))
    counts = tuple(length - len(row) for row in rows)
    if not any(counts):
        return (), rows
    padded = []
    for row, count in zip(rows, counts, strict=True):
        filler = (PADDING_TOKEN,) * count
        padded.append(filler + row if side == "left" else row + filler)
    return counts, tuple(padded)


def _case(draft: _Draft, token_ids: Rows, inputs: Inputs, config: ModelConfig) -> Case:
    forced = draft.forced
    if not forced and inputs.force_tokens is not None:
        forced = parse_ids(inputs.force_tokens)
    forced = forced * len(token_ids) if len(forced) == 1 else forced
    decode = len(forced[0]) if forced else inputs.decode
    case = Case(
        draft.name,
        token_ids,
        draft.text,
        why=draft.why,
        decode=decode,
        forced=forced,
        position_offset=draft.position_offset,
        prefill_chunk=inputs.prefill_chunk,
    )
    return _checked(draft.source, case, config)


def _checked(source: str, case: Case, config: ModelConfig) -> Case:
    if problem := case.problem(config):
        message = f"{source}: {problem}"
        raise UsageError(message)
    return case


def parse_ids(text: str) -> Rows:
    """Return ``1,2,3;4,5,6`` as ``[batch, token]`` ids; UsageError when it is not that."""
    rows = []
    for row in text.split(";"):
        pieces = [piece.strip() for piece in row.split(",")]
        if not all(piece.isascii() and piece.isdigit() and len(piece) <= 9 for piece in pieces):
            message = f"token ids {show(text)}: expected numbers like 1,2,3"
            raise UsageError(message, hint="separate the rows of a batch by ;")
        rows.append(tuple(int(piece) for piece in pieces))
    return tuple(rows)


def random_ids(count: int, vocab_size: int, seed: int) -> tuple[int, ...]:
    """Return ``count`` ids below ``vocab_size``: the same on every machine and NumPy version.

    The 64-bit draws of PCG64, modulo the vocabulary (its bias is below 2**-40).
    """
    draws = np.random.PCG64(seed).random_raw(count)
    return tuple(int(draw) for draw in draws % np.uint64(vocab_size))


def _drafts(inputs: Inputs, config: ModelConfig) -> list[_Draft]:
    drafts = []
    many = len(inputs.prompts) > 1
    for number, text in enumerate(inputs.prompts, start=1):
        name = f"prompt-{number}" if many else "prompt"
        drafts.append(_Draft(f"prompt {number}", name, text))
    if inputs.prompts_file is not None:
        drafts += _read_prompts(inputs.prompts_file)
    many = len(inputs.token_ids) > 1
    for number, ids in enumerate(inputs.token_ids, start=1):
        name = f"tokens-{number}" if many else "tokens"
        drafts.append(_Draft(f"token ids {number}", name, token_ids=parse_ids(ids)))
    if inputs.random_tokens is not None:
        drafts.append(_random_draft(inputs.random_tokens, (inputs.seed or 0), config))
    if drafts or inputs.suite is not None:
        return drafts
    return [_Draft("the default prompt", "default", DEFAULT_PROMPT)]


def _suite_drafts(inputs: Inputs, folder: Path, config: ModelConfig) -> list[_Draft]:
    if inputs.suite is None:
        return []
    if inputs.batch:
        message = "--suite and --batch: a suite's cases stand alone"
        raise UsageError(message, hint="leave one of them out")
    forced = parse_ids(inputs.force_tokens) if inputs.force_tokens is not None else ()
    decode = len(forced[0]) if forced else inputs.decode
    cases = standard_suite(Checkpoint.open(folder), config, decode=decode)
    left_out = left_out_of_suite(inputs, folder)
    return [
        _Draft(
            f"suite {inputs.suite}: {case.name}",
            case.name,
            case.text,
            case.token_ids,
            why=case.why,
            position_offset=case.position_offset,
        )
        for case in cases
        if case.token_ids is not None or not left_out
    ]


def left_out_of_suite(inputs: Inputs, folder: str | Path) -> str:
    """Say why the suite's texts cannot be encoded; empty when they can, or without a suite."""
    if inputs.suite is None:
        return ""
    try:
        encode_apart(Path(folder), load_config(folder).model_type, ())
    except (MissingError, UsageError) as error:
        return error.message
    return ""


def _random_draft(count: int, seed: int, config: ModelConfig) -> _Draft:
    if not 1 <= count <= config.max_position_embeddings:
        limit = config.max_position_embeddings
        message = f"random tokens: expected a count from 1 to {limit}, got {count}"
        raise UsageError(message)
    if seed < 0:
        message = f"seed: expected 0 or more, got {seed}"
        raise UsageError(message)
    ids = random_ids(count, config.vocab_size, seed)
    return _Draft("random tokens", f"random-{seed}", token_ids=(ids,))


def _read_prompts(path: Path) -> list[_Draft]:
    """Read one prompt per line, or JSON lines {"name", "prompt" | "token_ids"}."""
    try:
        with path.open("rb") as file:
            data = file.read(PROMPTS_LIMIT_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror})"
        raise UsageError(message) from error
    except UnicodeDecodeError as error:
        message = f"{path}: is not UTF-8 text"
        raise DamagedError(message) from error
    if len(data) > PROMPTS_LIMIT_BYTES:
        message = f"{path}: larger than the {PROMPTS_LIMIT_BYTES} bytes that are allowed"
        raise UsageError(message)
    lines = [(n, line.rstrip("\r")) for n, line in enumerate(text.split("\n"), start=1)]
    lines = [(number, line) for number, line in lines if line.strip()]
    if not lines:
        message = f"{path}: has no prompt"
        raise UsageError(message)
    as_json = all(line.lstrip().startswith("{") for _, line in lines)
    read = _json_draft if as_json else _text_draft
    return [read(line, f"{path}: line {number}", f"line-{number}") for number, line in lines]


def _text_draft(line: str, source: str, name: str) -> _Draft:
    return _Draft(source, name, line)


def _json_draft(line: str, source: str, name: str) -> _Draft:
    item = parse_object(line.encode(), source)
    unknown = item.keys() - _LINE_KEYS
    if unknown or ("prompt" in item) == ("token_ids" in item):
        message = (
            f"{source}: expected either prompt or token_ids, and optionally name, why, "
            "force_tokens and position_offset"
        )
        raise UsageError(message)
    name = item.get("name", name)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        message = f"{source}: name {show(name)}: expected up to 64 of a-z, 0-9, _ and -"
        raise UsageError(message)
    why, offset = item.get("why", ""), item.get("position_offset", 0)
    if not isinstance(why, str) or len(why) > _WHY_LIMIT:
        message = f"{source}: why: expected a text of at most {_WHY_LIMIT} characters"
        raise UsageError(message)
    if not is_int(offset) or offset < 0:
        message = f"{source}: position_offset {show(offset)}: expected 0 or more"
        raise UsageError(message)
    forced = _json_ids(item, "force_tokens", source) if "force_tokens" in item else ()
    rest: dict[str, Any] = {"forced": forced, "why": why, "position_offset": offset}
    if "token_ids" in item:
        ids = _json_ids(item, "token_ids", source)
        return _Draft(source, name, token_ids=ids, **rest)
    if not isinstance(item["prompt"], str):
        message = f"{source}: prompt: expected a string"
        raise UsageError(message)
    return _Draft(source, name, item["prompt"], **rest)


def _json_ids(item: dict[str, Any], key: str, source: str) -> Rows:
    value = item[key]
    rows = value if isinstance(value, list) and value and isinstance(value[0], list) else [value]
    for row in rows:
        if not isinstance(row, list) or not all(is_int(token) for token in row):
            message = f"{source}: {key}: expected a list of integers, or a list of such lists"
            raise UsageError(message)
    return tuple(tuple(row) for row in rows)


def _encode(drafts: list[_Draft], folder: Path, config: ModelConfig) -> list[tuple[Rows, Wording]]:
    prompts = [(each.source, each.text or "") for each in drafts if each.token_ids is None]
    found = iter(encode_apart(folder, config.model_type, prompts) if prompts else ())
    return [
        (draft.token_ids, Wording())
        if draft.token_ids is not None
        else _worded(draft.text or "", next(found))
        for draft in drafts
    ]


def _worded(text: str, found: Encoded) -> tuple[Rows, Wording]:
    decoded = (found.decoded,) if found.decoded != text else ()
    return (found.ids,), Wording((found.tokens,), decoded, found.tokenizer)


def _joined(wordings: Sequence[Wording], counts: Sequence[int]) -> Wording:
    """Join the wordings of a batch's parts, which have so many rows; nothing where none has any."""
    if not any(wording.tokens for wording in wordings):
        return Wording()
    parts = [(w, w.tokens or ((),) * n, n) for w, n in zip(wordings, counts, strict=True)]
    decoded = tuple(d for w, _, n in parts for d in w.decoded or (None,) * n)
    names = [w.tokenizer for w in wordings if w.tokenizer]
    return Wording(
        tuple(row for _, rows, _ in parts for row in rows),
        decoded if any(d is not None for d in decoded) else (),
        names[0] if names else "",
    )
