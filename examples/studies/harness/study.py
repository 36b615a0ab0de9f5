"""What a study is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure

STUDIES = Path(__file__).parents[1]
"""The folder of all studies."""

Values = dict[str, float]
"""What was measured of one run, by name."""


@dataclass(frozen=True)
class Arm:
    """One of the things compared: a name and the settings in which it differs from the studies' base job.

    An arm with the settings of another and a `seed_offset`, which is added to `train.seed`, makes an A/A test: all
    that differs is chance, so the contrast shows how large chance is. Policy and head start as the seed without offset.
    """

    name: str
    settings: Mapping[str, Any]
    seed_offset: int = 0


@dataclass(frozen=True)
class Place:
    """One run of a study: an arm with a seed, and where it is."""

    arm: str
    seed: int
    folder: Path
    smoke: bool


@dataclass(frozen=True)
class Column:
    """A measured value as the table shows it: its name in the result, its heading, and the digits after the point."""

    name: str
    heading: str
    digits: int = 3


@dataclass(frozen=True)
class Contrast:
    """Two arms compared seed by seed, to state with an interval: `arm` minus `against`, or `arm` over `against`.

    Attributes:
        arm, against: the names of the two arms.
        name: of the value that is compared.
        ratio: compare by quotient.
        role: what the study was made to decide ("primary", one a study), what else it shows ("secondary"), or an A/A
            test ("aa"), whose arms differ by chance alone. Holm's adjustment is within a role; A/A tests have none.
        expected: the sign that the difference should have (of the ratio minus 1), written down before the study ran.
        least: the smallest difference that would matter, for the equivalence test; None where none was fixed.
    """

    arm: str
    against: str
    name: str
    ratio: bool = False
    role: Literal["primary", "secondary", "aa"] = "secondary"
    expected: Literal["+", "-"] | None = None
    least: float | None = None


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        name: its folder below `examples/studies`.
        question: one sentence for the head of the result.
        command: the stage that its runs are; "own" for a study that has a `script`.
        arms: what is compared.
        measure: what a finished run came to.
        figure: draws the result from the places and their values.
        columns, contrasts: what the table shows.
        smoke_arms: the arms of the two-minute form.
        smoke_settings: settings that make one of its runs short.
        seeds: of the full form; the two-minute form has one.
        head_of: the study and the arm whose pretrained head the runs start from; None for a fresh one.
        runs_of: the study whose runs these are; None for its own.
        script: the words after `python` of one run, for a study whose runs are no `openrlhf-mtp` commands: given the
            arm, the place and the folder of all runs. It leaves `metrics.jsonl` and `command.txt` in the place.
        prepare: makes what such a study's runs share: given the folder of all runs, whether it is the two-minute form,
            and how many processes to use.
    """

    name: str
    question: str
    command: Literal["pretrain", "train", "own"]
    arms: Sequence[Arm]
    measure: Callable[[Place], Values]
    figure: Callable[[Mapping[str, Sequence[Place]]], Figure]
    columns: Sequence[Column]
    contrasts: Sequence[Contrast]
    smoke_arms: Sequence[str]
    smoke_settings: Sequence[str]
    seeds: Sequence[int] = (1, 2, 3)
    head_of: "tuple[Study, str] | None" = None
    runs_of: "Study | None" = None
    script: Callable[[Arm, Place, Path], list[str]] | None = None
    prepare: Callable[[Path, bool, int], None] | None = None

    @property
    def folder(self) -> Path:
        """Where its script, job files and result are."""
        return STUDIES / self.name

    @property
    def jobs(self) -> Path:
        """Where its arms' job files are."""
        return (self.runs_of or self).folder / "jobs"

    def arms_of(self, smoke: bool) -> list[Arm]:
        """The arms that run."""
        return [arm for arm in self.arms if not smoke or arm.name in self.smoke_arms]

    def places(self, runs: Path, smoke: bool) -> dict[str, list[Place]]:
        """Every run by arm, seeds in order."""
        below = runs / (self.runs_of or self).name
        seeds = self.seeds[:1] if smoke else self.seeds
        return {
            arm.name: [Place(arm.name, seed, below / arm.name / f"seed_{seed}", smoke) for seed in seeds]
            for arm in self.arms_of(smoke)
        }
