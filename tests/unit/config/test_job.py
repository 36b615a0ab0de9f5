"""A job file means exactly what it says, and everything wrong in it is said at once."""

import argparse
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from openrlhf_mtp.config.errors import JobError, JobErrors
from openrlhf_mtp.config.job import Job, load_job
from openrlhf_mtp.config.reading.paths import is_local
from openrlhf_mtp.config.settings.section import parse_mtp
from tests.unit.config.conftest import SPECS


def test_nested_sections_become_the_dotted_flags_of_openrlhf(load):
    job = load("actor:\n  adam: {lr: 2e-6, betas: [0.9, 0.99]}\ntrain.seed: 7\n")
    assert job.to_argv() == ["--actor.adam.lr=2e-06", "--actor.adam.betas", "0.9", "0.99", "--train.seed=7"]


def test_a_switch_is_a_word_when_true_and_nothing_when_false(load):
    assert load("train: {colocate_all: true}").to_argv() == ["--train.colocate_all"]
    assert load("train: {colocate_all: false}").to_argv() == []


def test_a_switch_that_is_on_by_default_is_turned_off_by_its_opposite(load):
    assert load("actor: {muon: {nesterov: false}}").to_argv() == ["--actor.muon.no_nesterov"]


def test_a_switch_that_cannot_be_turned_off_says_so_instead_of_staying_on(load):
    with pytest.raises(JobErrors, match=r"train\.always: got false, expected true"):
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
    assert "mtp.regime: got 'occ', expected one of frozen, detach, joint_ce, joint_policy" in problems


@pytest.mark.parametrize("depths", [0, -1, 17])
def test_depths_outside_1_to_16_are_refused(load, depths):
    with pytest.raises(JobErrors, match=rf"mtp\.depths: got {depths}, expected"):
        load(f"train: {{seed: 1}}\nmtp: {{depths: {depths}}}")


def test_a_value_outside_the_choices_lists_them(load):
    with pytest.raises(JobErrors, match="got 'k9', expected one of k1, k2, k3"):
        load("algo: {kl: {estimator: k9}}")


def test_a_list_of_the_wrong_length_is_refused(load):
    with pytest.raises(JobErrors, match="expected a list of 2 numbers, for example"):
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


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("007", "007"),
        ("1e3", "1e3"),
        ("1.10", "1.10"),
        ("-0", "-0"),
        (".inf", ".inf"),
        ("'7'", "7"),
        ("off", "off"),
    ],
)
def test_text_stays_as_it_is_written(load, written, kept):
    assert load(f"data: {{input_template: {written}}}").value("data.input_template") == kept


def test_true_for_a_text_is_refused_as_a_slip(load):
    with pytest.raises(
        JobErrors, match=r"data\.input_template: got true, expected text; write 'true' in quotes"
    ):
        load("data: {input_template: true}")


@pytest.mark.parametrize("value", ["true", "k9", "3", "[k1]", "{a: 1}"])
def test_a_choice_always_lists_the_choices(load, value):
    with pytest.raises(JobErrors, match=r"got .*, expected one of k1, k2, k3 \(line 1\)"):
        load(f"algo: {{kl: {{estimator: {value}}}}}")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("actor.adam.betas: 0.2 0.27", "got '0.2 0.27', expected a list of 2 numbers, [0.2, 0.27]"),
        ("actor.adam.betas: 0.2,0.27", "got '0.2,0.27', expected a list of 2 numbers, [0.2, 0.27]"),
        ("actor.adam.betas: (0.2, 0.27)", "got '(0.2, 0.27)', expected a list of 2 numbers, [0.2, 0.27]"),
        ("actor.adam.betas: fast", "got 'fast', expected a list of 2 numbers, for example [0.9, 0.95]"),
        ("actor.adam.betas: 0.9", "got 0.9, expected a list of 2 numbers, for example [0.9, 0.95]"),
        ("actor.adam.betas: [0.9, true]", "got [0.9, true], expected a list of 2 numbers"),
        ("algo.threshold: 0.5 5", "got '0.5 5', expected a list of one or more numbers, [0.5, 5]"),
        ("algo.threshold: []", "got [], expected a list of one or more numbers"),
        ("algo.threshold: [-.inf, 1]", "got [-.inf, 1], expected a list without -.inf"),
        ("ds.lora.target_modules: [-x]", "got ['-x'], expected a list without '-x'"),
    ],
)
def test_a_list_as_people_write_it_is_answered_with_the_right_form(load, setting, expected):
    with pytest.raises(JobErrors) as refusal:
        load(setting)
    assert expected in refusal.value.problems[0]


