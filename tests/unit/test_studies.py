"""The studies: the task is what it says, reward and generator agree, the harness skips and sums up rightly."""

import json
import random
import statistics
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

STUDIES = Path(__file__).parents[2] / "examples" / "studies"
sys.path.insert(0, str(STUDIES))

from drift.study import STUDY as DRIFT  # noqa: E402
from entropy.study import STUDY as ENTROPY  # noqa: E402
from harness import jobs, results, runs  # noqa: E402
from harness import main as command_line  # noqa: E402
from harness.statistics import interval, paired  # noqa: E402
from harness.study import Arm, Place  # noqa: E402
from objectives.study import STUDY as OBJECTIVES  # noqa: E402
from regimes.study import STUDY as REGIMES  # noqa: E402
from task.prompts import write_data  # noqa: E402
from task.reward import grade, response_of, reward_func  # noqa: E402
from task.tokens import build, move_tokens  # noqa: E402
from task.walk import RING, Dial, Problem, branching_entropy, choices, problems, walk  # noqa: E402

dials = st.builds(
    Dial,
    branches=st.integers(4, 16),
    taste=st.floats(0.0, 2.0),
    steps=st.integers(16, 30),
    modulus=st.sampled_from([1, 2, 5, 10, 20, 50, 100]),
)
places = st.builds(Problem, st.integers(0, RING - 1), st.integers(0, RING - 1))
ALL = (OBJECTIVES, ENTROPY, DRIFT, REGIMES)


def rules(problem, dial):
    return json.loads(problem.label(dial))


@given(places, dials, st.integers())
def test_every_walk_of_the_generator_earns_the_whole_reward(problem, dial, seed):
    text = walk(problem, dial, random.Random(seed)).text
    assert len(text) == dial.response_tokens
    assert grade(text, rules(problem, dial)).reward == 1.0


@given(places, dials, st.integers(), st.data())
def test_a_walk_with_one_place_changed_loses_its_end_and_all_after_the_mistake(problem, dial, seed, data):
    text = walk(problem, dial, random.Random(seed)).text
    at = data.draw(st.integers(0, dial.steps - 1))
    written = (int(text[3 * at + 1 : 3 * at + 3]) + data.draw(st.integers(1, RING - 1))) % RING
    spoilt = f"{text[: 3 * at + 1]}{written:02d}{text[3 * at + 3 :]}"
    result = grade(spoilt, rules(problem, dial))
    assert result.valid == at / dial.steps
    assert result.reward == 0.5 * at / dial.steps


@given(places, dials, st.integers())
def test_a_problem_and_a_seed_give_one_walk(problem, dial, seed):
    assert walk(problem, dial, random.Random(seed)) == walk(problem, dial, random.Random(seed))


@given(places, dials, st.integers())
def test_the_walker_chooses_among_valid_moves_that_can_still_reach_the_goal(problem, dial, last):
    left, last = dial.steps - 1, last % dial.branches
    distribution = choices(problem, dial, left, problem.start, last)
    assert distribution.sum() == pytest.approx(1.0)
    assert distribution[last] == 0.0, "no move twice in a row"


@pytest.mark.parametrize(
    "turned",
    [
        [Dial(branches=n) for n in (4, 6, 9, 16)],
        [Dial(taste=t) for t in (2.0, 1.4, 0.9, 0.5, 0.0)],
        [Dial(modulus=m) for m in (100, 10, 1)],
    ],
    ids=["more branches", "less taste", "an easier goal"],
)
def test_turning_the_dial_raises_the_entropy_of_the_walks(turned):
    measured = [branching_entropy(dial, walks=200) for dial in turned]
    assert measured == sorted(measured)
    assert measured[-1] > measured[0] + 0.1


