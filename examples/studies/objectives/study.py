"""Study 1: objectives at equal budget.

    python examples/studies/objectives/study.py            two CPU cores, no GPU; about an hour
    python examples/studies/objectives/study.py --smoke    two minutes: two arms, one seed, a few steps

Seven objectives train the same fresh head on the same responses of the same policy for the same 300 steps; the
distributional ones that a cold head cannot learn from (tv, e2e_tv) spend the first 60 of them on KL. Measured on
held-out responses, for drafts that are sampled from the head and for greedy ones: accepted over drafted tokens, which
is Bebop's acceptance rate, and the overlap at each of three depths. After an interrupt it continues where it stopped.
Result: README.md beside this file.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import acceptance, plots
from harness.main import main
from harness.study import Arm, Column, Contrast, Place, Study, Values

COLD = 60
"""Steps of KL before an objective whose gradient vanishes where the head's acceptance does."""


def objective(name: str, warmup: int = 0) -> Arm:
    """An arm that trains the head with one objective."""
    return Arm(name, {"mtp": {"pretrain": {"objective": name, "kl_warmup_steps": warmup}}})


def measure(place: Place) -> Values:
    """Acceptance on the run's held-out responses."""
    return acceptance.summary(acceptance.of_run(place))


def figure(places: Mapping[str, Sequence[Place]]) -> Figure:
    """Overlap by depth for sampled and for greedy drafts, and the share of drafted tokens that are accepted."""
    values = {arm: [measure(place) for place in runs] for arm, runs in places.items()}
    depths = [f"depth_{j}" for j in range(1, 4)]
    return plots.groups(
        values,
        {
            "acceptance, sampled drafts": [(f"sampled/{depth}", depth) for depth in depths],
            "acceptance, greedy drafts": [(f"greedy/{depth}", depth) for depth in depths],
            "accepted / drafted tokens, walked": [("sampled/walked", "sampled"), ("greedy/walked", "greedy")],
        },
    )


STUDY = Study(
    name="objectives",
    question="Which objective gives the most accepted drafts for an equal budget?",
    command="pretrain",
    arms=[
        objective("ce"),
        objective("e2e_tv", COLD),
        objective("tv", COLD),
        objective("kl"),
        objective("reverse_kl"),
        objective("nla"),
        objective("lk_hybrid"),
    ],
    measure=measure,
    figure=figure,
    columns=[
        Column("sampled/walked", "walked E/k, sampled"),
        Column("sampled/rate", "E/k, sampled"),
        Column("greedy/walked", "walked E/k, greedy"),
        Column("greedy/rate", "E/k, greedy"),
        Column("sampled/depth_1", "sampled, depth 1"),
        Column("sampled/depth_2", "depth 2"),
        Column("sampled/depth_3", "depth 3"),
        Column("sampled/mean", "sampled, mean"),
        Column("sampled/length", "sampled, length"),
        Column("greedy/depth_1", "greedy, depth 1"),
        Column("greedy/depth_2", "depth 2"),
        Column("greedy/depth_3", "depth 3"),
        Column("greedy/mean", "greedy, mean"),
        Column("greedy/length", "greedy, length"),
    ],
    contrasts=[
        Contrast("e2e_tv", "kl", "sampled/walked", role="primary", expected="+", least=0.01),
        Contrast("e2e_tv", "ce", "sampled/walked", expected="+", least=0.01),
        Contrast("e2e_tv", "tv", "sampled/walked", expected="+", least=0.01),
        Contrast("e2e_tv", "kl", "sampled/rate", expected="+", least=0.01),
        Contrast("e2e_tv", "ce", "sampled/rate", expected="+", least=0.01),
        Contrast("e2e_tv", "ce", "greedy/walked", least=0.01),
        Contrast("e2e_tv", "ce", "greedy/rate", least=0.01),
        Contrast("e2e_tv", "ce", "sampled/mean"),
        Contrast("e2e_tv", "kl", "sampled/mean"),
    ],
    smoke_arms=["ce", "e2e_tv"],
    smoke_settings=[
        "mtp.pretrain.max_steps=6",
        "mtp.pretrain.batch_size=16",
        "mtp.pretrain.micro_batch_size=16",
        "mtp.pretrain.kl_warmup_steps=2",
        "rollout.max_new_tokens=28",
    ],
)

if __name__ == "__main__":
    sys.exit(main(STUDY, __doc__))
