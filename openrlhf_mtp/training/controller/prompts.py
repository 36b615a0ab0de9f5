"""OpenRLHF's prompt data set, which names a row without a prompt before the engines meet it.

`check` looks at local files; this is for what it cannot see: data from the Hub, folders, scripts.
"""

from __future__ import annotations

from typing import Any

from openrlhf.datasets import PromptDataset

from openrlhf_mtp.config.errors import JobError


class CheckedPrompts(PromptDataset):
    """Raises `JobError` when it is made and a prompt is missing or empty: vLLM refuses a request without a token."""

    def __init__(self, dataset: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(dataset, *args, **kwargs)
        bad = [number for number, prompt in enumerate(self.prompts, start=1) if not prompt]
        if bad:
            named = ", ".join(map(str, bad[:3])) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
            raise JobError(
                f"data.prompt_dataset or eval.dataset: got no prompt in row {named} of {len(self.prompts)}, "
                "expected text in each; remove these rows or fill them in"
            )
