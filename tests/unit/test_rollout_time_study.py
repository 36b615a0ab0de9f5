"""The study `rollout_time`: its points are what study 6 and the real run leave; its figures are what they say."""

import json
import sys
from pathlib import Path

import pytest

STUDIES = Path(__file__).parents[2] / "examples" / "studies"
sys.path.insert(0, str(STUDIES))

from replay.recordings import KEEP_EVERY, PATHS  # noqa: E402
from replay.study import FULL, Folders  # noqa: E402
from replay.walk import KEEP_HEAD_EVERY, KEPT_HEADS  # noqa: E402
from rollout_time import arms, outcome, points, study, timing  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from openrlhf_mtp.bench.drafting import parse_arms  # noqa: E402
from openrlhf_mtp.cli.main import app  # noqa: E402


def point(pair: str = "policy_1_falls_11", step: int = 21) -> points.Point:
    return points.Point(
        pair, f"after_{step - 1}", Path("p"), Path("f"), Path("o"), Path("r"), [Path("h1"), Path("h2")], step
    )


def record(**seconds: float) -> dict[str, object]:
    """A point's record as `bench rollout` writes it, as much as the study reads."""
    return {
        "arms": {
            arm: {"median": {"seconds": value, "tail_seconds": value / 2, "seconds_per_token": value / 100}}
            for arm, value in seconds.items()
        }
    }


def test_the_plan_has_one_primary_contrast_and_equal_rewards_as_a_test() -> None:
    primary = [each for each in arms.CONTRASTS if each.role == "primary"]
    assert [(each.arm, each.against, each.expected, each.ratio) for each in primary] == [
        ("online", "none", "-", True)
    ]
    (rewards,) = (each for each in arms.CONTRASTS if each.name == arms.REWARD)
    assert (rewards.least, rewards.ratio, rewards.expected) == (0.02, False, None)
    (chance,) = (each for each in arms.CONTRASTS if each.role == "aa")
    assert (chance.arm, chance.against) == ("frozen_again", "frozen")
    assert {arm for each in arms.CONTRASTS for arm in (each.arm, each.against)} == set(arms.ARMS)


def test_no_contrast_divides_by_a_figure_that_can_be_zero() -> None:
    # responses that are all cut at the limit have no tail
    assert not {"tail_seconds", "tail_share", "share_after_end"} & {each.name for each in arms.CONTRASTS}


def test_study_6_keeps_the_policies_and_heads_of_every_point() -> None:
    for updates in (*points.UPDATES, points.PILOT_UPDATES):
        assert updates % KEEP_EVERY == 0
        assert updates % KEEP_HEAD_EVERY == 0
        assert updates + 1 <= FULL.steps
    assert points.PILOT_UPDATES not in points.UPDATES
    (head,) = KEPT_HEADS
    assert head in points.of_path(Path("replay"), PATHS[0], 20).online.parts
    assert len(list(points.of_paths(Path("replay")))) == len(PATHS) * len(points.UPDATES)


def test_a_point_is_the_policy_and_the_head_that_made_a_recorded_rollout() -> None:
    found = points.of_path(Path("replay"), PATHS[0], 20)
    run = Folders(Path("replay")).path(PATHS[0]) / "run"
    assert found.policy == run / "checkpoints" / "global_step20_hf"
    assert found.recorded == run / "rollouts" / "step_000021.jsonl"
    assert found.online.name == "after_000020"
    assert [file.name for file in found.history] == [f"step_0000{at}.jsonl" for at in range(11, 21)]
    assert not found.prefix_caching
    first = points.of_path(Path("replay"), PATHS[0], 2)
    assert [file.name for file in first.history] == ["step_000001.jsonl", "step_000002.jsonl"]


def test_the_real_runs_points_are_its_last_rollouts() -> None:
    found = list(points.of_real_run(Path("runs/real")))
    assert [each.step for each in found] == [12, 13, 14, 15, 16]
    assert {each.pair for each in found} == {f"rollout_{step}" for step in range(12, 17)}
    assert all(each.prefix_caching and each.online.parent == each.policy for each in found)


def test_a_point_is_measured_by_words_that_the_product_takes(tmp_path: Path) -> None:
    words = timing.command(point(), tmp_path, arms.ARMS)
    given = words[words.index("--arms") + 1]
    assert [each.name for each in parse_arms(given, Path("f"))] == list(arms.ARMS)
    assert words.count("--history") == 2
    assert "--history" not in timing.command(point(), tmp_path, ("none", "ngram"))
    assert "--no-stand-in" in timing.command(point(), tmp_path, ("none",), smoke=True)
    help_text = CliRunner().invoke(app, ["bench", "rollout", "--help"], terminal_width=200).output
    for option in (word for word in words if word.startswith("--")):
        assert option in help_text


