"""Ray's start on a busy machine: a node that ended by itself is started again, every other problem is said at once."""

from types import SimpleNamespace

import pytest

from openrlhf_mtp.cli import ray_session
from openrlhf_mtp.cli.failures import RunFailed
from openrlhf_mtp.upstream.ray_start import NodeEnded


def starts(monkeypatch, problems):
    """How often Ray is started when its starts end so, and what was cleared away in between."""
    events, left = [], iter(problems)

    def init(**_):
        events.append("start")
        problem = next(left)
        if problem is not None:
            raise problem

    ray = SimpleNamespace(init=init, shutdown=lambda: events.append("shutdown"))
    monkeypatch.setattr(ray_session, "end_descendants", lambda grace_s: events.append("end"))
    return ray, events


def test_a_node_that_ended_by_itself_is_started_again(monkeypatch):
    ray, events = starts(monkeypatch, [NodeEnded("too slow"), None])
    ray_session._start(ray, 1, "folder", {})
    assert events == ["start", "shutdown", "end", "start"]


def test_after_three_nodes_it_is_the_machine(monkeypatch):
    ray, events = starts(monkeypatch, [NodeEnded("too slow")] * 3)
    with pytest.raises(RunFailed, match="Ray did not start on this machine: too slow"):
        ray_session._start(ray, 1, "folder", {})
    assert events.count("start") == 3


def test_another_problem_is_said_at_once(monkeypatch):
    ray, events = starts(monkeypatch, [ValueError("no such folder")])
    with pytest.raises(RunFailed, match="no such folder"):
        ray_session._start(ray, 1, "folder", {})
    assert events == ["start"]
