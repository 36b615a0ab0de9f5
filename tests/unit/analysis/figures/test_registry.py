"""The registry of figures: a figure is one file and one entry, under one name."""

from pathlib import Path

import pytest

from openrlhf_mtp.analysis import figures
from openrlhf_mtp.analysis.figures import FIGURES

FOLDER = Path(figures.__file__).parent


def test_every_file_of_the_folder_is_an_entry_of_its_name():
    files = {path.stem for path in FOLDER.glob("*.py")} - {"__init__"}
    assert files == set(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_an_entry_is_what_its_file_says(name):
    module = getattr(figures, name)
    assert FIGURES[name] is module.FIGURE
    assert module.FIGURE.draw is module.draw
    assert module.FIGURE.table is getattr(module, "table", None)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_draws_nothing_from_no_runs(name):
    spec = FIGURES[name]
    assert spec.draw([]) is None
    assert spec.table is None or spec.table([]) is None