def test_a_point_whose_path_is_not_recorded_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="record the path first"):
        timing.measure(point(), tmp_path, ("none",))


def test_a_measured_point_is_not_measured_again(tmp_path: Path) -> None:
    (tmp_path / timing.RESULT).write_text(json.dumps(record(none=2.0, online=1.0)))
    timing.measure(point(), tmp_path, ("none", "online"))
    assert not timing.is_measured(tmp_path, ("none", "suffix"))


def test_the_crossing_is_the_first_step_with_four_fifths_of_the_gain() -> None:
    rising = [at / 50 for at in range(51)]
    # means of ten: 0.09 at step 10, 0.91 at the end, so 0.746 is wanted; step s has the mean (s - 5.5) / 50
    assert outcome.crossing(rising) == 43
    assert outcome.crossing([0.5] * 30) is None, "no gain, no crossing"
    assert outcome.crossing([0.0, 1.0]) is None, "too short"


def test_seconds_between_points_are_interpolated_and_beyond_them_held() -> None:
    assert outcome.seconds_to(4, {2: 1.0, 4: 3.0}) == pytest.approx(1.0 + 1.0 + 2.0 + 3.0)
    assert outcome.seconds_to(2, {1: 1.0}) == pytest.approx(2.0)


def test_a_pair_is_the_mean_over_its_points() -> None:
    measured = [
        (point(step=21), record(none=10.0, online=6.0)),
        (point(step=51), record(none=20.0, online=10.0)),
    ]
    rewards = {"none": [0.0, 1.0], "online": [1.0, 1.0]}
    values = outcome.values_of(measured, rewards, [0.0] * 10 + [1.0] * 90)
    assert values["none"]["seconds"] == 15.0
    assert values["online"]["seconds"] == 8.0
    assert values["online"]["reward"] == 1.0
    # 18 steps of 6 s, the first point's
    assert values["online"]["seconds_to_reward"] == pytest.approx(18 * 6.0)
    assert outcome.values_of(measured, None, [], other=3.0)["online"]["step_seconds"] == 11.0
    without = outcome.values_of(measured, None, [0.5] * 100)
    assert not {"reward", "seconds_to_reward", "step_seconds"} & set(without["online"])


@pytest.mark.parametrize(
    ("high", "words"),
    [(None, "no interval"), (0.7, "repeats MTP-RL's"), (0.9, "a gain"), (1.1, "no gain shown")],
)
def test_the_claim_is_judged_by_the_end_of_the_interval(high: float | None, words: str) -> None:
    assert words in outcome.claim({"high": high})


def test_a_result_compares_pairs_and_names_what_is_missing(tmp_path: Path) -> None:
    pairs = {
        f"path_{at}": {
            arm: {"seconds": 10.0 * factor + 0.01 * at, "tail_seconds": 4.0 * factor, "completion_p50": 1.0,
                  "completion_p95": 2.0, "tokens_per_forward": 1.0 / factor, "reward": 0.5 + 0.001 * at}
            for arm, factor in (("none", 1.0), ("frozen", 0.7), ("online", 0.6))
        }
        for at in range(6)
    }  # fmt: skip
    result = outcome.collect("stand_in", pairs, ["policy_1 after_80"])
    primary, *_ = (each for each in result["contrasts"] if each["role"] == "primary")
    assert primary["mean"] == pytest.approx(0.6, abs=0.01)
    assert primary["verdict"] == "as expected"
    assert result["claim"].startswith("repeats MTP-RL's")
    (reward,) = (each for each in result["contrasts"] if each["name"] == "reward")
    assert reward["verdict"] == "equivalent, within ±0.02"
    text = outcome.table(result)
    assert "Not measured: policy_1 after_80." in text
    assert "| online |" in text
    outcome.write_result(result, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {
        f"result_stand_in.{ending}" for ending in ("json", "md", "png")
    }


def test_nothing_measured_is_a_result_that_says_so() -> None:
    result = outcome.collect("real", {}, ["rollout_16 final"])
    assert result["runs"] == {}
    assert result["claim"] is None
    assert "Not measured: rollout_16 final." in outcome.table(result)


def test_the_study_refuses_suffix_drafts_without_their_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "arctic_inference", None)
    monkeypatch.setattr(sys, "argv", ["study.py", "--runs", str(tmp_path), "--stages", "time"])
    with pytest.raises(SystemExit, match="arctic-inference cannot be imported"):
        study.main()
