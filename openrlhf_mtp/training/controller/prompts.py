"""OpenRLHF's prompt data set, which names a row without a prompt before the engines meet it.

`check` looks at local files; this is for what it cannot see: data from the Hub, folders, scripts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from openrlhf.datasets import PromptDataset

from openrlhf_mtp.config.errors import JobError


class CheckedPrompts(PromptDataset):
    """Raises `JobError` when it is made and a prompt is not text, or empty: vLLM refuses a request without a token."""

    def __init__(self, dataset: Any, tokenizer: Any, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if strategy.args.data.apply_chat_template and not getattr(tokenizer, "chat_template", None):
            raise JobError(
                "data.apply_chat_template: this is true, and the policy's tokenizer has no chat template; set it to "
                "false (with data.input_template, if the prompts need one) or add chat_template.jinja to the policy"
            )
        super().__init__(dataset, tokenizer, strategy, *args, **kwargs)
        _require("no prompt", "text in each; remove these rows or fill them in", self.prompts, bool)
        _require(
            "something else than text",
            "text in each, or data.apply_chat_template=true for lists of messages",
            self.prompts,
            lambda prompt: isinstance(prompt, str),
        )


def _require(got: str, expected: str, prompts: Sequence[Any], right: Callable[[Any], bool]) -> None:
    bad = [number for number, prompt in enumerate(prompts, start=1) if not right(prompt)]
    if bad:
        named = ", ".join(map(str, bad[:3])) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
        raise JobError(
            f"data.prompt_dataset or eval.dataset: got {got} in row {named} of {len(prompts)}, expected {expected}"
        )