def test_the_entropy_read_off_is_that_of_the_moves_drawn():
    dial = Dial(branches=4, steps=4, modulus=1, taste=1.0)
    rng = random.Random(0)
    drawn = [walk(Problem(31, 0), dial, rng) for _ in range(20_000)]
    first = [one.text[0] for one in drawn]
    shares = [first.count(move) / len(first) for move in dial.moves]
    assert shares == pytest.approx(choices(Problem(31, 0), dial, 4, 31, None).tolist(), abs=0.012)


def test_the_default_dial_is_what_the_studies_need():
    assert 0.3 < branching_entropy(Dial()) < 1.5
    assert Dial().response_tokens >= 64
    starts = {walk(Problem(47, 3), Dial(), random.Random(seed)).text[:18] for seed in range(50)}
    assert len(starts) > 40, "several valid continuations"


@pytest.mark.parametrize(
    "wrong", [{"branches": 2}, {"branches": 17}, {"steps": 3}, {"modulus": 7}, {"taste": -1.0}]
)
def test_a_dial_that_cannot_be_turned_so_says_what_it_expects(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: got"):
        Dial(**wrong)


DIAL = Dial(steps=4, modulus=10)
RIGHT = walk(Problem(47, 3), DIAL, random.Random(5)).text


@pytest.mark.parametrize(
    ("response", "valid", "solved"),
    [
        (RIGHT, 1.0, True),
        (RIGHT + "<eos><pad>", 1.0, True),
        (RIGHT + "a50", 1.0, False),
        (RIGHT + "\n", 1.0, False),
        (RIGHT[:9], 0.75, False),
        ("a50a53b70c98", 0.25, False),
        ("z47" + RIGHT[3:], 0.0, False),
        ("a٥٠", 0.0, False),
        ("", 0.0, False),
    ],
)
def test_what_a_response_is_worth(response, valid, solved):
    prompt = Problem(47, 3).prompt
    result = grade(response_of(prompt + response, prompt), rules(Problem(47, 3), DIAL))
    assert (result.valid, result.solved) == (valid, solved)


@given(st.text(), st.text())
def test_no_text_makes_the_reward_raise(query, prompt):
    result = reward_func([query], [prompt], [Problem(1, 2).label(Dial())])
    assert 0.0 <= result["rewards"].item() <= 1.0
    assert set(result["extra_logs"]) == {"valid", "solved"}


def test_no_problem_is_on_both_sides_of_the_split():
    held_out, taught = (set(islice(problems(3, held_out=side), 2000)) for side in (True, False))
    assert not held_out & taught


def test_the_data_files_hold_prompts_and_rules_of_their_side(tmp_path):
    write_data(tmp_path, Dial(), train=20, evaluation=10, seed=1)
    for name, count, side in (("train", 20, False), ("eval", 10, True)):
        rows = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        assert len(rows) == count
        for row in rows:
            label = json.loads(row["label"])
            problem = Problem(label["start"], label["goal"])
            assert problem.prompt == row["input"]
            assert problem.held_out == side


def test_the_tokens_of_moves_are_one_letter_each():
    assert [build().decode([token]) for token in move_tokens()] == list("abcdefghijklmnop")


def test_intervals_over_seeds_are_students():
    seeds = [1.0, 2.0, 6.0]
    found = interval(seeds)
    half = 4.302652729749464 * statistics.stdev(seeds) / 3**0.5
    assert (found.low, found.mean, found.high) == pytest.approx((3.0 - half, 3.0, 3.0 + half))
    assert interval([2.5]).low is None, "one seed says nothing of the spread"
    with pytest.raises(ValueError, match="no finite value"):
        interval([float("nan")])
    assert paired([1.0, 5.0], [0.0, 4.0]).low == paired([1.0, 5.0], [0.0, 4.0]).high == 1.0
    assert paired([1.0, 4.0], [2.0, 8.0], ratio=True).mean == 0.5


def test_settings_of_an_arm_replace_those_of_the_base_job_and_leave_the_rest():
    base = {"mtp": {"depths": 3, "optim": {"lr": 1}}, "train": {"seed": 1}}
    change = {"mtp": {"optim": {"lr": 2}, "objective": "tv"}}
    merged = jobs.merged(base, change)
    assert merged == {
        "mtp": {"depths": 3, "optim": {"lr": 2}, "objective": "tv"},
        "train": {"seed": 1},
    }
    assert base["mtp"]["optim"]["lr"] == 1, "the base job is another arm's as well"


@pytest.mark.parametrize("study", ALL, ids=lambda study: study.name)
def test_a_study_compares_what_it_has(study):
    arms, columns = {arm.name for arm in study.arms}, {column.name for column in study.columns}
    assert {each.arm for each in study.contrasts} | {each.against for each in study.contrasts} <= arms
    assert {each.name for each in study.contrasts} <= columns
    assert set(study.smoke_arms) <= arms


def finish(study, place):
    place.folder.mkdir(parents=True)
    arm = next(arm for arm in study.arms if arm.name == place.arm)
    mark = {"fingerprint": runs.fingerprint(study, arm, place), "seconds": 60.0}
    (place.folder / runs.MARK).write_text(json.dumps(mark))
    (place.folder / "command.txt").write_text("openrlhf-mtp pretrain\ngit 0123abc\n")


def test_a_finished_run_is_skipped_until_its_job_changes(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(
        runs, "run_one", lambda study, arm, place, _: started.append((place.arm, place.seed)) or 0
    )
    place = Place("ce", 1, tmp_path / "objectives" / "ce" / "seed_1", False)
    finish(OBJECTIVES, place)
    runs.run_all(OBJECTIVES, tmp_path, smoke=False, parallel=1)
    assert ("ce", 1) not in started
    assert len(started) == 3 * len(OBJECTIVES.arms) - 1
    assert not runs.finished(OBJECTIVES, Arm("kl", {}), place)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--arms", "tv", "ce"], {(arm, seed) for arm in ("ce", "tv") for seed in (1, 2, 3)}),
        (["--seeds", "2"], {(arm.name, 2) for arm in OBJECTIVES.arms}),
        (["--result-only"], set()),
    ],
)
def test_the_command_line_runs_what_is_asked_and_sums_up_all_there_is(
    options, expected, tmp_path, monkeypatch
):
    started = set()
    monkeypatch.setattr(
        runs, "run_one", lambda study, arm, place, _: started.add((place.arm, place.seed)) or 0
    )
    monkeypatch.setattr(command_line, "make_assets", lambda *_: None)
    study = replace(OBJECTIVES, name="elsewhere", measure=lambda _: {})
    monkeypatch.setattr(type(study), "folder", tmp_path)
    monkeypatch.setattr(sys, "argv", ["study.py", "--runs", str(tmp_path), *options])
    assert command_line.main(study, "") == 0
    assert started == expected
    assert len(json.loads((tmp_path / "result.json").read_text())["missing"]) == len(OBJECTIVES.arms)


