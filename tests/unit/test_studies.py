"""The studies: the task is what it says, reward and generator agree, the harness skips and sums up rightly."""

import json
import random
import statistics
import sys
import threading
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

STUDIES = Path(__file__).parents[2] / "examples" / "studies"
sys.path.insert(0, str(STUDIES))

from drift.study import STUDY as DRIFT  # noqa: E402
from entropy.study import STUDY as ENTROPY  # noqa: E402
from entropy.study import slopes_of_length  # noqa: E402
from harness import acceptance, jobs, logged, results, runs, temperatures  # noqa: E402
from harness import main as command_line  # noqa: E402
from harness.assets import make_once  # noqa: E402
from harness.contrasts import compare_all, contrast_lines, verdict  # noqa: E402
from harness.curves import curves  # noqa: E402
from harness.statistics import compared, holm, interval, paired  # noqa: E402
from harness.study import Arm, Column, Contrast, Place  # noqa: E402
from limited_heads.study import STUDY as LIMITED_HEADS  # noqa: E402
from limited_heads_real.study import STUDY as LIMITED_HEADS_REAL  # noqa: E402
from objectives.study import STUDY as OBJECTIVES  # noqa: E402
from occ_rewards.study import STUDY as OCC_REWARDS  # noqa: E402
from regimes.study import STUDY as REGIMES  # noqa: E402
from task.prompts import write_data  # noqa: E402
from task.reward import grade, response_of, reward_func  # noqa: E402
from task.tokens import build, move_tokens  # noqa: E402
from task.walk import RING, Dial, Problem, branching_entropy, choices, problems, walk  # noqa: E402

from tests.patience import seconds  # noqa: E402

dials = st.builds(
    Dial,
    branches=st.integers(4, 16),
    taste=st.floats(0.0, 2.0),
    steps=st.integers(16, 30),
    modulus=st.sampled_from([1, 2, 5, 10, 20, 50, 100]),
)
places = st.builds(Problem, st.integers(0, RING - 1), st.integers(0, RING - 1))
ALL = (OBJECTIVES, ENTROPY, DRIFT, REGIMES, LIMITED_HEADS, LIMITED_HEADS_REAL, OCC_REWARDS)


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


def test_studies_that_need_a_folder_at_once_make_it_once(tmp_path):
    """Two studies in one folder of runs: the second waits for the first's policy instead of removing its part."""
    made, began = [], threading.Event()

    def make(folder):
        made.append(folder)
        folder.mkdir()
        (folder / "half").touch()
        began.set()
        time.sleep(0.2)
        (folder / "whole").touch()

    threads = [
        threading.Thread(target=make_once, args=(tmp_path / "runs" / "policy", make)) for _ in range(3)
    ]
    threads[0].start()
    assert began.wait(seconds(10))
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert sorted(path.name for path in (tmp_path / "runs" / "policy").iterdir()) == ["half", "whole"]


def test_what_was_not_finished_is_made_anew(tmp_path):
    def stopped(folder):
        folder.mkdir()
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_once(tmp_path / "policy", stopped)
    assert not (tmp_path / "policy").exists()
    make_once(tmp_path / "policy", lambda folder: folder.mkdir())
    assert list((tmp_path / "policy").iterdir()) == []


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


@pytest.mark.parametrize(("ratio", "least"), [(False, 0.4), (True, 0.05)])
def test_the_tests_of_pairs_are_scipys(ratio, least):
    from scipy import stats

    arm, against = [3.1, 2.9, 3.4, 3.3, 3.0], [3.0, 2.9, 3.1, 3.2, 3.1]
    pairs = [a / b - 1.0 if ratio else a - b for a, b in zip(arm, against, strict=True)]
    found = compared(arm, against, ratio=ratio, least=least)
    assert found.p == pytest.approx(stats.ttest_1samp(pairs, 0.0).pvalue)
    one_sided = [
        stats.ttest_1samp(pairs, -least, alternative="greater").pvalue,
        stats.ttest_1samp(pairs, least, alternative="less").pvalue,
    ]
    assert found.p_equivalent == pytest.approx(max(one_sided))
    assert (found.mean, found.low, found.high) == tuple(vars(paired(arm, against, ratio=ratio)).values())


def test_the_detectable_effect_is_seen_in_four_of_five_repeats():
    seeds = [[0.1, 0.4, -0.2, 0.3, 0.5], [0.0] * 5]
    spread = statistics.stdev(seeds[0])
    effect = compared(*seeds).detectable
    rng, seen, repeats = random.Random(1), 0, 4000
    for _ in range(repeats):
        drawn = [rng.gauss(effect, spread) for _ in range(5)]
        seen += interval(drawn).low > 0.0
    assert seen / repeats == pytest.approx(0.8, abs=0.03)


