"""Every test puts its figures together; pixels, which take most of the time, come only where drawing could fail."""

import pytest
from matplotlib.figure import Figure

from openrlhf_mtp.analysis import style


@pytest.fixture
def real_figures():
    """Ask for images, small ones."""


@pytest.fixture(autouse=True)
def cheap_figures(monkeypatch, request):
    monkeypatch.setattr(style, "DPI", 24)
    if "real_figures" not in request.fixturenames:
        monkeypatch.setattr(Figure, "savefig", lambda figure, file, format: file.write(b"an image"))