@given(st.lists(st.floats(-1, 1, exclude_min=True), min_size=1))
def test_argparse_takes_every_number_of_a_list_for_a_number(numbers):
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--algo.threshold", type=float, nargs="+")
    words = SPECS["algo.threshold"].argv(tuple(numbers))
    assert vars(parser.parse_args(words))["algo.threshold"] == numbers


def test_a_switch_set_by_its_contrary_is_set(load):
    assert load("actor: {muon: {no_nesterov: true}}").to_argv() == ["--actor.muon.no_nesterov"]
    assert load("actor: {muon: {no_nesterov: true}}").value("actor.muon.nesterov") is False
    assert load("actor: {muon: {no_nesterov: false}}").to_argv() == ["--actor.muon.nesterov"]


def test_a_switch_and_its_contrary_together_are_refused(load):
    with pytest.raises(
        JobErrors, match=r"no_nesterov: actor\.muon\.nesterov is its contrary and is given too"
    ):
        load("actor: {muon: {no_nesterov: true, nesterov: true}}")


def test_the_environment_is_put_in_as_the_shell_did(load, monkeypatch):
    monkeypatch.setenv("BATCH", "8")
    monkeypatch.setenv("DATA", "/data")
    job = load("train: {seed: 1}\ndata:\n  prompt_dataset: ${DATA}/a.jsonl\nvllm.num_engines: ${BATCH}")
    assert job.value("data.prompt_dataset") == "/data/a.jsonl"
    assert job.value("vllm.num_engines") == 8


def test_a_dollar_in_a_template_is_a_dollar(load):
    text = "Find $x$ in ${} for $HOME: {}"
    job = load(f"data: {{input_template: '{text}'}}")
    assert job.value("data.input_template") == text
    assert job.notes == ()


def test_a_variable_without_braces_in_a_path_is_pointed_out(load):
    [(setting, words)] = load("actor.model_name_or_path: $HOME/model").notes
    assert setting == "actor.model_name_or_path"
    assert "$HOME is kept as it is; a variable is ${HOME}" in words


leaves = {
    "actor.adam.lr": st.floats(0, 1, exclude_min=True),
    "actor.adam.betas": st.tuples(st.floats(0, 0.9), st.floats(0, 0.9)),
    "actor.muon.nesterov": st.booleans(),
    "actor.model_name_or_path": st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1
    ),
    "algo.kl.estimator": st.sampled_from(["k1", "k2", "k3"]),
    "algo.threshold": st.lists(st.floats(0, 9), min_size=1, max_size=3).map(tuple),
    "data.input_template": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
    | st.sampled_from(["${HOME}", "$${HOME}", "$$", "007", "~", "true", "<<", "x-a", "- {}", "a: {}"]),
    "ds.lora.target_modules": st.lists(st.sampled_from(["q", "-1", "1e3", "null", "${HOME}"])).map(tuple),
    "train.colocate_all": st.booleans(),
    "train.seed": st.integers(0, 2**31 - 1),
}
sections = st.fixed_dictionaries(
    {},
    optional={
        "objective": st.sampled_from(["ce", "tv", {"kl": 0.3, "e2e_tv": 0.7}]),
        "head": st.text(st.sampled_from("ab$~{}é /.'\"\n")),
        "optim": st.fixed_dictionaries({}, optional={"lr": st.floats(1e-12, 1), "eps": st.floats(1e-300, 1)}),
        "depths": st.integers(1, 16),
        "coefficient": st.just({"bounds": (-1.0, 1e-9)}),
    },
)


@given(flags=st.fixed_dictionaries({}, optional=leaves), mtp=st.none() | sections)
def test_the_job_of_a_run_read_again_is_the_same_job(tmp_path_factory, flags, mtp):
    folder = tmp_path_factory.getbasetemp()
    try:
        settings = None if mtp is None else parse_mtp(mtp)
        job = Job(folder / "job.yaml", {}, settings, SPECS)
        job = job.with_flags(**{name.replace(".", "__"): value for name, value in flags.items()})
    except JobErrors:  # the home of nobody
        assume(False)
    (folder / "run.yaml").write_text(job.dump_yaml(), encoding="utf-8")
    assume(job.flags or mtp is not None)
    again = load_job(folder / "run.yaml", [], SPECS)
    assert (dict(again.flags), again.mtp) == (dict(job.flags), job.mtp)
    assert sorted(again.to_argv()) == sorted(job.to_argv())
