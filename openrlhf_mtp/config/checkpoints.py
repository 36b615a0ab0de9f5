"""The checkpoints of an RL run: which are whole, how many ranks wrote them, which one a resumed run continues from.

    checkpoints/
      _actor/global_step4/*.pt            OpenRLHF's, by DeepSpeed; `_actor/latest` names the one it resumes from
      _actor/global_step4/complete.json   written last: every file of the checkpoint in all three folders, with its size
      _mtp_head/global_step4/*.pt         the head's
      _critic/global_step4/*.pt           the critic's

A checkpoint without `complete.json` was cut off while it was saved, or is older than that file. Then what can be seen
without loading it decides: torch's files are zip archives, whose directory is at their end, and no rank is missing.
"""

import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from openrlhf_mtp.config.atomic_files import write_atomically

ACTOR, HEAD, CRITIC = "_actor", "_mtp_head", "_critic"
ROLES = (ACTOR, HEAD, CRITIC)
MANIFEST = "complete.json"
LATEST = "latest"

_TAG = re.compile(r"(best_)?global_step(\d+)")
_RANK = re.compile(r"zero_pp_rank_(\d+)_mp_rank_\d+_optim_states\.pt$")


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint of a run.

    Attributes:
        folder: the run's checkpoints.
        tag: its name in each role's folder.
    """

    folder: Path
    tag: str

    @property
    def step(self) -> int:
        """The RL step after which it was saved."""
        match = _TAG.fullmatch(self.tag)
        return int(match[2]) if match else -1

    def files(self, *roles: str) -> Iterator[Path]:
        """The checkpoint's files, without its list of them."""
        for role in roles or ROLES:
            for file in sorted((self.folder / role / self.tag).rglob("*")):
                if file.is_file() and file.name != MANIFEST:
                    yield file

    def ranks(self, role: str = ACTOR) -> int | None:
        """Data-parallel ranks that saved it; None where DeepSpeed splits nothing over them (ZeRO-0)."""
        found = {int(match[1]) for file in self.files(role) if (match := _RANK.search(file.name))}
        return len(found) or None

    @property
    def is_sharded(self) -> bool:
        """Whether the policy's weights are split over the ranks (ZeRO-3)."""
        return any(file.name.startswith("zero_pp_rank_0") for file in self.files(ACTOR) if _is_model(file))

    def seal(self) -> None:
        """Write the list of its files, once all of them are written."""
        sizes = {str(file.relative_to(self.folder)): file.stat().st_size for file in self.files()}
        manifest = self.folder / ACTOR / self.tag / MANIFEST
        write_atomically(manifest, json.dumps({"files": sizes}, indent=2) + "\n")

    def damage(self) -> str | None:
        """The first thing that is wrong with it, with the file; None if it is whole as far as can be seen."""
        return next(self._damages(), None)

    def _damages(self) -> Iterator[str]:
        manifest = self.folder / ACTOR / self.tag / MANIFEST
        if manifest.is_file():
            yield from self._unlike(manifest)
        elif (self.folder / CRITIC).is_dir() and not any(self.files(CRITIC)):
            yield f"{self.folder / CRITIC / self.tag} is missing or empty"  # the critic saves beside the policy
        yield from self._cut_off()

    def _unlike(self, manifest: Path) -> Iterator[str]:
        try:
            sizes = dict(json.loads(manifest.read_text(encoding="utf-8"))["files"])
        except (ValueError, KeyError, TypeError):
            return  # cut off itself; the files are looked at anyway
        for name, size in sizes.items():
            file = self.folder / name
            if not file.is_file():
                yield f"{file} is missing"
            elif file.stat().st_size != size:
                yield f"{file} has {file.stat().st_size} bytes, expected {size}"

    def _cut_off(self) -> Iterator[str]:
        for role in ROLES:
            yield from cut_off(self.folder / role / self.tag)
        if not any(map(_is_model, self.files(ACTOR))):
            yield f"{self.folder / ACTOR / self.tag} holds no weights of the policy"
        for role in ROLES:
            numbers = {int(match[1]) for file in self.files(role) if (match := _RANK.search(file.name))}
            if gone := set(range(max(numbers, default=-1) + 1)) - numbers:
                yield f"{self.folder / role / self.tag} lacks the optimizer state of rank {min(gone)}"


def cut_off(folder: Path) -> Iterator[str]:
    """Torch's files in a folder that are not whole: zip archives without the directory at their end."""
    for file in sorted(folder.rglob("*.pt")):
        if not zipfile.is_zipfile(file):
            yield f"{file} is cut off after {file.stat().st_size} bytes"


def _is_model(file: Path) -> bool:
    return file.name.endswith("model_states.pt")


def latest(folder: Path) -> Checkpoint | None:
    """The checkpoint that OpenRLHF would continue from; None if it names none."""
    pointer = folder / ACTOR / LATEST
    tag = pointer.read_text(encoding="utf-8", errors="replace").strip() if pointer.is_file() else ""
    return Checkpoint(folder, tag) if _TAG.fullmatch(tag) else None


def all_of(folder: Path) -> list[Checkpoint]:
    """Every checkpoint of a run, the newest first; of two of one step the one that is no "best" one."""
    actor = folder / ACTOR
    tags = [path.name for path in actor.iterdir() if path.is_dir()] if actor.is_dir() else []
    found = [Checkpoint(folder, tag) for tag in tags if _TAG.fullmatch(tag)]
    return sorted(found, key=lambda one: (-one.step, one.tag.startswith("best")))


@dataclass(frozen=True)
class ResumePoint:
    """The checkpoint from which a run resumes.

    Attributes:
        checkpoint: the newest whole one; None if there is none.
        damaged: what is wrong with newer ones, the newest first.
    """

    checkpoint: Checkpoint | None
    damaged: tuple[str, ...]


def resume_point(folder: Path) -> ResumePoint:
    """Look at the latest checkpoint and, as long as they are damaged, at those before it."""
    newest = latest(folder)
    candidates = all_of(folder)
    if newest is not None:
        older = [one for one in candidates if one.step <= newest.step and one != newest]
        candidates = [newest, *older]
    damaged: list[str] = []
    for one in candidates:
        wrong = one.damage()
        if wrong is None:
            return ResumePoint(one, tuple(damaged))
        damaged.append(wrong)
    return ResumePoint(None, tuple(damaged))


def resume_from(checkpoint: Checkpoint) -> None:
    """Have OpenRLHF resume every role from this checkpoint."""
    for role in ROLES:
        pointer = checkpoint.folder / role / LATEST
        if pointer.parent.is_dir() and any(checkpoint.files(role)):
            write_atomically(pointer, checkpoint.tag)
