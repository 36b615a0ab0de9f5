"""What both parts of the study, on policies of its own and on the real one, show of a run: columns and panels."""

from collections.abc import Callable, Mapping, Sequence

from harness import plots
from harness.study import Column, Place, Values
from matplotlib.figure import Figure

COLUMNS = (
    Column("walked", "E/k"),
    Column("length", "length"),
    *(Column(f"reach_{j}", f"reach, depth {j}") for j in (1, 2, 3)),
    *(Column(f"alpha_{j}", f"overlap, depth {j}") for j in (1, 2, 3)),
    Column("greedy_1", "greedy, depth 1"),
)
RATE = Column("lr", "learning rate", 4)


def figure(
    places: Mapping[str, Sequence[Place]],
    measure: Callable[[Place], Values],
    walked: Sequence[tuple[str, str]],
) -> Figure:
    """E/k, reach and overlap by depth.

    Args:
        places: runs of each arm.
        measure: what a run came to.
        walked: name and label of each value of E/k that is shown.
    """
    values = {arm: [measure(place) for place in runs] for arm, runs in places.items()}
    return plots.groups(
        values,
        {
            "accepted over drafted tokens (E/k)": list(walked),
            "drafts accepted through depth j": [(f"reach_{j}", f"depth {j}") for j in (1, 2, 3)],
            "overlap at depth j, all anchors": [(f"alpha_{j}", f"depth {j}") for j in (1, 2, 3)],
        },
    )
