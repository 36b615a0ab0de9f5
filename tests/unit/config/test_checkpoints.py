"""The checkpoint that a run resumes from: the newest one that is whole, and what is said about the others."""

import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openrlhf_mtp.config import checkpoints
from openrlhf_mtp.config.checkpoints import ACTOR, CRITIC, HEAD, MANIFEST, Checkpoint, latest, resume_point
from openrlhf_mtp.config.checks import check
from openrlhf_mtp.config.job import load_job
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.machine.host import Host
from tests.unit.config.test_checks import SPECS


def write_file(path: Path) -> None:
    """As torch writes: a zip archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data/0", bytes(range(256)) * 8)


def save(
    folder: Path, step: int, *, ranks: int = 1, sealed: bool = True, roles: tuple[str, ...] = (ACTOR, HEAD)
):
    """A checkpoint as DeepSpeed leaves it."""
    made = Checkpoint(folder, f"global_step{step}")
    for role in roles:
        write_file(folder / role / made.tag / "mp_rank_00_model_states.pt")
        for rank in range(ranks):
            write_file(folder / role / made.tag / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
        (folder / role / "latest").write_text(made.tag)
    if sealed:
        made.seal()
    return made


def cut(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


@pytest.mark.parametrize("sealed", [True, False])
def test_the_latest_checkpoint_is_taken_when_it_is_whole(tmp_path, sealed):
    save(tmp_path, 1)
    newest = save(tmp_path, 12, sealed=sealed)
    assert resume_point(tmp_path).checkpoint == newest
    assert resume_point(tmp_path).damaged == ()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(sealed=st.booleans(), which=st.integers(0, 3), share=st.floats(0.0, 0.999))
def test_a_file_cut_anywhere_is_named_and_the_checkpoint_before_is_taken(tmp_path, sealed, which, share):
    before, newest = save(tmp_path, 1), save(tmp_path, 2, sealed=sealed)
    (tmp_path / ACTOR / newest.tag / MANIFEST).unlink(missing_ok=True)
    if sealed:
        newest.seal()
    file = list(newest.files())[which]
    cut(file, int(share * file.stat().st_size))
    point = resume_point(tmp_path)
    assert point.checkpoint == before
    assert len(point.damaged) == 1
    assert str(file) in point.damaged[0]


def test_a_missing_file_is_noticed_by_the_list_and_without_it_by_the_ranks(tmp_path):
    for sealed in (True, False):
        folder = tmp_path / str(sealed)
        save(folder, 1, ranks=2)
        newest = save(folder, 2, ranks=2, sealed=sealed)
        next(newest.files(HEAD)).unlink()
        assert resume_point(folder).checkpoint == Checkpoint(folder, "global_step1")


def test_a_run_cut_between_two_saves_resumes_where_policy_and_critic_agree(tmp_path):
    save(tmp_path, 1, roles=(ACTOR, HEAD, CRITIC), sealed=False)
    save(tmp_path, 2, roles=(ACTOR, HEAD), sealed=False)
    point = resume_point(tmp_path)
    assert point.checkpoint is not None
    assert point.checkpoint.tag == "global_step1"
    checkpoints.resume_from(point.checkpoint)
    assert {(tmp_path / role / "latest").read_text() for role in (ACTOR, HEAD, CRITIC)} == {"global_step1"}
    assert latest(tmp_path) == point.checkpoint


def test_a_list_that_was_cut_off_itself_proves_nothing(tmp_path):
    newest = save(tmp_path, 1)
    cut(tmp_path / ACTOR / newest.tag / MANIFEST, 20)
    assert resume_point(tmp_path).checkpoint == newest


def test_no_whole_checkpoint_is_none_with_what_is_wrong(tmp_path):
    for step in (1, 2):
        cut(next(save(tmp_path, step).files()), 10)
    point = resume_point(tmp_path)
    assert point.checkpoint is None
    assert len(point.damaged) == 2


def test_a_run_without_checkpoints_has_nothing_to_say(tmp_path):
    assert resume_point(tmp_path) == checkpoints.ResumePoint(None, ())
    assert resume_point(tmp_path / "no" / "such") == checkpoints.ResumePoint(None, ())


# what check says of them ----------------------------------------------------------------------------------


@pytest.fixture
def resumed(folder):
    """Problems of a job that resumes the run in `folder / "run"`."""
    out = folder / "run"

    def find(*overrides: str, resumes: bool = True) -> list[str]:
        job = load_job(folder / "job.yaml", overrides, SPECS)
        situation = JobContext(job, Host(0), out=out, may_reuse_out=True, resumes=resumes)
        return [
            f"{c.level}: {c}" for c in check(situation) if "--resume" in str(c) or "start a new run" in str(c)
        ]

    out.mkdir()
    (out / "run.yaml").write_text(load_job(folder / "job.yaml", (), SPECS).dump_yaml())
    return find


def test_a_whole_checkpoint_of_the_same_job_is_worth_no_word(folder, resumed):
    ranks = load_job(folder / "job.yaml", (), SPECS).value("actor.num_gpus_per_node")
    save(folder / "run" / "checkpoints", 1, ranks=int(ranks))
    assert resumed() == []


def test_a_damaged_checkpoint_is_named_with_the_one_the_run_resumes_from(folder, resumed):
    checkpoint_folder = folder / "run" / "checkpoints"
    ranks = int(load_job(folder / "job.yaml", (), SPECS).value("actor.num_gpus_per_node"))
    save(checkpoint_folder, 1, ranks=ranks)
    damaged = next(save(checkpoint_folder, 2, ranks=ranks).files())
    cut(damaged, 30)
    (warned,) = resumed()
    assert warned.startswith("warning: --resume")
    assert str(damaged) in warned
    assert "has 30 bytes, expected" in warned
    assert "the run continues from the newest whole checkpoint, global_step1" in warned
    cut(next(Checkpoint(checkpoint_folder, "global_step1").files()), 30)
    (refused,) = resumed()
    assert refused.startswith("error: --resume")
    assert resumed(resumes=False) == []


def test_another_number_of_ranks_is_refused_with_both_numbers(folder, resumed):
    save(folder / "run" / "checkpoints", 3, ranks=3)
    (refused,) = resumed("actor.num_gpus_per_node=2", "train.micro_batch_size=2")
    assert "3 rank(s) of the actor saved global_step3, and this job has 2" in refused
    assert "actor.num_nodes * actor.num_gpus_per_node = 3" in refused


def test_weights_split_over_ranks_are_not_loaded_as_whole_ones(folder, resumed):
    ranks = int(load_job(folder / "job.yaml", (), SPECS).value("actor.num_gpus_per_node"))
    save(folder / "run" / "checkpoints", 1, ranks=ranks)
    (refused,) = resumed("ds.zero_stage=3")
    assert "ds.zero_stage: got 3, expected below 3, as global_step1 was saved" in refused


def test_a_position_is_not_taken_over_into_other_prompts(folder, resumed):
    ranks = int(load_job(folder / "job.yaml", (), SPECS).value("actor.num_gpus_per_node"))
    (folder / "others.jsonl").write_text('{"input": "1", "label": "2"}\n')
    assert resumed("data.prompt_dataset=./others.jsonl") == [], "there is no position yet"
    save(folder / "run" / "checkpoints", 1, ranks=ranks)
    (refused,) = resumed("data.prompt_dataset=./others.jsonl")
    assert "others.jsonl, expected" in refused
    assert "prompts.jsonl, as the run in" in refused