class Commands:
    """Stands in for `subprocess` in the harness: keeps the commands, all of which succeed."""

    STDOUT = None

    def __init__(self):
        self.commands = []
        self.returncode = 0

    def run(self, command, **_):
        self.commands.append(list(command))
        return self


def test_a_cut_run_resumes_from_its_checkpoint_or_starts_over(tmp_path, monkeypatch):
    commands = Commands()
    monkeypatch.setattr(runs, "subprocess", commands)
    arm, place = DRIFT.arms[0], Place("pre_rl_only", 1, tmp_path / "drift" / "pre_rl_only" / "seed_1", False)
    place.folder.mkdir(parents=True)
    (place.folder / "metrics.jsonl").write_text("{}")
    (place.folder / "rest").touch()
    runs.run_one(DRIFT, arm, place, tmp_path)
    assert commands.commands[-1][-1] == "--overwrite"
    assert not (place.folder / "rest").exists()
    leave_a_checkpoint(place)
    runs.run_one(DRIFT, arm, place, tmp_path)
    assert commands.commands[-1][-1] == "--resume"
    assert (place.folder / "rest").exists()
    head = tmp_path / "objectives" / "e2e_tv" / "seed_1" / "head"
    assert f"mtp.head={head}" in commands.commands[-1]
    assert runs.finished(DRIFT, arm, place)


