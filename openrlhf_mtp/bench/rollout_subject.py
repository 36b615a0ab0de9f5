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
from openrlhf_mtp.config.settings.mtp import MTPSettings

QUICKSTART = Path("runs/quickstart")
PROMPTS = 16
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


def settings_for(subject: Subject, *, on_cpu: bool) -> MTPSettings:
    """The engine's settings, with drafts as deep as the head was made for."""
    section = read_json(subject.head / "config.json").get("mtp")
    if section is None:
        raise JobError(
            f"{subject.head}: not a head; run `openrlhf-mtp equip` on the model, then train its head"
        )
    # half the weights to read: what drafting gains is measured where memory is the limit
    rollout: dict[str, Any] = {"max_num_seqs": PROMPTS, "dtype": "bfloat16"}
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


def make_workload(subject: Subject, *, max_new_tokens: int, repeats: int) -> Workload:
    """The same prompts for both settings, as the policy's tokenizer sees them."""
    from transformers import AutoTokenizer, GenerationConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(subject.policy)
    except (OSError, ValueError) as problem:
        reason = str(problem).strip().splitlines()[0]
        raise JobError(f"{subject.policy}: its tokenizer cannot be loaded: {reason}") from problem
    texts = list(QUESTIONS)
    if subject.prompts is not None:
        texts = read_prompts(subject.prompts)
    elif tokenizer.chat_template is not None:
        chats = [[{"role": "user", "content": text}] for text in texts]
        texts = [
            str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
            for chat in chats
        ]
    ends = read_json(subject.policy / "config.json").get("eos_token_id")
    if (subject.policy / "generation_config.json").is_file():
        ends = GenerationConfig.from_pretrained(subject.policy).eos_token_id or ends
    stop = ends if isinstance(ends, list) else [] if ends is None else [ends]
    tokens = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    return Workload(tokens, max_new_tokens, stop, repeats=repeats)


def read_prompts(file: Path) -> list[str]:
    """The first prompts of a file.

    Raises:
        JobError: it is not there, or a line is no JSON object with a text `input`.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()[:PROMPTS]
        texts = [json.loads(line)["input"] for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise JobError(
            f"--prompts: got {file}, expected JSON lines with an `input` each ({type(problem).__name__}: {problem})"
        ) from problem
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise JobError(f"--prompts: got {file}, expected one line or more, each `input` a text")
    return texts


def count_parameters(folder: Path) -> int:
    """Parameters in a folder's safetensors, from their headers."""
    from openrlhf_mtp.heads.formats.shards import header

    return sum(
        math.prod(tensor.shape) for file in folder.glob("*.safetensors") for tensor in header(file).values()
    )
