"""Rows of the data: a bad one would end a run in its second step, or reach the reward function as nothing.

Every row that the job would use is looked at before the start, up to MOST_ROWS; problems are counted, and the first
few places named.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openrlhf_mtp.config.data_files import READABLE, DataRow, UnreadableRow, read_rows
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.problem import Problem, error, refuse, warn
from openrlhf_mtp.config.reading.paths import is_local
from openrlhf_mtp.config.tokenizer_files import has_chat_template, writes_the_date

MOST_ROWS = 100_000
NAMED_PLACES = 3


def prompt_rows(context: JobContext) -> Iterator[Problem]:
    """Prompts and labels of the training data."""
    yield from _rows(context, "data.prompt_dataset")


def evaluation_rows(context: JobContext) -> Iterator[Problem]:
    """The same for the evaluation data."""
    yield from _rows(context, "eval.dataset")


def chat_template(context: JobContext) -> Iterator[Problem]:
    """A base model often has no chat template, which transformers says only when the first prompt is made."""
    folder = context.policy_folder
    if folder is None or not context.on("data.apply_chat_template"):
        return
    if (folder / "tokenizer_config.json").is_file() and not has_chat_template(folder):
        yield refuse(
            "data.apply_chat_template",
            f"this is true, and the tokenizer in {folder} has no chat template; set it to false (with "
            "data.input_template, if the prompts need one) or add chat_template.jinja there",
        )
    elif writes_the_date(folder):
        yield warn(
            "data.apply_chat_template",
            f"the chat template in {folder} writes today's date into prompts, so that they differ from day to day: "
            "pretrain generates its responses again, and a resumed run goes on with other prompts; write a fixed date "
            "in its place to avoid that",
        )


@dataclass
class _Seen:
    """The number of rows with a problem, and the places of the first few."""

    count: int = 0
    places: list[str] = field(default_factory=list)

    def add(self, place: str) -> None:
        self.count += 1
        if len(self.places) < NAMED_PLACES:
            self.places.append(place)

    def __str__(self) -> str:
        more = self.count - len(self.places)
        return ", ".join(self.places) + (f" and {more} more" if more else "")


def _rows(context: JobContext, setting: str) -> Iterator[Problem]:
    names = context.text(setting) or ""
    for name in (part.strip() for part in names.split(",")):
        if not (context.look_at_files and name):
            continue
        if "@" in name and Path(name).exists():
            fix = "rename it, or give a link to it without @"
            yield error(
                setting,
                name,
                "a path without @: OpenRLHF takes what follows it for a folder in the data",
                fix,
            )
            continue
        file = Path(name.partition("@")[0])
        if is_local(name) and file.is_file() and file.suffix in READABLE:
            yield from _file(context, setting, file)


def _file(context: JobContext, setting: str, file: Path) -> Iterator[Problem]:
    limit = min(MOST_ROWS, context.number("data.max_samples"))
    seen: dict[str, _Seen] = {}
    count, columns = 0, set[str]()
    try:
        for row in read_rows(file, limit):
            count += 1
            columns |= row.columns.keys()
            for problem in _problems(context, row):
                seen.setdefault(problem, _Seen()).add(row.place)
    except UnreadableRow as broken:
        yield refuse(setting, f"{file} has a row that cannot be read: {broken}; correct the file")
        return
    if not count:
        yield refuse(setting, f"{file} has no rows; give a file with prompts")
        return
    missing = [
        key for key in ("data.input_key", "data.label_key") if (context.text(key) or "") not in columns | {""}
    ]
    for key in missing:
        yield error(
            key,
            context.text(key),
            f"one of the columns of {file}: {', '.join(sorted(columns))}",
            f"change {key}",
        )
    if not missing:
        looked_at = f"the {count} rows looked at in {file}"
        yield from (_problem(context, setting, kind, found, looked_at) for kind, found in seen.items())


def _problems(context: JobContext, row: DataRow) -> Iterator[str]:
    """The problems of one row, as keys of `_problem`."""
    prompt = row.columns.get(context.text("data.input_key") or "")
    templated = context.on("data.apply_chat_template")
    if prompt is None:
        yield "no prompt"
    elif isinstance(prompt, str):
        if not prompt and not templated and not context.text("data.input_template"):
            yield "empty prompt"
    elif not templated:
        yield "messages" if isinstance(prompt, list) else "no text"
    elif not _are_messages(prompt):
        yield "no messages"
    label = context.text("data.label_key")
    if label is not None and row.columns.get(label) is None:
        yield "no label"


def _are_messages(prompt: Any) -> bool:
    return (
        isinstance(prompt, list)
        and bool(prompt)
        and all(isinstance(message, dict) and "role" in message for message in prompt)
    )


def _problem(context: JobContext, setting: str, kind: str, found: _Seen, looked_at: str) -> Problem:
    got = f"{found} of {looked_at}"
    prompt, label = context.text("data.input_key"), context.text("data.label_key")
    if kind == "no label":
        return warn(
            "data.label_key",
            f"there is no label ({label}) in {got}: the reward function is given nothing instead; add "
            "labels if it needs them",
        )
    sentences = {
        "no prompt": f"there is no prompt ({prompt}) in {got}; remove these rows or fill them in",
        "empty prompt": f"the prompt is empty in {got}, and vLLM refuses an empty one; remove these rows",
        "messages": f"the prompt is a list of messages in {got}; set data.apply_chat_template=true to make text of it",
        "no text": f"the prompt is not text in {got}; write the prompts as text",
        "no messages": f"the prompt is neither text nor a list of messages, each with role and content, in {got}; "
        "correct these rows",
    }
    return refuse(setting, sentences[kind])
