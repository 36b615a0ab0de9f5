"""`openrlhf-mtp bench rollout`: what drafting gains at batch 1, 4 and 16, as a table and as JSON.

On a GPU a checkpoint is measured as it is. On a CPU a tiny model decodes too fast to be limited by memory, so it is
replaced by a stand-in of about 270M parameters with the same distributions (`bench.stand_in`); the output says so.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from openrlhf_mtp.bench.rollout import Comparison, Speed, Workload, compare, prepare_process
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.head_contract.folder import CONFIG_FILE, head_folder
from openrlhf_mtp.config.model_files import read_json as read_json_object
from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.runlog.run_folder import writable

QUICKSTART = Path("runs/quickstart")
RESULT = "bench_rollout.json"
PROMPTS = 16
STAND_IN_BELOW = 100_000_000  # parameters; larger models are limited by memory on a CPU too
QUESTIONS = tuple(
    f"A train leaves at {hour} o'clock and needs {minutes} minutes for each of its {stops} stops. When does it arrive? "
    "Explain your steps."
    for hour, minutes, stops in zip(
        range(5, 5 + PROMPTS), range(11, 11 + 2 * PROMPTS, 2), range(3, 3 + PROMPTS), strict=True
    )
)


@dataclass(frozen=True)
class Subject:
    """What is measured: the policy, its head, and where its prompts come from."""

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
        policy, data = QUICKSTART / "rl" / "final", QUICKSTART / "data" / "eval.jsonl"
        if not (head_folder(None, policy) / CONFIG_FILE).is_file():
            raise JobError(
                f"{policy}: no model with a head there; run `openrlhf-mtp quickstart` first, or name one: "
                "openrlhf-mtp bench rollout MODEL"
            )
        return cls(policy, head_folder(head, policy), prompts or data)


def bench_rollout(
    model: str | None, out: Path, *, head: Path | None = None, prompts: Path | None = None, repeats: int = 3
) -> int:
    """Measure, print the table, write `bench_rollout.json` into `out`, and return 0.

    Args:
        model: folder of a policy; default the quickstart's.
        out: where the result and the stand-in go.
        head: the head's folder; default `mtp` inside the policy's.
        prompts: JSON lines with an `input` each; default the quickstart's, or a few arithmetic questions.
        repeats: timed repetitions of each batch.

    Raises:
        JobError: a folder is missing, or the head does not fit.
    """
    import torch

    subject = Subject.find(model, head, prompts)
    for folder in (subject.policy, subject.head):
        read_json(folder / "config.json")
    writable(out)
    on_cpu = not torch.cuda.is_available()
    prepare_process(on_cpu=on_cpu)
    workload = make_workload(subject, max_new_tokens=64 if on_cpu else 256, repeats=repeats)
    mtp = settings_for(subject, on_cpu=on_cpu)
    parameters = count_parameters(subject.policy)
    policy = subject.policy
    if on_cpu and parameters < STAND_IN_BELOW:
        mtp = mtp.model_copy(update={"head": None})
        policy, parameters = stand_in(subject, out / "stand_in")
    note = describe(subject, policy, parameters, torch.get_num_threads() if on_cpu else None)
    comparisons = compare(policy, mtp, workload, show_speed)
    record = to_json(comparisons, note)
    (out / RESULT).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    Console().print(render(comparisons, note))
    print(f"result: {out / RESULT}")
    return 0


def show_speed(speed: Speed) -> None:
    """A line for each batch that is done, plain text so that it reads the same without a terminal."""
    setting = "drafted" if speed.acceptance else "plain"
    rates = ", ".join(f"{rate:.1f}" for rate in speed.tok_s)
    print(f"{setting}, batch {speed.batch}: {rates} tok/s", file=sys.stderr, flush=True)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that must be there."""
    if not path.is_file():
        raise JobError(
            f"{path}: no such file; expected the folder of a Hugging Face model, and of a head made by equip"
        )
    return read_json_object(path)


