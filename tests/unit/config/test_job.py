"""A job file means exactly what it says, and everything wrong in it is said at once."""

from pathlib import Path

import pytest

from openrlhf_mtp.config.errors import JobError, JobErrors
from openrlhf_mtp.config.job import load_job
from openrlhf_mtp.config.paths import is_local


def test_nested_sections_become_the_dotted_flags_of_openrlhf(load):
    job = load("actor:\n  adam: {lr: 2e-6, betas: [0.9, 0.99]}\ntrain.seed: 7\n")
    assert job.to_argv() == ["--actor.adam.lr=2e-06", "--actor.adam.betas", "0.9", "0.99", "--train.seed=7"]


def test_a_switch_is_a_word_when_true_and_nothing_when_false(load):
    assert load("train: {colocate_all: true}").to_argv() == ["--train.colocate_all"]
    assert load("train: {colocate_all: false}").to_argv() == []


def test_a_switch_that_is_on_by_default_is_turned_off_by_its_opposite(load):
    assert load("actor: {muon: {nesterov: false}}").to_argv() == ["--actor.muon.no_nesterov"]


def test_a_switch_that_cannot_be_turned_off_says_so_instead_of_staying_on(load):
    with pytest.raises(JobErrors, match=r"train\.always: got False, expected true"):
        load("train: {always: false}")


def test_null_leaves_the_default_of_openrlhf(load):
    job = load("vllm: {num_engines: null}\ntrain: {seed: 1}")
    assert job.to_argv() == ["--train.seed=1"]
    assert job.value("vllm.num_engines") is None
    assert job.value("actor.adam.lr") == 1e-6


def test_an_empty_section_is_no_flag(load):
    assert load("actor:\ntrain: {seed: 1}").to_argv() == ["--train.seed=1"]


def test_overrides_win_over_the_file_in_both_parts(load):
    job = load(
        "train: {seed: 1}\nmtp: {depths: 2, optim: {lr: 1e-3}}",
        "train.seed=5",
        "mtp.depths=4",
        "mtp.optim.eps=1e-6",
    )
    assert job.value("train.seed") == 5
    assert (job.mtp.depths, job.mtp.optim.lr, job.mtp.optim.eps) == (4, 1e-3, 1e-6)


def test_an_override_can_add_or_remove_the_whole_mtp_section(load):
    assert load("train: {seed: 1}", "mtp.depths=2").mtp.depths == 2
    assert load("train: {seed: 1}\nmtp: {depths: 2}", "mtp=null").mtp is None


def test_a_template_with_a_colon_stays_text_on_the_command_line(load):
    assert load("train: {seed: 1}", "data.input_template=Q: {} A:").value("data.input_template") == "Q: {} A:"


def test_an_override_without_a_value_is_refused(load):
    with pytest.raises(JobError, match="expected key=value"):
        load("train: {seed: 1}", "train.seed")


def test_every_problem_is_reported_at_once_with_the_nearest_name(load):
    with pytest.raises(JobErrors) as caught:
        load("actor: {adam: {ir: 1}}\ntrain: {seed: 1.5}\nmtp: {depth: 3, regime: occ, optim: {max_norn: 1}}")
    problems = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 5
    assert "actor.adam.ir: unknown key; did you mean actor.adam.lr?" in problems
    assert "train.seed: got 1.5, expected a whole number" in problems
    assert "mtp.depth: unknown key; did you mean mtp.depths?" in problems
    assert "mtp.optim.max_norn: unknown key; did you mean mtp.optim.max_norm?" in problems
    assert "mtp.regime: got 'occ', expected 'frozen', 'detach', 'joint_ce' or 'joint_policy'" in problems


@pytest.mark.parametrize("depths", [0, -1, 17])
def test_depths_outside_1_to_16_are_refused(load, depths):
    with pytest.raises(JobErrors, match=rf"mtp\.depths: got {depths}, expected"):
        load(f"train: {{seed: 1}}\nmtp: {{depths: {depths}}}")


def test_a_value_outside_the_choices_lists_them(load):
    with pytest.raises(JobErrors, match="got 'k9', expected one of k1, k2, k3"):
        load("algo: {kl: {estimator: k9}}")


def test_a_list_of_the_wrong_length_is_refused(load):
    with pytest.raises(JobErrors, match="expected a list of 2 values"):
        load("actor: {adam: {betas: [0.9]}}")


def test_a_single_value_is_a_list_of_one_where_any_number_is_allowed(load):
    assert load("algo: {threshold: 5}").to_argv() == ["--algo.threshold", "5.0"]


def test_a_key_given_twice_is_refused_with_both_lines(load):
    with pytest.raises(JobError, match=r"'seed' is given twice, in lines 2 and 3"):
        load("train:\n  seed: 1\n  seed: 2\n")


def test_a_key_given_nested_and_dotted_is_refused(load):
    with pytest.raises(JobError, match=r"train\.seed is given twice"):
        load("train: {seed: 1}\ntrain.seed: 2\n")


def test_text_that_is_not_yaml_names_the_file(load):
    with pytest.raises(JobError, match=r"job\.yaml is not valid YAML"):
        load("train: [1")


def test_a_missing_job_file_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(JobError, match="is not a file"):
        load_job(tmp_path / "none.yaml", [], {})


def test_dumping_and_loading_gives_the_same_job(load):
    job = load(
        "actor: {adam: {lr: 1e-6, betas: [0.9, 0.99]}}\nalgo: {threshold: .inf}\nmtp: {depths: 2}",
        "mtp.optim.lr=3e-5",
    )
    again = load(job.dump_yaml())
    assert (again.flags, again.mtp) == (job.flags, job.mtp)


def test_text_that_looks_like_a_number_survives_dumping(load):
    job = load("data: {input_template: '1e-6'}")
    assert load(job.dump_yaml()).value("data.input_template") == "1e-6"


def test_paths_start_at_the_current_directory_and_become_absolute(load, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    job = load(
        "data: {prompt_dataset: 'a.jsonl, org/name'}\nactor: {model_name_or_path: ./m}\nmtp: {head: heads/x}"
    )
    assert job.value("data.prompt_dataset") == f"{tmp_path}/a.jsonl,org/name"
    assert job.value("actor.model_name_or_path") == f"{tmp_path}/m"
    assert Path(job.mtp.head) == tmp_path / "heads/x"


def test_setting_flags_by_code_is_checked_like_the_file(load):
    job = load("train: {seed: 1}")
    assert job.with_flags(vllm__num_engines=2).value("vllm.num_engines") == 2
    with pytest.raises(JobErrors, match="unknown key"):
        job.with_flags(vllm__engines=2)


@pytest.mark.parametrize(
    ("name", "local"),
    [
        ("Qwen/Qwen3-8B", False),
        ("gpt2", False),
        ("http://server/score", False),
        ("runs/quickstart/equipped", True),
        ("./models", True),
        ("/models/x", True),
        ("data.jsonl", True),
        ("data.jsonl@split", True),
    ],
)
def test_a_hub_name_and_a_path_are_told_apart(name, local):
    assert is_local(name) is local
