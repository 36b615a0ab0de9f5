"""What a run is at: said seldom, shown as long as it lasts, and no reason to fail."""

from __future__ import annotations

from openrlhf_mtp.runlog.activity import Activity, activity, forget_activities, read_activities
from openrlhf_mtp.runlog.count import Count


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_activity_is_shown_from_its_second_second_to_its_end(tmp_path) -> None:
    clock = Clock()
    one = Activity(tmp_path, "training", clock)
    one.say("early")
    assert read_activities(tmp_path) == ""
    clock.now = 2.0
    one.say(Count(8, "micro-batches", clock))
    clock.now = 3.0
    one.say("too soon after")
    assert read_activities(tmp_path) == "0/8 micro-batches, none yet after 0 s"
    other = Activity(tmp_path, "rollout", clock)
    clock.now = 6.0
    other.say("rollout 1/4 responses")
    one.say("training")
    assert read_activities(tmp_path) == "rollout 1/4 responses · training"
    other.end()
    one.end()
    clock.now = 20.0
    one.say("a thread that came late")
    assert list(tmp_path.iterdir()) == []


def test_an_error_ends_the_activity_and_a_killed_process_leaves_none_behind(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("openrlhf_mtp.runlog.activity.SAY_EVERY_S", 0.0)
    try:
        with activity(tmp_path, "training") as now:
            now.say("training")
            assert read_activities(tmp_path) == "training"
            raise ValueError
    except ValueError:
        assert read_activities(tmp_path) == ""
    Activity(tmp_path, "training").say("killed here")
    forget_activities(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_rank_that_says_nothing_ends_nothing(tmp_path) -> None:
    with activity(tmp_path, "head") as first:
        first.begin("micro-batches 1/8")
        with activity(tmp_path, "head"):
            pass
        assert read_activities(tmp_path) == "micro-batches 1/8"


def test_work_that_says_nothing_on_its_way_is_shown_at_once(tmp_path) -> None:
    with activity(tmp_path, "sync") as now:
        now.begin("sending weights")
        assert read_activities(tmp_path) == "sending weights"


def test_a_folder_that_cannot_be_written_to_ends_nothing(tmp_path) -> None:
    clock = Clock()
    one = Activity(tmp_path / "gone", "training", clock)
    clock.now = 5.0
    one.say("training")
    one.end()
    assert read_activities(tmp_path / "gone") == ""
