"""OpenRLHF's flags that nothing reads in this job, or that are not what they look like."""

from collections.abc import Iterator
from difflib import get_close_matches
from math import isclose

from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.problem import Problem, error, warn, warning

ATTENTION = (
    "eager",
    "sdpa",
    "flash_attention_2",
    "flash_attention_3",
    "flash_attention_4",
    "flex_attention",
)
"""The names that transformers 5 knows; a name with a slash is a kernel of the Hub, one with `|` a variant."""

SYNC_FLAGS = ("vllm.sync_backend", "vllm.sync_with_ray")


def unread(context: JobContext) -> Iterator[Problem]:
    """Settings that the job gives and that change nothing in it."""
    for name in SYNC_FLAGS:
        if context.mtp is not None and context.job.flags.get(name) is not None:
            yield warn(
                name,
                "this has no effect: with a head, mtp.sync.backend decides how weights reach the engines, and it is "
                f"{context.mtp.sync.backend}; drop it",
            )
    ours = [
        name for name, value in context.job.flags.items() if name.startswith("critic.") and value is not None
    ]
    if ours and not context.uses_critic:
        estimator = context.estimator
        yield warn(
            "critic",
            f"algo.advantage.estimator {estimator} trains no critic, so this has no effect: {', '.join(ours)}; drop "
            "it, or set algo.advantage.estimator gae",
        )


def attention(context: JobContext) -> Iterator[Problem]:
    """A name that transformers does not know is refused only when the trainers load their model."""
    setting = "ds.attn_implementation"
    name = context.text(setting) or ""
    if name in ATTENTION or "/" in name or "|" in name:
        return
    nearest = get_close_matches(name, ATTENTION, n=1, cutoff=0.0)[0]
    yield warning(setting, name, f"one of {', '.join(ATTENTION)}, or a kernel of the Hub", f"set {nearest}")


def adapters(context: JobContext) -> Iterator[Problem]:
    """Module names are a list; one text with commas in it is the name of no module, and PEFT says so in a worker."""
    setting = "ds.lora.target_modules"
    given = context.job.flags.get(setting)
    if context.lora_rank == 0 or not isinstance(given, tuple):
        return
    for name in map(str, given):
        if "," in name or " " in name.strip():
            parts = name.replace(",", " ").split()
            yield warning(setting, name, "a list of module names", f"write it as [{', '.join(parts)}]")
        elif name == "all-linear":  # PEFT knows the word alone, not in a list, and OpenRLHF makes one of it
            yield warning(
                setting, name, "a list of module names, or nothing for all linear layers", "drop it"
            )


def mixture(context: JobContext) -> Iterator[Problem]:
    """OpenRLHF parses how data sets are mixed after engines and trainers are up."""
    setting, given = "data.prompt_probs", context.text("data.prompt_probs")
    if given is None:
        return
    wanted = len((context.text("data.prompt_dataset") or "").split(","))
    try:
        shares = [float(part) for part in given.split(",")]
    except ValueError:
        shares = []
    right = len(shares) == wanted and all(0 <= share <= 1 for share in shares)
    if not right or not isclose(sum(shares), 1, abs_tol=1e-8):
        yield error(
            setting,
            given,
            f"{wanted} share(s) with commas between them, one for each of data.prompt_dataset, that add up to 1",
            f"write it like {','.join([f'{1 / wanted:g}'] * wanted)}, or drop it to take all of each",
        )
