"""Ray still reads the limits that are raised for slow machines, and waits for its node where we wait longer."""

import inspect
from pathlib import Path

import ray
import ray._private.node
import ray._private.services

from openrlhf_mtp.upstream.ray_start import PATIENCE, patient


def test_the_raylet_knows_every_limit_that_is_set():
    raylet = (Path(ray.__file__).parent / "core/src/ray/raylet/raylet").read_bytes()
    unknown = [name for name in PATIENCE if name.removeprefix("RAY_").encode() not in raylet]
    assert unknown == []


def test_a_driver_waits_for_its_node_by_the_function_that_is_replaced():
    start = inspect.getsource(ray._private.node.Node.__init__)
    assert "ray._private.services.get_node(" in start
    assert "except RuntimeError" in start
    assert inspect.signature(patient(ray._private.services.get_node, 0.0)) == inspect.signature(
        ray._private.services.get_node
    )