def settings_for(subject: Subject, *, on_cpu: bool) -> MTPSettings:
    """Draft as deep as the head was made for."""
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
            "num_layers": section["num_layers"],
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
    from safetensors import safe_open

    total = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                size = 1
                for length in tensors.get_slice(name).get_shape():
                    size *= length
                total += size
    return total


def stand_in(subject: Subject, folder: Path) -> tuple[Path, int]:
    """The stand-in's folder and parameters; built again only when policy or head changed."""
    from openrlhf_mtp.bench.stand_in import build_stand_in

    digest = hashlib.sha256()
    for source in (subject.policy, subject.head):
        for file in sorted([*source.glob("*.safetensors"), source / "config.json"]):
            digest.update(file.read_bytes())
    mark = folder / "made_from.json"
    if mark.is_file() and json.loads(mark.read_text())["sha256"] == digest.hexdigest():
        return folder, json.loads(mark.read_text())["parameters"]
    shutil.rmtree(folder, ignore_errors=True)
    try:
        parameters = build_stand_in(subject.policy, subject.head, folder)
    except ValueError as problem:
        raise JobError(f"{subject.policy}: no stand-in can be made of it: {problem}") from problem
    mark.write_text(json.dumps({"sha256": digest.hexdigest(), "parameters": parameters}))
    return folder, parameters


def describe(subject: Subject, measured: Path, parameters: int, threads: int | None) -> dict[str, Any]:
    """What was measured, on what."""
    import torch
    import vllm

    made = measured != subject.policy
    return {
        "policy": str(subject.policy),
        "head": str(subject.head),
        "parameters": parameters,
        "stand_in": (
            "a stand-in: the policy's distributions at a larger model's cost, by zero-padded width and upper layers "
            "that write zeros"
            if made
            else None
        ),
        "device": f"CPU, {threads} threads" if threads is not None else torch.cuda.get_device_name(),
        "machine": platform.machine(),
        "vllm": vllm.__version__,
        "temperature": 1.0,
    }


def to_json(comparisons: list[Comparison], note: dict[str, Any]) -> dict[str, Any]:
    """The whole result as plain values."""
    rows = [
        {
            "batch": row.batch,
            "plain_tok_s": list(row.plain.tok_s),
            "drafted_tok_s": list(row.drafted.tok_s),
            "ratio": row.ratio,
            "ratio_low": row.ratio_low,
            "ratio_high": row.ratio_high,
            **row.drafted.acceptance,
        }
        for row in comparisons
    ]
    return {**note, "rows": rows}


def render(comparisons: list[Comparison], note: dict[str, Any]) -> Table:
    """The table on the terminal, 80 columns wide."""
    title = (
        f"{note['policy']}\n{note['parameters'] / 1e6:.0f}M parameters, {note['device']}, vLLM {note['vllm']}, "
        "temperature 1"
    )
    if note["stand_in"] is not None:
        title += f"\n{note['stand_in']}"
    caption = (
        "tok/s: median of the repeats. Ratio: of the medians; range: between the extremes of all repeats.\n"
        "Length: tokens per target forward. By depth: drafts accepted up to there."
    )
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    for column in ("batch", "plain tok/s", "drafted tok/s", "ratio", "range", "length", "by depth"):
        table.add_column(column, justify="right", no_wrap=column in ("range", "by depth"))
    for row in comparisons:
        acceptance = row.drafted.acceptance
        by_depth = [f"{value:.2f}" for name, value in acceptance.items() if "/depth_" in name]
        table.add_row(
            str(row.batch),
            f"{median(row.plain.tok_s):.1f}",
            f"{median(row.drafted.tok_s):.1f}",
            f"{row.ratio:.2f}x",
            f"{row.ratio_low:.2f}-{row.ratio_high:.2f}",
            f"{acceptance['spec/mean_acceptance_length']:.2f}",
            " ".join(by_depth),
        )
    return table
