"""Kept so that `pip install -e .` works with installers that predate PEP 660; everything is in pyproject.toml."""

from setuptools import setup

setup()
