"""Groups: seeds of one job make one curve, and anything that is more than a seed keeps runs apart."""

import math

import numpy as np
import pytest
import yaml

from openrlhf_mtp.analysis.groups import GroupBy, group_runs, together
from openrlhf_mtp.runlog.anchor_records import write_records
from openrlhf_mtp.runlog.row_writer import RowWriter
from openrlhf_mtp.runlog.run import read_run
from openrlhf_mtp.runlog.run_folder import write_config

JOB = {"train": {"seed": 1}, "actor": {"adam": {"lr": 1e-4}}, "mtp": {"objective": "ce"}}


@pytest.fixture
def make(tmp_path):
    def make(name, *rows, seed=1, **mtp):
        folder = tmp_path / name
        config = {
            **JOB,
            "train": {"seed": seed},
            "mtp": {**JOB["mtp"], **mtp},
            "ckpt": {"path": str(folder / "checkpoints"), "output_dir": str(folder / "final")},
        }
        with RowWriter(folder) as writer:
            write_config(folder, yaml.safe_dump(config))
            for step, reward in enumerate(rows or (0.5,), start=1):
                writer.append({"step": step, "policy/reward": reward})
        return read_run(folder)

    return make


def test_runs_that_differ_in_the_seed_alone_are_one_group(make):
    runs = [make("ce-seed1", seed=1), make("ce-seed2", seed=2), make("tv-seed1", seed=1, objective="tv")]
    groups = group_runs(runs)
    assert [(group.name, group.seeds) for group in groups] == [("ce", ["1", "2"]), ("tv-seed1", ["1"])]
    assert [group.label for group in groups] == ["ce (2 runs)", "tv-seed1"]


def test_the_head_of_the_same_seeds_earlier_stage_does_not_keep_runs_apart(make):
    runs = [make(f"x/seed{n}/rl", seed=n, head=f"/data/heads/seed_{n}/head") for n in (1, 2)]
    assert len(group_runs(runs)) == 1
    other = [make("y/1", seed=1, head="/data/heads/ce/head"), make("y/2", seed=2, head="/data/heads/tv/head")]
    assert len(group_runs(other)) == 2


def test_a_file_inside_the_runs_own_folder_does_not_keep_runs_apart(make, tmp_path):
    runs = [make(name, seed=n, log=str(tmp_path / name / "log")) for n, name in enumerate(("u", "v"))]
    assert len(group_runs(runs)) == 1


def test_runs_without_a_job_stand_alone(tmp_path):
    for name in ("a", "b"):
        RowWriter(tmp_path / name).close()
    assert len(group_runs([read_run(tmp_path / name) for name in ("a", "b")])) == 2


def test_folders_or_nothing_can_make_the_groups_instead(make):
    runs = [make("ce/1", seed=1), make("ce/2", seed=2, objective="tv"), make("tv/1", seed=1, objective="tv")]
    assert [group.name for group in group_runs(runs, GroupBy.FOLDER)] == ["ce", "1"]
    assert [group.name for group in group_runs(runs, GroupBy.NONE)] == ["ce/1", "2", "tv/1"]


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (("ce-seed1", "ce-seed2"), "ce"),
        (("ce-11", "ce-12"), "ce"),
        (("k3-1", "k3-2"), "k3"),
        (("study/seed1", "study/seed2"), "study"),
        (("study/a", "study/b"), "study"),
        (("one/e2e_tv", "two/e2e_tv"), "e2e_tv"),
    ],
)
def test_a_group_is_called_what_its_folders_have_in_common(make, names, name):
    (group,) = group_runs([make(folder, seed=seed) for seed, folder in enumerate(names)])
    assert group.name == name


def test_groups_of_one_name_get_their_folders_name_in_front(make):
    runs = [make("x/rl", seed=1), make("y/rl", seed=1, objective="tv")]
    assert [group.name for group in group_runs(runs)] == ["x/rl", "y/rl"]


def test_a_band_is_the_mean_and_the_extremes_of_its_runs(make):
    (group,) = group_runs([make("s1", 0.1, 0.4, seed=1), make("s2", 0.3, 0.8, 0.9, seed=2)])
    band = group.band("policy/reward")
    assert band.steps == [1, 2, 3]
    assert band.mean == pytest.approx([0.2, 0.6, 0.9])
    assert band.low == pytest.approx([0.1, 0.4, 0.9])
    assert band.high == pytest.approx([0.3, 0.8, 0.9])
    assert group.mean_rows()[1] == pytest.approx({"step": 2, "policy/reward": 0.6})


def test_a_broken_number_is_not_averaged_away(make):
    (group,) = group_runs([make("s1", 0.1, math.nan, seed=1), make("s2", 0.3, 0.8, seed=2)])
    assert math.isnan(group.band("policy/reward").mean[1])


def test_records_of_the_first_half_are_left_out(make):
    run = make("a")
    for step in (1, 20, 40, 60):
        values = np.full((step, 1), 0.5)
        write_records(run.path, step, values, values, values)
    (group,) = group_runs([read_run(run.path)])
    assert [len(records.alpha) for records in group.recorded()] == [40, 60]
    assert group.recorded(held_out=True) == []


def test_series_meet_on_the_steps_they_share():
    assert together([([1, 2, 3], [5, 6, 7]), ([2, 3, 4], [8, 9, 0])]).tolist() == [[2, 3], [6, 7], [8, 9]]
