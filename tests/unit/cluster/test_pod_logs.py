"""What a pod's processes print is read once, shown line by line, and kept in bounded space."""

import os
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.cluster import request_checkpoint
from openrlhf_mtp.cluster.pod_logs import __main__ as pod_logs
from openrlhf_mtp.cluster.pod_logs.console import Console, is_output
from openrlhf_mtp.cluster.pod_logs.flush import flush
from openrlhf_mtp.cluster.pod_logs.follower import CHUNK_BYTES, Chunk, Follower
from openrlhf_mtp.cluster.pod_logs.keeper import Keeper, own_folder
from tests.cluster.api import until
from tests.patience import seconds

SESSION = "session_2026-11-30_04-52-21_745151_23189"
WORKER = "worker-0808af39-01000000-812.err"
MUCH = 1 << 30


class Files:
    """Log files of one session that grow, are cut off and rotate, and all that was ever written to each."""

    def __init__(self, root: Path) -> None:
        self.logs = root / SESSION / "logs"
        self.logs.mkdir(parents=True)
        self.written: list[bytes] = []
        self.living: dict[Path, int] = {}

    def append(self, name: str, data: bytes) -> None:
        path = self.logs / name
        if path not in self.living:  # no two files begin alike, as no two workers do
            self.living[path] = len(self.written)
            self.written.append(b"")
            data = f"<{self.living[path]}>".encode() + data
        with path.open("ab") as file:
            file.write(data)
        self.written[self.living[path]] += data

    def cut_off(self, name: str) -> None:
        path = self.logs / name
        if self.living.pop(path, None) is not None:
            os.truncate(path, 0)

    def rotate(self, name: str) -> None:
        path = self.logs / name
        for number in range(40, -1, -1):  # more than there are steps
            old = self.logs / f"{name}.{number}" if number else path
            if old in self.living:
                new = self.logs / f"{name}.{number + 1}"
                old.rename(new)
                self.living[new] = self.living.pop(old)


def look(follower: Follower, read: dict[str, bytes]) -> None:
    for chunk in follower.new():
        assert len(read.get(chunk.name, b"")) == chunk.offset  # nothing twice, nothing left out
        read[chunk.name] = read.get(chunk.name, b"") + chunk.data
    follower.remember()


NAMES = st.sampled_from([WORKER, "raylet.out", "events/event_RAYLET.log"])
STEPS = st.one_of(
    st.tuples(st.just("append"), NAMES, st.binary(min_size=1, max_size=200)),
    st.tuples(st.just("append"), NAMES, st.just(b"x" * (CHUNK_BYTES + 5))),
    st.tuples(st.just("rotate"), NAMES),
    st.tuples(st.just("cut_off"), NAMES),
    st.tuples(st.just("look")),
    st.tuples(st.just("restart")),
)


@given(st.lists(STEPS, max_size=30))
def test_every_byte_is_read_once_however_files_rotate_and_the_follower_restarts(steps):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        files, read = Files(root), {}
        (files.logs / "events").mkdir()
        follower = Follower(root, root / "memory" / "x.json", most_behind=MUCH)
        for what, *arguments in steps:
            if what == "look":
                look(follower, read)
            elif what == "restart":
                follower = Follower(root, root / "memory" / "x.json", most_behind=MUCH)
            else:
                if what == "cut_off":  # what was not read before is lost with any reader
                    look(follower, read)
                getattr(files, what)(*arguments)
        look(follower, read)
        assert sorted(read.values()) == sorted(files.written)


def test_links_states_and_what_is_not_wanted_are_not_read(tmp_path):
    files = Files(tmp_path)
    files.append(WORKER, b"1")
    files.append("dashboard.log", b"2")
    files.append("debug_state.txt", b"3")
    (tmp_path / "session_latest").symlink_to(tmp_path / SESSION)
    (files.logs / "worker-1-2-3.out").symlink_to(files.logs / WORKER)
    read = {}
    look(Follower(tmp_path, tmp_path / "x.json", most_behind=MUCH, wanted=is_output), read)
    assert list(read) == [WORKER]
    look(Follower(tmp_path / "not there", tmp_path / "y.json", most_behind=MUCH), {})


