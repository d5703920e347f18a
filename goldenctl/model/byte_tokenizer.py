"""A small tokenizer.json: byte-level BPE that encodes and decodes any text.

Written as plain JSON, so neither the tokenizers package nor a download is needed.
"""

from __future__ import annotations

from typing import Any

END_OF_TEXT = "<|endoftext|>"
# In order; both parts of a merge are bytes or earlier merges.
_MERGES = """
Ġ t,h e,i n,r e,o n,Ġt he,a t,e r,Ġ a,Ġ s,n d,Ġ w,i s,e n,o r,i t,Ġ o,e s,a n,Ġ b,Ġ c,e d,
Ġo f,in g,o u,Ġ p,a l,Ġa nd,Ġ f,a r,Ġt o,l l,Ġ in,Ġ m,Ġ h,l o,e l,Ġt h,Ġth is,H el,Hel lo,
Ġ is,s t,e st,Ġt est,p u,pu t,Ġin put
"""


def byte_tokenizer() -> dict[str, Any]:
    """Return the tokenizer.json: ids 0..255 are bytes, then merged pieces, then end of text."""
    vocab = {piece: index for index, piece in enumerate(byte_alphabet())}
    merges = [merge.strip().split(" ") for merge in _MERGES.split(",")]
    for first, second in merges:
        vocab.setdefault(first + second, len(vocab))
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_special(END_OF_TEXT, len(vocab))],
        "normalizer": None,
        "pre_tokenizer": {**level, "use_regex": True},
        "post_processor": None,
        "decoder": {**level, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges,
        },
    }


def _special(content: str, index: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": index, "content": content, **flags, "special": True}


def byte_alphabet() -> list[str]:
    """Return GPT-2's printable stand-in for each of the 256 bytes, indexed by byte."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in printable]
    stand_in = {byte: chr(256 + index) for index, byte in enumerate(others)}
    return [stand_in.get(byte, chr(byte)) for byte in range(256)]