def test_pairs_without_spread_or_without_a_second_seed_have_the_tests_they_can_have():
    alone = compared([1.0], [0.0], least=1.0)
    assert (alone.mean, alone.low, alone.p, alone.detectable, alone.p_equivalent) == (
        1.0,
        None,
        None,
        None,
        None,
    )
    same = compared([1.0, 2.0], [1.0, 2.0], least=0.1)
    assert (same.p, same.p_equivalent, same.detectable) == (1.0, 0.0, 0.0)
    assert compared([1.0, 2.0], [0.0, 1.0]).p == 0.0


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_lies_between_no_adjustment_and_bonferronis(p_values):
    adjusted = holm(p_values)
    for p, new in zip(p_values, adjusted, strict=True):
        assert p <= new <= min(1.0, len(p_values) * p) or new == pytest.approx(p)
    assert sorted(adjusted) == [adjusted[at] for at in sorted(range(len(p_values)), key=p_values.__getitem__)]


def test_a_familys_p_values_are_adjusted_and_those_of_other_roles_are_not():
    values = {"a": [{"x": 1.0}, {"x": 1.2}, {"x": 1.4}], "b": [{"x": 0.0}, {"x": 0.1}, {"x": 0.5}]}
    plain, other, ratio, aa = (
        Contrast("a", "b", "x", role="primary", expected="+", least=2.0),
        Contrast("a", "b", "x"),
        Contrast("b", "a", "x", ratio=True),
        Contrast("a", "a", "x", role="aa", least=0.1),
    )
    found = compare_all([plain, other, ratio, aa, Contrast("a", "missing", "x")], values)
    assert len(found) == 4
    assert found[0]["p_holm"] == found[0]["p"]
    assert found[1]["p_holm"] == min(1.0, 2 * found[1]["p"])
    assert found[3]["p_holm"] == found[3]["p"] == 1.0
    assert found[0]["verdict"] == "as expected, but within ±2"
    assert found[3]["verdict"] == "no difference within ±0.1"
    lines = contrast_lines(found, {"x": Column("x", "length", 2)})
    assert lines[2].startswith("| **primary** length: a − b (expected +) | +1.00 (")
    assert lines[4].startswith("| length: b / a | 0.15 (")
    assert lines[5].startswith("| A/A length: a − a | +0.00 (")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "as expected"),
        ({"expected": None}, "differs"),
        ({"expected": "-"}, "opposite to the expected sign"),
        ({"mean": 0.9, "ratio": True}, "opposite to the expected sign"),
        ({"p_holm": 0.05}, "undecided"),
        ({"p_holm": 0.05, "p_equivalent": 0.04}, "equivalent, within ±0.1"),
        ({"p_equivalent": 0.04}, "as expected, but within ±0.1"),
        ({"role": "aa"}, "differs: look for a cause"),
        ({"role": "aa", "p_holm": 0.3}, "no difference"),
        ({"p_holm": None}, "one seed: no test"),
    ],
)
def test_the_verdict_of_a_contrast(change, expected):
    each = {
        "mean": 0.5,
        "ratio": False,
        "role": "primary",
        "expected": "+",
        "least": 0.1,
        "p_equivalent": 0.5,
    }
    assert verdict({**each, "p_holm": 0.01, **change}) == expected


def test_curves_stay_small_and_keep_first_values_and_gaps():
    rows = [{"step": step, "a/b": 1.0 / 3.0, **({"c": 2.0} if step else {})} for step in range(100)]
    whole = curves(rows).splitlines()
    assert whole[:3] == ["step,a/b,c", "0,0.3333,", "1,0.3333,2"]
    assert len(whole) == 101
    thinned = curves(rows, largest=600)
    assert len(thinned) <= 600
    assert [line.split(",")[0] for line in thinned.splitlines()[1:4]] == ["0", "4", "8"]
    assert curves([{"step": 1, "a": float("nan")}]) == "step,a\n1,nan\n"


def test_an_aa_arm_runs_with_another_seed_from_the_same_start(tmp_path):
    place = Place("detach", 2, tmp_path / "regimes" / "detach" / "seed_2", False)
    same, again = REGIMES.arms[0], replace(REGIMES.arms[0], seed_offset=100)
    plain, offset = (runs.command_line(REGIMES, arm, place, tmp_path) for arm in (same, again))
    assert [(a, b) for a, b in zip(plain, offset, strict=True) if a != b] == [
        ("train.seed=2", "train.seed=102")
    ]
    assert runs.fingerprint(REGIMES, same, place) != runs.fingerprint(REGIMES, again, place)


