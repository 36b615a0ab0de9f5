"""Counted progress: its rate, the time left, and a last line that says how far it came."""

import pytest

from openrlhf_mtp.cli.progress import counting
from openrlhf_mtp.cli.progress.counting import counted
from openrlhf_mtp.runlog.count import Count


def test_a_count_says_rate_and_time_left():
    now = [0.0]
    count = Count(10, "prompts", clock=lambda: now[0])
    now[0] = 40.0
    assert str(count) == "0/10 prompts, none yet after 40 s"
    count.advance(4)
    assert str(count) == "4/10 prompts, 0.1 a second, about 60 s left"


def test_a_log_gets_lines_while_it_waits_and_one_at_the_end(capsys, monkeypatch):
    monkeypatch.setattr(counting, "LINE_EVERY_S", 0.01)
    count = Count(3, "prompts")
    with counted("responses", count):
        count.advance(3)
        count_of_lines = 0
        while count_of_lines < 2:
            count_of_lines += capsys.readouterr().err.count("responses: 3/3 prompts, ")
    assert capsys.readouterr().err.splitlines()[-1] == "responses: 3/3 prompts"


def test_work_that_fails_shows_how_far_it_came(capsys):
    def work():
        count = Count(3, "prompts")
        with counted("responses", count):
            count.advance()
            raise ValueError("an engine ended")

    with pytest.raises(ValueError, match="an engine ended"):
        work()
    assert capsys.readouterr().err.splitlines()[-1] == "responses: 1/3 prompts"
