"""Whether KubeRay's operator reaches Ray's dashboard, from lines as Ray 2.55 logs them."""

import pytest

from openrlhf_mtp.cluster import operator_watch
from openrlhf_mtp.cluster.operator_watch import DashboardLog, Watch, main, requests
from openrlhf_mtp.runlog.notices import read_notices

JOB = "/api/jobs/run1-6d5c8-xk2vp"
HEAD = "2026-11-30 04:45:48,181\tINFO web_log.py:229 -- 10.0.0.7 [30/Nov/2026:04:45:48 +0000] "
ROUTE = (
    "2026-11-30 04:45:45,189\tINFO http_server_head.py:499 -- <ResourceRoute [GET] <PlainResource  /api/jobs/> -> "
    "<function SubprocessRouteTable._register_route.<locals>._wrapper.<locals>.parent_side_handler at 0x7fe55b46bc40>\n"
)
GO, PYTHON = "Go-http-client/1.1", "python-requests/2.34.2"
THROUGH_THE_API_SERVER = "manager/v0.0.0 (linux/amd64) kubernetes/$Format"


def line(agent, path=JOB, status=200):
    return f"{HEAD}'GET {path} HTTP/1.1' {status} 576 bytes 12180 us '-' '{agent}'\n"


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self):
        self.at = 0.0

    def now(self):
        return self.at

    def sleep(self, seconds):
        self.at += seconds


class Head:
    """A head pod's log, and what a watch over it has said."""

    def __init__(self, folder, *, logs=True):
        self.path, self.clock, self.said = folder / "dashboard.log", Clock(), []
        self.logs = logs
        self.watch = Watch(
            DashboardLog(self.path), self.said.append, 60.0, self.ask, self.clock.now, self.clock.sleep
        )

    def write(self, *lines):
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(lines)

    def ask(self, agent):
        if self.logs:
            self.write(line(agent, "/api/version", 401))

    def pass_time(self, seconds, *lines):
        """Look every three seconds; the lines appear before each look."""
        for _ in range(round(seconds / 3)):
            self.write(*lines)
            self.watch.look()
            self.clock.sleep(3)


def test_a_request_is_read_with_its_user_agent_and_a_route_is_none():
    text = ROUTE + line(GO) + line(PYTHON, "/api/jobs/", 200) + "a line that was cut off 'GET /api/jo"
    assert list(requests(text)) == [(JOB, GO), ("/api/jobs/", PYTHON)]


@pytest.mark.parametrize(
    ("agent", "path", "expected"),
    [
        (GO, JOB, True),
        (THROUGH_THE_API_SERVER, JOB, True),
        ("-", JOB, True),
        (PYTHON, JOB, False),
        ("Python/3.11 aiohttp/3.14.5", f"{JOB}/logs/tail", False),
        ("Mozilla/5.0 (X11; Linux x86_64)", "/api/jobs/", False),
        (GO, "/api/version", False),
    ],
)
def test_who_asks_for_the_job_and_is_nobody_else_is_the_operator(agent, path, expected):
    (request,) = requests(line(agent, path))
    assert request.is_operators is expected


def test_an_operator_that_asks_is_not_spoken_of(tmp_path):
    head = Head(tmp_path)
    head.write(ROUTE, line(GO, JOB, 404))
    head.pass_time(600, line(PYTHON), line(GO))
    assert head.said == []


def test_an_operator_that_is_kept_out_is_said_once_within_a_minute_and_a_half(tmp_path):
    head = Head(tmp_path)
    head.pass_time(90, line(PYTHON))
    assert len(head.said) == 1
    assert head.said[0].startswith("KubeRay's operator has not asked Ray for this run's job in 60 s;")
    assert "networkPolicy.operator" in head.said[0]
    head.pass_time(600, line(PYTHON))
    assert len(head.said) == 1


def test_an_operator_that_comes_back_is_said_and_another_silence_too(tmp_path):
    head = Head(tmp_path)
    head.pass_time(90)
    head.pass_time(30, line(GO))
    assert head.said[1] == "KubeRay's operator asks Ray for this run's job again, 90 s after it last did."
    head.pass_time(90)
    assert len(head.said) == 3


def test_an_operator_that_asks_while_the_log_is_proven_is_not_called_silent(tmp_path):
    head = Head(tmp_path)
    head.watch.ask = lambda agent: head.write(line(GO), line(agent, "/api/version"))
    head.pass_time(60 + 3)
    assert head.said == []


@pytest.mark.parametrize("text", [None, "", ROUTE, "\xff\x00 not a log\n"])
def test_nothing_is_said_where_requests_are_not_logged(tmp_path, text):
    head = Head(tmp_path, logs=False)
    if text is not None:
        head.path.write_text(text, encoding="latin-1")
    for _ in range(10):
        head.watch.look()
        head.clock.sleep(60)
    assert head.said == []


def test_a_log_that_ray_has_renamed_is_followed_into_the_new_one(tmp_path):
    log = DashboardLog(tmp_path / "dashboard.log")
    log.path.write_text(line(PYTHON), encoding="utf-8")
    assert [request.agent for request in log.fresh()] == [PYTHON]
    log.path.rename(tmp_path / "dashboard.log.1")
    log.path.write_text(line(GO) + line(GO)[:40], encoding="utf-8")
    assert [request.agent for request in log.fresh()] == [GO]
    with log.path.open("a", encoding="utf-8") as file:
        file.write(line(GO)[40:])
    assert [request.agent for request in log.fresh()] == [GO]
    assert log.fresh() == []


def test_a_notice_goes_to_the_run_folder_if_it_can_be_written(tmp_path, monkeypatch, capsys):
    class Ended(Exception):
        pass

    def watch(log, tell, limit_s):
        tell("kept out")
        raise Ended

    monkeypatch.setattr(operator_watch, "Watch", watch)
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(Ended):
            main([str(folder)])
    assert capsys.readouterr().out == "kept out\n" * 2
    assert read_notices(tmp_path) == ["kept out"]
