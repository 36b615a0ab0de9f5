"""The figures of a report, in its order.

To add a figure, add one file to this folder and one entry to `FIGURES`. The file is named after the figure's image,
`figures/NAME.png`. It holds what the figure computes from the runs, `draw`, `table` if the image has numbers beside it,
and last a `FIGURE` with its title, its caption and what it needs. Helpers that figures share are one folder up:

| file | holds |
|---|---|
| `groups.py` | runs that differ in the seed alone, as one curve |
| `style.py` | colors, panels, curves over steps |
| `regression.py` | lines and means with their intervals |
| `positions.py` | entropy and acceptance at recorded positions |
| `table.py` | tables and how numbers are written |
"""

from openrlhf_mtp.analysis.figure_spec import FigureSpec
from openrlhf_mtp.analysis.figures import (
    acceptance,
    agreement,
    drift,
    entropy_acceptance,
    evenness,
    head,
    occ,
    policy,
    reward,
    sampling_gain,
    sync,
    temperatures,
    throughput,
    time_split,
)

FIGURES: dict[str, FigureSpec] = {
    module.FIGURE.name: module.FIGURE
    for module in (
        reward,
        acceptance,
        agreement,
        evenness,
        entropy_acceptance,
        sampling_gain,
        temperatures,
        drift,
        occ,
        time_split,
        throughput,
        sync,
        head,
        policy,
    )
}
