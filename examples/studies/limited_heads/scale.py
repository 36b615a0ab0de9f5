"""How large the study is, in its full form and in its two-minute form, and where its files are."""

from dataclasses import dataclass
from pathlib import Path

from text.policy import Shape

from limited_heads.samples import Sampling

POLICIES = (1, 2)
"""Seeds of the base policies."""

TRAINED_AT = 0.6
"""The temperature at which heads are trained and compared: the policy is then nearly as sharp as a language model."""

TEMPERATURES = (0.4, TRAINED_AT, 0.8)
"""At which heads are measured."""


@dataclass(frozen=True)
class Scale:
    """Sizes.

    Attributes:
        shape: of the base policies.
        steps: of their teaching.
        paragraphs: of the book that are read.
        warm_pool, warm_anchors: responses of a policy, and anchors of them, that all heads of a seed are warmed on.
        pool, anchors: of a run, each once; each run takes the responses in an order of its own.
        tuning, held_out: responses to choose learning rates by, and to measure with, at each temperature.
        batch: responses of an optimizer step.
        part: responses that are sampled side by side.
        prompt, new_tokens: tokens of the book that a response begins with, and tokens of the response.
    """

    shape: Shape
    steps: int
    paragraphs: int
    warm_pool: int
    warm_anchors: int
    pool: int
    anchors: int
    tuning: int
    held_out: int
    batch: int = 4
    part: int = 128
    prompt: int = 16
    new_tokens: int = 240

    def samples(self, policy: int) -> dict[str, Sampling]:
        """The sets of responses of a policy, by the name of their folder."""

        def sampling(rows: int, number: int, temperature: float = TRAINED_AT) -> Sampling:
            return Sampling(rows // self.part, temperature, 10 * policy + number, self.new_tokens)

        sets = {"warm_pool": sampling(self.warm_pool, 1), "tuning": sampling(self.tuning, 2)}
        for number, temperature in enumerate(TEMPERATURES, 3):
            sets[held_out(temperature)] = sampling(self.held_out, number, temperature)
        sets["pool"] = sampling(self.pool, 6)
        return sets


FULL = Scale(
    shape=Shape(),
    steps=500,
    paragraphs=10_000,
    warm_pool=2560,
    warm_anchors=600_000,
    pool=1280,
    anchors=300_000,
    tuning=256,
    held_out=384,
)
SMOKE = Scale(
    shape=Shape(vocabulary=512, layers=2, width=64, inner=128, heads=2, kv_heads=1, context=256),
    steps=4,
    paragraphs=120,
    warm_pool=48,
    warm_anchors=1_500,
    pool=48,
    anchors=1_500,
    tuning=8,
    held_out=8,
    part=8,
    new_tokens=48,
)


def held_out(temperature: float) -> str:
    """The folder of the held-out responses of a temperature."""
    return f"held_out_{temperature:g}"


def policy_of(seed: int) -> int:
    """The base policy of a run's seed; seeds take turns."""
    return POLICIES[(seed - 1) % len(POLICIES)]


def policy_folder(runs: Path, policy: int) -> Path:
    """Where a base policy is."""
    return runs / "text" / f"policy_{policy}"


def sample_folder(runs: Path, policy: int, name: str) -> Path:
    """Where a set of its responses is."""
    return runs / "text" / f"samples_{policy}" / name
