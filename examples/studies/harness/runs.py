"""The runs of a study: each one `openrlhf-mtp` command in a folder of its own.

A run that finished with the same job and overrides is skipped; one that was cut off resumes from its last checkpoint.
Without one, or with another job than it began with, it starts over. The pre-RL stage's responses are the same for
every arm of a seed, so they are generated once: each run gets a copy of those that are there (the stage keeps them only
if policy, prompts and sampling match).
"""

import hashlib
import json
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.assets import equipped
from harness.jobs import job_file
from harness.logged import run_logged
from harness.study import STUDIES, Arm, Place, Study
from openrlhf_mtp.config.run_files import COMMAND
from openrlhf_mtp.runlog.provenance import git_revision

MARK = "study.json"
"""Written when a run has finished: the fingerprint of its job, and what it took."""
BEGUN = "study.begun"
"""Written when it begins: the fingerprint."""
LOG = "study.log"
RESPONSES = "responses"
PROGRAM = (sys.executable, "-W", "ignore::FutureWarning", "-m", "openrlhf_mtp.cli.main")


class RunsFailed(RuntimeError):
    """Some runs ended with an error; the message names their logs."""


def run_all(study: Study, runs: Path, *, smoke: bool, parallel: int) -> None:
    """Run what has not finished yet, at most `parallel` runs at a time; one that fails does not stop the others.

    Raises:
        RunsFailed: after the last run, if any ended with an error.
    """
    arms = {arm.name: arm for arm in study.arms_of(smoke)}
    places = [place for arm in study.places(runs, smoke).values() for place in arm]
    by_seed = sorted(
        places, key=lambda place: place.seed
    )  # a cut study has whole seeds, which can be compared
    waiting = [place for place in by_seed if not finished(study, arms[place.arm], place)]
    print(f"{study.name}: {len(places)} runs, {len(waiting)} to do", file=sys.stderr, flush=True)
    warn_of_other_commits([place for place in places if place not in waiting], bool(waiting))
    with ThreadPoolExecutor(parallel) as pool:
        codes = list(pool.map(lambda place: run_one(study, arms[place.arm], place, runs), waiting))
    failed = [str(place.folder / LOG) for place, code in zip(waiting, codes, strict=True) if code]
    if failed:
        raise RunsFailed("these runs ended with an error:\n" + "\n".join(failed))


def warn_of_other_commits(done: list[Place], more: bool) -> None:
    """Say before it costs time that arms would be compared across commits; delete the old runs to run them again."""
    commits = {commit_of(place) for place in done} | ({git_revision()} if more else set())
    if len(commits) > 1:
        listed = ", ".join(sorted(commit[:7] for commit in commits))
        print(f"warning: runs of several commits would be compared: {listed}", file=sys.stderr, flush=True)


def commit_of(place: Place) -> str:
    """The commit that a finished run was made with, from the last line of its `command.txt`."""
    return (place.folder / COMMAND).read_text(encoding="utf-8").splitlines()[-1].removeprefix("git ")


def run_one(study: Study, arm: Arm, place: Place, runs: Path) -> int:
    """One run to its end; returns its exit code."""
    resume = can_resume(study, arm, place)
    if not resume:
        shutil.rmtree(place.folder, ignore_errors=True)
    place.folder.mkdir(parents=True, exist_ok=True)
    (place.folder / BEGUN).write_text(fingerprint(study, arm, place) + "\n", encoding="utf-8")
    if study.command == "pretrain":
        share_responses(study, place, runs)
    command = words(study, arm, place, runs, resume=resume)
    print(f"{place.arm}, seed {place.seed}: {'resume' if resume else 'start'}", file=sys.stderr, flush=True)
    started = time.monotonic()
    code = run_logged(command, place.folder / LOG, {"OMP_NUM_THREADS": "1"})
    seconds = time.monotonic() - started
    print(f"{place.arm}, seed {place.seed}: exit {code} after {seconds:.0f} s", file=sys.stderr, flush=True)
    if code == 0:
        mark = {"fingerprint": fingerprint(study, arm, place), "seconds": round(seconds, 1)}
        (place.folder / MARK).write_text(json.dumps({**mark, "resumed": resume}) + "\n", encoding="utf-8")
    return code


def can_resume(study: Study, arm: Arm, place: Place) -> bool:
    """Whether there is a checkpoint, of this very job."""
    begun = place.folder / BEGUN
    is_same = begun.exists() and begun.read_text(encoding="utf-8").strip() == fingerprint(study, arm, place)
    has_rows = (place.folder / "metrics.jsonl").exists()
    return is_same and has_rows and any(place.folder.glob("checkpoints/**/latest"))


def words(study: Study, arm: Arm, place: Place, runs: Path, *, resume: bool) -> list[str]:
    """The whole command of a run."""
    if study.script is not None:
        return [*PROGRAM[:3], *study.script(arm, place, runs)]
    return [*PROGRAM, *command_line(study, arm, place, runs), "--resume" if resume else "--overwrite"]


def command_line(study: Study, arm: Arm, place: Place, runs: Path) -> list[str]:
    """The words after `openrlhf-mtp`, but for how to treat an earlier run."""
    overrides = [
        f"train.seed={place.seed + arm.seed_offset}",
        f"actor.model_name_or_path={equipped(runs, place.seed).absolute()}",
        f"data.prompt_dataset={(runs / 'data' / 'train.jsonl').absolute()}",
        f"eval.dataset={(runs / 'data' / 'eval.jsonl').absolute()}",
        f"reward.remote_url={STUDIES / 'task' / 'reward.py'}",
    ]
    if study.head_of is not None and not place.smoke:
        overrides.append(f"mtp.head={pretrained_head(study, place, runs).absolute()}")
    job = str(job_file(study, arm).absolute())
    smoke = list(study.smoke_settings) if place.smoke else []
    return [study.command, job, "--out", str(place.folder.absolute()), *overrides, *smoke]


def pretrained_head(study: Study, place: Place, runs: Path) -> Path:
    """The head of the same seed that the run starts from."""
    assert study.head_of is not None, "asked only of a study that starts from a pretrained head"
    source, arm = study.head_of
    return runs / source.name / arm / f"seed_{place.seed}" / "head"


def share_responses(study: Study, place: Place, runs: Path) -> None:
    """Copy the responses of another arm with this seed into the run's folder, if it has none and there are any."""
    here = place.folder / RESPONSES
    others = sorted((runs / (study.runs_of or study).name).glob(f"*/seed_{place.seed}/{MARK}"))
    for other in others:
        if not here.exists() and (other.parent / RESPONSES).is_dir():
            shutil.copytree(other.parent / RESPONSES, here)


def fingerprint(study: Study, arm: Arm, place: Place) -> str:
    """What decides a run's result: its job file or settings, seed and head. No paths: a checkout may be moved."""
    head = study.head_of and (study.head_of[0].name, study.head_of[1])
    settings = list(study.smoke_settings) if place.smoke else []
    text = (
        json.dumps(dict(arm.settings)) if study.script else job_file(study, arm).read_text(encoding="utf-8")
    )
    offset = [arm.seed_offset] if arm.seed_offset else []
    return hashlib.sha256(json.dumps([text, place.seed, head, settings, *offset]).encode()).hexdigest()


def finished(study: Study, arm: Arm, place: Place) -> bool:
    """Whether the run came to its end with this very job."""
    mark = place.folder / MARK
    if not mark.exists():
        return False
    return bool(json.loads(mark.read_text(encoding="utf-8"))["fingerprint"] == fingerprint(study, arm, place))