def test_of_more_than_can_be_followed_the_beginning_and_the_end_are_read(tmp_path):
    files = Files(tmp_path)
    files.append(WORKER, bytes(10 * CHUNK_BYTES) + b"end")
    chunks = list(Follower(tmp_path, tmp_path / "x.json", most_behind=100).new())
    assert [chunk.offset for chunk in chunks] == [0, 10 * CHUNK_BYTES + len("<0>end") - 100]
    assert chunks[-1].data.endswith(b"end")


def test_what_the_receiver_could_not_take_is_read_again(tmp_path):
    files = Files(tmp_path)
    files.append(WORKER, b"text")
    follower = Follower(tmp_path, tmp_path / "x.json", most_behind=MUCH)
    reading = follower.new()
    next(reading)
    reading.close()  # as an error in the receiver's loop does
    read = {}
    look(follower, read)
    assert read == {WORKER: b"<0>text"}


def shown(*texts: bytes, name: str = WORKER) -> list[str]:
    lines: list[str] = []
    console, offset = Console(lines.append), 0
    for text in texts:
        console.take(Chunk(SESSION, name, offset, text))
        offset += len(text)
    return lines


@given(
    st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20), max_size=8),
    st.data(),
)
def test_lines_are_the_same_wherever_they_are_cut(lines, data):
    text = "".join(f"{line}\n" for line in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert shown(*pieces) == shown(text)


def test_a_line_says_who_printed_it():
    assert shown(b":job_id:01000000\n:actor_name:MTPRolloutActor\nhello\n") == [
        "[MTPRolloutActor pid=812] hello"
    ]
    assert shown(b"hello\n") == ["[worker pid=812] hello"]
    assert shown(b"hello\n", name="job-driver-run1-1.log") == ["[driver] hello"]
    assert shown(b"*** SIGABRT\n", name="raylet.err") == ["[raylet] *** SIGABRT"]


def test_of_what_ray_logs_errors_are_shown():
    chatter = b"[2026-11-30 04:52:26,440 I 23358 23358] (raylet) main.cc:279: Setting cluster ID\n"
    error = (
        b"[2026-11-30 04:52:27,001 E 23358 23358] (raylet) node_manager.cc:1: workers killed due to memory\n"
    )
    table = b"[2026-11-30 04:52:27,440 I 1 1] (gcs_server) state:\nGcsNodeManager:\n- RegisterNode request count: 0\n"
    assert shown(chatter + error + table, name="raylet.out") == [f"[raylet] {error.decode().strip()}"]


def test_progress_bars_show_their_end_and_colors_are_left_out():
    bar = b"Loading:   0%|          | 0/2 [00:00<?, ?it/s]\rLoading:  50%|#####     | 1/2 [00:01<00:01,  1.00it/s]"
    assert shown(
        bar + b"\rLoading: 100%|##########| 2/2 [00:02<00:00,  1.00it/s]\n\x1b[31mred\x1b[0m\x1b[A\n\n"
    ) == [
        "[worker pid=812] Loading: 100%|##########| 2/2 [00:02<00:00,  1.00it/s]",
        "[worker pid=812] red",
    ]
    assert shown(b"at 50% of the pods|x\n") == ["[worker pid=812] at 50% of the pods|x"]


def test_bytes_that_are_no_text_are_shown_as_such():
    assert shown(b"\xff\xfe broken\n") == ["[worker pid=812] \ufffd\ufffd broken"]


def test_a_line_without_an_end_is_shown_when_nothing_follows():
    lines: list[str] = []
    console = Console(lines.append)
    console.take(Chunk(SESSION, WORKER, 0, b"last words"))
    console.settle()
    assert lines == []
    console.settle()
    console.settle()
    assert lines == ["[worker pid=812] last words"]


def test_a_line_that_never_ends_is_shown_in_pieces():
    assert len(shown(b"x" * CHUNK_BYTES, b"y" * CHUNK_BYTES)) == 2


def test_a_gap_is_said():
    lines: list[str] = []
    console = Console(lines.append)
    console.take(Chunk(SESSION, WORKER, 0, b"one\n"))
    console.take(Chunk(SESSION, WORKER, 1004, b"two\n"))
    assert lines[1] == "[worker pid=812] ... 1000 bytes more than can be shown ..."


def kept(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_file_is_kept_as_it_is_and_writing_it_twice_changes_nothing(tmp_path):
    chunks = [
        Chunk(SESSION, "events/x.log", 0, b"\x00\xff one\n"),
        Chunk(SESSION, "events/x.log", 7, b"two\n"),
    ]
    for _ in range(2):
        keeper = Keeper(lambda: tmp_path, 1 << 20)
        for chunk in chunks:
            keeper.take(chunk)
    assert kept(tmp_path) == {f"{SESSION}/events/x.log": b"\x00\xff one\ntwo\n"}


def test_of_a_long_file_the_beginning_and_the_end_are_kept(tmp_path):
    limit, line = 16 << 10, 64  # a file's share is 1 KiB
    keeper = Keeper(lambda: tmp_path, limit)
    for number in range(100):
        keeper.take(Chunk(SESSION, WORKER, number * line, f"{number:63d}\n".encode()))
    found = kept(tmp_path / SESSION)
    assert found[WORKER] == b"".join(f"{number:63d}\n".encode() for number in range(8))
    parts = {int(name.rpartition("-")[2]): data for name, data in found.items() if name != WORKER}
    assert len(parts) == 2
    assert max(parts) + len(parts[max(parts)]) == 100 * line  # up to the end
    assert b"".join(parts[start] for start in sorted(parts)).endswith(f"{98:63d}\n{99:63d}\n".encode())
    assert sum(map(len, found.values())) <= limit // 16


def test_bytes_that_were_left_out_are_no_hole_of_zeros(tmp_path):
    keeper = Keeper(lambda: tmp_path, 1 << 20)
    keeper.take(Chunk(SESSION, WORKER, 0, b"one\n"))
    keeper.take(Chunk(SESSION, WORKER, 1000, b"two\n"))
    (tmp_path / SESSION / WORKER).unlink()  # by a user, or to make room
    keeper.take(Chunk(SESSION, WORKER, 1004, b"three\n"))
    assert kept(tmp_path / SESSION) == {f"{WORKER}.from-1000": b"two\nthree\n"}


def test_kept_files_stay_within_the_limit_and_drop_worker_output_last(tmp_path):
    limit, dice = 64 << 10, random.Random(0)
    keeper, sizes = Keeper(lambda: tmp_path, limit), {}
    keeper.take(Chunk(SESSION, WORKER, 0, b"RuntimeError: the reason\n"))
    for _ in range(2000):
        name = f"python-core-worker-{dice.randrange(60)}.log"
        keeper.take(Chunk(SESSION, name, sizes.get(name, 0), bytes(200)))
        sizes[name] = sizes.get(name, 0) + 200
    found = kept(tmp_path / SESSION)
    assert sum(map(len, found.values())) <= limit + limit // 16
    assert sum(map(len, found.values())) > limit // 2
    assert found[WORKER] == b"RuntimeError: the reason\n"


def test_a_pod_gets_a_folder_of_its_own_and_finds_it_again(tmp_path):
    logs = tmp_path / "run" / "logs"
    first, second = tmp_path / "first", tmp_path / "second"
    assert own_folder(logs, "run1-trainer-0", first / "folder") == logs / "run1-trainer-0"
    # the same name at the next attempt, as a StatefulSet gives it
    assert own_folder(logs, "run1-trainer-0", second / "folder") == logs / "run1-trainer-0.2"
    # a container that restarts in its pod
    assert own_folder(logs, "run1-trainer-0", first / "folder") == logs / "run1-trainer-0"


@pytest.fixture
def pod(tmp_path):
    """A pod's /tmp and a function that starts the command there."""
    started = []

    def start(*words):
        process = subprocess.Popen(
            [sys.executable, "-m", "openrlhf_mtp.cluster.pod_logs", *map(str, words)],
            env={**os.environ, "TMPDIR": str(tmp_path), "POD_NAME": "run1-rollout-0"},
            stdout=(tmp_path / "console").open("ab"),
            stderr=subprocess.STDOUT,
        )
        started.append(process)
        return process

    yield tmp_path, start
    for process in started:
        process.kill()
        process.wait()


def console(folder: Path) -> str:
    return (folder / "console").read_text(encoding="utf-8")


def test_a_pods_logs_are_shown_and_kept_through_a_kill_and_a_flush(pod):
    folder, start = pod
    process = start("--keep", folder / "run" / "logs")
    files = Files(folder / "ray")
    files.append(WORKER, b"\n:actor_name:MTPRolloutActor\nRuntimeError: CUDA error\n")
    copy = folder / "run" / "logs" / "run1-rollout-0" / SESSION / WORKER
    until("a line", lambda: "[MTPRolloutActor pid=812] RuntimeError: CUDA error" in console(folder), 20)
    until("its copy", copy.exists, 20)
    process.kill()  # with its container, which Kubernetes restarts
    process.wait()
    files.append(WORKER, b"the last words\n")
    start("--keep", folder / "run" / "logs")
    until("what came meanwhile", lambda: "the last words" in console(folder), 20)
    files.append(WORKER, b"the very last words\n")
    assert flush(folder / "openrlhf-mtp-pod-logs", seconds(10))
    assert copy.read_bytes() == files.written[0]
    assert console(folder).count("CUDA error") == 1
    assert [path.name for path in (folder / "run" / "logs").iterdir()] == ["run1-rollout-0"]


def test_an_unwritable_volume_is_reported_once_and_lines_still_shown(pod):
    folder, start = pod
    (folder / "run").write_text("a file where a folder is expected", encoding="utf-8")
    process = start("--keep", folder / "run" / "logs")
    files = Files(folder / "ray")
    files.append(WORKER, b"one\n")
    until("what is wrong", lambda: "[logs] this pod's logs are not kept for now" in console(folder), 20)
    files.append(WORKER, b"two\n")
    until("a line", lambda: "[worker pid=812] two" in console(folder), 20)
    # a pod that stops is not kept waiting
    assert flush(folder / "openrlhf-mtp-pod-logs", seconds(10))
    assert console(folder).count("[logs]") == 1
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=seconds(20)) == 0


def test_without_a_place_to_keep_them_logs_are_shown_only(pod):
    folder, start = pod
    start()
    Files(folder / "ray").append(WORKER, b"hello\n")
    until("a line", lambda: "[worker pid=812] <0>hello" in console(folder), 20)
    assert sorted(path.name for path in folder.iterdir()) == ["console", "openrlhf-mtp-pod-logs", "ray"]


def test_a_pod_that_stops_does_not_wait_long_for_a_follower_that_has_died(tmp_path):
    assert not flush(tmp_path / "never was")
    waited = []
    clock = iter(range(100))
    assert not flush(tmp_path, 5, clock=lambda: next(clock), sleep=waited.append)
    assert len(waited) == 4
    assert list(tmp_path.iterdir()) == []


def test_the_hook_asks_for_a_checkpoint_and_then_for_the_logs(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(request_checkpoint, "ask", lambda run, timeout_s: asked.append((run, timeout_s)))
    monkeypatch.setattr(request_checkpoint, "flush", asked.append)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert request_checkpoint.main([str(tmp_path / "run"), "--timeout-s", "3"]) == 0
    assert asked == [(tmp_path / "run", 3.0), tmp_path / "openrlhf-mtp-pod-logs"]


def test_a_bug_of_ours_does_not_end_what_is_followed(monkeypatch, tmp_path, capsys):
    import threading

    ending, seen = threading.Event(), []

    def take(chunk):
        seen.append(chunk.data)
        if len(seen) == 1:
            raise ZeroDivisionError("a bug")
        ending.set()

    monkeypatch.setattr(pod_logs, "RETRY_S", 0.1)
    Files(tmp_path).append(WORKER, b"text")
    pod_logs.Loop("shown", Follower(tmp_path, tmp_path / "x.json", most_behind=MUCH), take, ending).run()
    assert seen[:2] == [b"<0>text"] * 2
    assert "[logs] this pod's logs are not shown for now" in capsys.readouterr().out
