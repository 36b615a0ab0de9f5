"""The policy and the head that `bench.rollout` measures, and the prompts that they answer."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrlhf_mtp.bench.rollout_engine import Workload
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.head_contract.folder import CONFIG_FILE, head_folder
from openrlhf_mtp.config.model_files import read_json as read_json_object
from openrlhf_mtp.config.run_files import FINAL
from openrlhf_mtp.config.settings.mtp import DType, MTPSettings

QUICKSTART = Path("runs/quickstart")
PROMPTS = 16
STAND_IN_DTYPE: DType = "bfloat16"
"""Half the weights to read: what drafting gains is measured where memory is the limit."""
QUESTIONS = tuple(
    f"A train leaves at {hour} o'clock and needs {minutes} minutes for each of its {stops} stops. When does it arrive? "
    "Explain your steps."
    for hour, minutes, stops in zip(
        range(5, 5 + PROMPTS), range(11, 11 + 2 * PROMPTS, 2), range(3, 3 + PROMPTS), strict=True
    )
)


@dataclass(frozen=True)
class Subject:
    """The subject of a measurement: the policy, its head, and the source of its prompts."""

    policy: Path
    head: Path
    prompts: Path | None

    @classmethod
    def find(cls, model: str | None, head: Path | None, prompts: Path | None) -> Subject:
        """A given model, or else the quickstart's result.

        Raises:
            JobError: no model was given and no quickstart has run here.
        """
        if model is not None:
            return cls(Path(model), head_folder(head, model), prompts)
        policy, data = QUICKSTART / "rl" / FINAL, QUICKSTART / "data" / "eval.jsonl"
        if not (head_folder(None, policy) / CONFIG_FILE).is_file():
            raise JobError(
                f"{policy}: no model with a head there; run `openrlhf-mtp quickstart` first, or name one: "
                "openrlhf-mtp bench rollout MODEL"
            )
        return cls(policy, head_folder(head, policy), prompts or data)

    def require_files(self) -> None:
        """See that both folders hold a model.

        Raises:
            JobError: one does not.
        """
        for folder in (self.policy, self.head):
            read_json(folder / "config.json")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that must be there."""
    if not path.is_file():
        raise JobError(
            f"{path}: no such file; expected the folder of a Hugging Face model, and of a head made by equip"
        )
    return read_json_object(path)


def settings_for(subject: Subject, *, on_cpu: bool, dtype: DType = STAND_IN_DTYPE) -> MTPSettings:
    """The engine's settings, with drafts as deep as the head was made for."""
    section = read_json(subject.head / "config.json").get("mtp")
    if section is None:
        raise JobError(
            f"{subject.head}: not a head; run `openrlhf-mtp equip` on the model, then train its head"
        )
    rollout: dict[str, Any] = {"max_num_seqs": PROMPTS, "dtype": dtype}
    if on_cpu:
        rollout["kv_cache_gib"] = 1.0
    return MTPSettings.model_validate(
        {
            "head": str(subject.head),
            "depths": section["depths"],
            "num_blocks": section["num_layers"],
            "rollout": rollout,
        }
    )


def make_workload(
    subject: Subject, *, max_new_tokens: int, repeats: int, chat_template: bool = True
) -> Workload:
    """The same prompts for both settings, as the policy's tokenizer sees them.

    Args:
        subject: the policy and the source of its prompts.
        max_new_tokens: longest response.
        repeats: timed repetitions of each batch.
        chat_template: put each prompt into the tokenizer's chat template, where it has one.

    Raises:
        JobError: the tokenizer or the prompts cannot be read.
    """
    from transformers import AutoTokenizer, GenerationConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(subject.policy)
    except (OSError, ValueError) as problem:
        reason = str(problem).strip().splitlines()[0]
        raise JobError(f"{subject.policy}: its tokenizer cannot be loaded: {reason}") from problem
    prompts = list(QUESTIONS) if subject.prompts is None else read_prompts(subject.prompts)
    templated = chat_template and tokenizer.chat_template is not None
    texts = [_text(prompt, tokenizer if templated else None) for prompt in prompts]
    ends = read_json(subject.policy / "config.json").get("eos_token_id")
    if (subject.policy / "generation_config.json").is_file():
        ends = GenerationConfig.from_pretrained(subject.policy).eos_token_id or ends
    stop = ends if isinstance(ends, list) else [] if ends is None else [ends]
    tokens = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    return Workload(tokens, max_new_tokens, stop, repeats=repeats)


Prompt = str | list[dict[str, str]]
"""A text, or the messages of a conversation, as in a job's `data.input_key`."""


def _text(prompt: Prompt, tokenizer: Any) -> str:
    """A prompt as the engine's text; `tokenizer` puts it into its chat template, None leaves it.

    Raises:
        JobError: a conversation without a template.
    """
    if tokenizer is not None:
        chat = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
    if not isinstance(prompt, str):
        raise JobError(
            "--prompts: got messages and no chat template to put them in, expected each `input` a text"
        )
    return prompt


def read_prompts(file: Path) -> list[Prompt]:
    """The first prompts of a file.

    Raises:
        JobError: it is not there, or a line is no JSON object with an `input`, a text or messages.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()[:PROMPTS]
        prompts = [json.loads(line)["input"] for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise JobError(
            f"--prompts: got {file}, expected JSON lines with an `input` each ({type(problem).__name__}: {problem})"
        ) from problem
    if not prompts or not all(map(_is_prompt, prompts)):
        raise JobError(
            f"--prompts: got {file}, expected one line or more, each `input` a text or a list of messages"
        )
    return prompts


def _is_prompt(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and all(
            isinstance(turn, dict) and {"role", "content"} <= turn.keys() for turn in value
        )
    return isinstance(value, str) and bool(value)


def count_parameters(folder: Path) -> int:
    """Parameters in a folder's safetensors, from their headers."""
    from openrlhf_mtp.heads.formats.shards import header

    return sum(
        math.prod(tensor.shape) for file in folder.glob("*.safetensors") for tensor in header(file).values()
    )
