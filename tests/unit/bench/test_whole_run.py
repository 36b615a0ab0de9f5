"""A whole run with a head beside one without: what is run, and what is made of the two."""

import json
import math

import pytest

from openrlhf_mtp.bench import whole_run
from openrlhf_mtp.bench.whole_run import HEAD, NONE, bench_run, figures
from openrlhf_mtp.runlog import metrics

STEPS = 5
ROLLOUT = {NONE: 6.0, HEAD: 3.0}


def row(step, *, rollout=6.0, reward=0.5, evaluation=0.0):
    """A step of 10 s beside rollout and evaluation: 2 of experience, 4 of training, 1 of sync, 3 of what else."""
    return {
        metrics.STEP: step,
        metrics.TIME_ROLLOUT_S: rollout,
        metrics.TIME_EXPERIENCE_S: 2.0,
        metrics.TIME_TRAIN_S: 4.0,
        metrics.TIME_SYNC_S: 1.0,
        metrics.TIME_EVAL_S: evaluation,
        metrics.TIME_STEP_S: 10.0 + rollout + evaluation,
        metrics.PERF_ROLLOUT_TOKENS: 1000.0,
        metrics.POLICY_RESPONSE_LENGTH: 10.0,
        metrics.POLICY_REWARD: reward,
        metrics.POLICY_REWARD_STD: 0.5,
    }


class Runs:
    """Stands for the processes: a run of `STEPS` steps whose reward rises by 0.1 a step."""

    def __init__(self, fails_at=None):
        self.given, self.fails_at = [], fails_at

    def __call__(self, words):
        self.given.append(list(words))
        if len(self.given) == self.fails_at:
            return 3
        folder = whole_run.Path(words[list(words).index("--out") + 1])
        folder.mkdir(parents=True)
        arm = folder.name
        rows = [{metrics.STEP: 0, metrics.TIME_EVAL_S: 7.0}]
        rows += [
            row(step, rollout=ROLLOUT[arm], reward=0.1 * step, evaluation=7.0 * (step == 2))
            for step in range(1, STEPS + 1)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
        return 0


def result(tmp_path):
    return json.loads((tmp_path / whole_run.RESULT).read_text(encoding="utf-8"))


def test_the_arms_differ_in_the_head_alone_and_every_other_turn_goes_backwards(tmp_path):
    runs = Runs()
    assert bench_run(tmp_path / "job.yaml", ["mtp.depths=2"], tmp_path, turns=2, run=runs) == 0
    assert ["mtp=null" in words for words in runs.given] == [True, False, False, True]
    assert [words[-4] for words in runs.given] == ["train.seed=1"] * 2 + ["train.seed=2"] * 2
    assert all(words[:3] == ["train", str(tmp_path / "job.yaml"), "mtp.depths=2"] for words in runs.given)
    assert (tmp_path / whole_run.FIGURE).stat().st_size > 0


def test_seconds_are_compared_by_part_without_evaluations(tmp_path, capsys):
    bench_run(tmp_path / "job.yaml", [], tmp_path, turns=1, reward=0.3, run=Runs())
    record = result(tmp_path)
    assert record["arms"][NONE][0]["parts"] == {
        "rollout": 6.0,
        "experience": 2.0,
        "training": 4.0,
        "sync": 1.0,
        "other": pytest.approx(3.0),
        "step": pytest.approx(16.0),
        whole_run.TOKEN: pytest.approx(6.0),
    }
    assert record["head_over_none"]["rollout"]["median"] == 0.5
    assert record["head_over_none"]["step"]["median"] == pytest.approx(13 / 16)
    assert record["head_over_none"][whole_run.TOKEN]["median"] == 0.5
    assert record["reward_difference"]["mean"] == 0.0
    assert record["first_step_z"] == 0.0
    printed = capsys.readouterr().out
    assert "-50.0 %" in printed
    assert "one turn, so no interval" in printed
    assert "Reward 0.3 reached after: none 64 s; head 52 s." in printed


def test_a_reward_is_reached_when_the_mean_of_three_steps_is():
    rewards = [0.0, 0.9, 0.0, 0.0, 0.6, 0.6, 0.6]
    rows = [row(step, reward=reward) for step, reward in enumerate(rewards, start=1)]
    assert figures(rows, 0.5)["reached"] == pytest.approx(7 * 16.0)
    assert figures(rows, 0.7)["reached"] is None


@pytest.mark.parametrize(("rewards", "z"), [((0.5, 0.5), 0.0), ((0.6, 0.5), 0.1 / math.sqrt(2 * 0.25 / 100))])
def test_the_first_step_is_a_test_of_the_same_policy(rewards, z):
    head, none = ([figures([row(1, reward=reward)], None)] for reward in rewards)
    assert whole_run._first_step_z({HEAD: head, NONE: none}) == pytest.approx(z)


def test_turns_give_the_rewards_an_interval():
    pairs = [(0.5, 0.4), (0.6, 0.4), (0.7, 0.4)]
    measured = {
        arm: [figures([row(1, reward=pair[at])], None) for pair in pairs]
        for at, arm in ((0, HEAD), (1, NONE))
    }
    difference = whole_run._reward_difference(measured)
    assert difference["mean"] == pytest.approx(0.2)
    assert difference["half_width"] == pytest.approx(4.303 * 0.1 / math.sqrt(3), rel=1e-3)


def test_a_run_that_fails_ends_the_measurement_with_its_exit_code(tmp_path, capsys):
    runs = Runs(fails_at=2)
    assert bench_run(tmp_path / "job.yaml", [], tmp_path, turns=2, run=runs) == 3
    assert len(runs.given) == 2
    assert "turn_1/head: exit code 3" in capsys.readouterr().err
    assert not (tmp_path / whole_run.RESULT).exists()
