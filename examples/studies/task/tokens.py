"""The task's tokenizer, which is the arithmetic example's: `<pad>`, `<eos>` and the 256 bytes."""

import sys
from functools import cache
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from task.walk import LENGTHS

ARITHMETIC = Path(__file__).parents[2] / "arithmetic"
if str(ARITHMETIC) not in sys.path:
    sys.path.append(str(ARITHMETIC))

import byte_tokenizer  # noqa: E402


def build() -> PreTrainedTokenizerFast:
    """The tokenizer."""
    return byte_tokenizer.build()


@cache
def move_tokens() -> tuple[int, ...]:
    """Ids of the letters that are moves."""
    return tuple(build()("".join(LENGTHS), add_special_tokens=False)["input_ids"])
