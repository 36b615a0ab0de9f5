"""What the fault tests take for the middle of a step, on files as a run leaves them."""

import importlib.util
import json
import threading
import time

import pytest

from tests.cluster.phases import EVALUATED, RATED, make_holdable, phase, within


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "assets").mkdir()
    (tmp_path / "run").mkdir()
    return tmp_path


def leave(folder, step, rated):
    rows = "".join(json.dumps({"step": number}) + "\n" for number in range(step + 1))
    # a reader beside this never sees half a file, as with the run's own, which are appended to
    for name, content in (("run/metrics.jsonl", rows), ("assets/reward_calls", "x" * rated)):
        (folder / "left").write_text(content, encoding="utf-8")
        (folder / "left").replace(folder / name)


def test_the_counts_are_the_tiny_jobs():
    assert (EVALUATED, RATED) == (16, 32)


@pytest.mark.parametrize(
    ("rated_since", "expected"),
    [(0, "generation"), (1, "generation"), (RATED - 1, "generation"), (RATED, "training")],
)
@pytest.mark.parametrize("step", [0, 3])
def test_a_step_trains_once_all_its_responses_are_rated_and_until_its_row(
    folder, step, rated_since, expected
):
    leave(folder, step, EVALUATED + step * RATED + rated_since)
    assert phase(folder) == expected


def test_training_is_entered_when_the_last_response_has_been_rated(folder):
    leave(folder, 3, EVALUATED + 3 * RATED + 5)
    full = threading.Timer(0.2, leave, (folder, 3, EVALUATED + 4 * RATED))
    full.start()
    with within("training", folder):
        assert phase(folder) == "training"


def test_generation_continues_while_a_response_waits_for_its_reward(folder):
    make_holdable(folder)
    spec = importlib.util.spec_from_file_location("held_reward", folder / "assets/reward.py")
    reward = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reward)
    leave(folder, 3, EVALUATED + 3 * RATED)
    # the run: all responses of a step, one after the other, begun before anything is held
    answers = []

    def generate():
        while not (folder / "assets/hold").exists():
            time.sleep(0.01)
        answers.extend(reward.reward_func(["1+1=2"], ["1+1="], ["2"]) for _ in range(RATED))

    run = threading.Thread(target=generate)
    run.start()
    with within("generation", folder):
        time.sleep(0.3)
        assert (phase(folder), answers) == ("generation", [])
    run.join()
    assert phase(folder) == "training"
    assert answers[0]["rewards"].tolist() == [1.0]
