"""Figures are drawn small here: what is tested is that they are drawn, and resolution is most of the time."""

import pytest

from openrlhf_mtp.analysis import style


@pytest.fixture(autouse=True)
def small_figures(monkeypatch):
    monkeypatch.setattr(style, "DPI", 24)