def test_runs_of_several_commits_are_named_before_more_are_spent(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runs, "run_one", lambda *_: 0)
    monkeypatch.setattr(runs, "git_revision", lambda: "f" * 40)
    study = replace(OBJECTIVES, seeds=[1], arms=OBJECTIVES.arms[:2])
    finish(study, study.places(tmp_path, smoke=False)["ce"][0])
    runs.run_all(study, tmp_path, smoke=False, parallel=1)
    assert "warning: runs of several commits would be compared: 0123abc, fffffff" in capsys.readouterr().err


@pytest.mark.parametrize("study", ALL, ids=lambda study: study.name)
def test_a_study_has_one_primary_contrast_with_its_sign_and_least_effect(study):
    primary = [each for each in study.contrasts if each.role == "primary"]
    assert len(primary) == 1
    assert primary[0].least is not None
    assert primary[0].expected is not None


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
    monkeypatch.setattr(logged, "subprocess", commands)
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
    monkeypatch.setattr(logged, "subprocess", commands)
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


def measured_by(given):
    """An `Acceptance` of responses whose drafts are accepted as `given` says, a [anchors, 2] table a response."""
    rows = [np.asarray(each, dtype=np.float32) for each in given]
    every = np.concatenate(rows)
    place = np.concatenate([np.arange(len(row)) for row in rows])
    response = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    return acceptance.Acceptance(every, every, every, every, every, place * 0, response, place)


def test_a_walk_visits_the_anchors_that_an_engine_drafts_from():
    none, both, cut = [0.0, 0.0], [1.0, 1.0], [1.0, np.nan]
    # from place 0 a rejected draft leads to place 1, whose two accepted ones lead to place 4: 3 and 2 are not visited
    walk = acceptance.walked(measured_by([[none, both, none, none, cut]]), "sampled")
    assert walk == pytest.approx({"walked": 0.5, "walked_length": 2.0, "reach_1": 2 / 3, "reach_2": 1 / 3})
    twice = acceptance.walked(measured_by([[none, both, none, none, cut]] * 2), "greedy")
    assert twice == pytest.approx(walk), "a second response is walked from its own beginning"


def test_the_rate_over_all_anchors_is_the_mean_of_their_products():
    values = acceptance.summary(measured_by([[[0.5, 0.5], [1.0, 0.0], [0.4, np.nan]]]))
    assert values["sampled/rate"] == pytest.approx((0.75 + 1.0) / 2 / 2)
    assert values["sampled/length"] == pytest.approx(1.0 + 2.0 * values["sampled/rate"])
    assert values["greedy/depth_1"] == pytest.approx(1.9 / 3)


def test_a_slope_in_tokens_of_length_is_that_of_the_lengths_and_the_overlaps_chained():
    rng = np.random.default_rng(0)
    entropy = rng.uniform(0.0, 1.0, (400, 1)) * np.ones((1, 2))
    overlap = (0.9 - 0.2 * entropy).astype(np.float32)
    measured = replace(
        measured_by([overlap]),
        entropy=entropy.astype(np.float32),
        response=np.repeat(np.arange(20), 20),
    )
    found = slopes_of_length(measured, "sampled")
    exact = np.polyfit(entropy[:, 0], 1.0 + overlap[:, 0] + overlap[:, 0] ** 2, 1)
    assert found["slope"] == pytest.approx(exact[0], rel=1e-4)
    assert found["chained"] == pytest.approx(-0.2 * (1.0 + 2.0 * overlap.mean()), rel=1e-4)
    assert found["slope"] == pytest.approx(found["chained"], rel=0.01), (
        "nearly straight, and all depths move alike"
    )


def test_slopes_by_temperature_are_those_of_the_kept_points(tmp_path):
    points = [
        {"entropy": h, "sampled/walked_length": 3.9 - 0.5 * h, "greedy/walked_length": 3.5 - 1.5 * h}
        for h in (0.3, 0.5, 0.8)
    ]
    (tmp_path / temperatures.KEPT).write_text(json.dumps(points))
    found = temperatures.slopes(Place("kl", 1, tmp_path, False))
    assert found == pytest.approx(
        {"entropy_low": 0.3, "entropy_high": 0.8, "sampled/slope": -0.5, "greedy/slope": -1.5}
    )


def test_a_sampled_response_ends_with_the_first_token_that_ends_it():
    assert temperatures.upto_end([5, 6, 1, 0, 0], {1}) == (5, 6, 1)
    assert temperatures.upto_end([5, 6], {1}) == (5, 6)


def test_the_arms_of_a_seed_share_its_responses(tmp_path, monkeypatch):
    monkeypatch.setattr(logged, "subprocess", Commands())
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
    assert result["commits"]["ce"] == ["0123abc"] * 3
    assert "several commits" not in text
    (found["ce"][1].folder / "command.txt").write_text("openrlhf-mtp pretrain\ngit 4567def\n")
    mixed = results.table(study, results.collect(study, found))
    assert "**The runs are of several commits:** 0123abc (ce, e2e_tv); 4567def (ce)." in mixed