def leave_a_checkpoint(place):
    (place.folder / "checkpoints" / "_actor").mkdir(parents=True)
    for name in ("metrics.jsonl", "checkpoints/_actor/latest", "rest"):
        (place.folder / name).touch()


def test_a_run_whose_job_was_edited_starts_over_without_its_old_result(tmp_path, monkeypatch):
    commands = Commands()
    monkeypatch.setattr(runs, "subprocess", commands)
    monkeypatch.setattr(type(DRIFT), "jobs", tmp_path / "jobs")
    arm, place = DRIFT.arms[0], Place("pre_rl_only", 1, tmp_path / "drift" / "pre_rl_only" / "seed_1", False)
    runs.run_one(DRIFT, arm, place, tmp_path)
    leave_a_checkpoint(place)
    with (tmp_path / "jobs" / "pre_rl_only.yaml").open("a") as job:
        job.write("# another learning rate\n")
    study = replace(DRIFT, arms=[arm], seeds=[1])
    assert results.collect(study, {arm.name: [place]})["missing"] == [arm.name]
    runs.run_one(DRIFT, arm, place, tmp_path)
    assert commands.commands[-1][-1] == "--overwrite"
    assert not (place.folder / "rest").exists()
    assert runs.finished(DRIFT, arm, place)


def test_the_arms_of_a_seed_share_its_responses(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "subprocess", Commands())
    for seed in (1, 2):
        place = Place("kl", seed, tmp_path / "objectives" / "kl" / f"seed_{seed}", False)
        finish(OBJECTIVES, place)
        (place.folder / "responses").mkdir()
        (place.folder / "responses" / "shard-00000.jsonl").write_text(str(seed))
    tv = Place("tv", 2, tmp_path / "objectives" / "tv" / "seed_2", False)
    runs.run_one(OBJECTIVES, next(arm for arm in OBJECTIVES.arms if arm.name == "tv"), tv, tmp_path)
    assert (tv.folder / "responses" / "shard-00000.jsonl").read_text() == "2"


def test_a_failed_run_is_named_after_the_others_ran(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(
        runs, "run_one", lambda study, arm, place, _: started.append(place) or int(place.arm == "ce")
    )
    with pytest.raises(runs.RunsFailed, match=r"objectives/ce/seed_1/study\.log"):
        runs.run_all(OBJECTIVES, tmp_path, smoke=True, parallel=1)
    assert len(started) == 2


def test_an_arm_with_a_missing_run_is_not_summed_up(tmp_path):
    def measure(place):
        return {"sampled/mean": place.seed / 10} | ({"greedy/mean": 1.0} if place.arm == "ce" else {})

    study = replace(OBJECTIVES, measure=measure)
    found = study.places(tmp_path, smoke=False)
    for place in (*found["ce"], *found["e2e_tv"], found["tv"][0]):
        finish(study, place)
    result = results.collect(study, found)
    assert set(result["summary"]) == {"ce", "e2e_tv"}
    half = 4.302652729749464 * 0.1 / 3**0.5
    assert result["summary"]["ce"]["sampled/mean"] == pytest.approx(
        {"mean": 0.2, "low": 0.2 - half, "high": 0.2 + half}
    )
    assert {"tv", "kl"} <= set(result["missing"])
    assert result["git"] == ["0123abc"]
    assert [each["mean"] for each in result["contrasts"] if each["name"] == "sampled/mean"] == [0.0]
    text = results.table(study, result)
    assert "| ce | 0.200 (-0.048 to 0.448) | 1.000 (1.000 to 1.000) |" in text
    assert "| e2e_tv | 0.200 (-0.048 to 0.448) | – |" in text
    assert "Not run to their end: tv, kl," in text
