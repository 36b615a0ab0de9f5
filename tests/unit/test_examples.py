"""Every committed job file loads and has no problem on the hardware it states; its scripts do what they say."""

import ast
import importlib.util
import shlex
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from openrlhf_mtp.cli.jobs import upstream_problems
from openrlhf_mtp.config.checks import check
from openrlhf_mtp.config.convert.conversion import convert
from openrlhf_mtp.config.job import load_job
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.machine.host import Host
from openrlhf_mtp.config.plan import make_plan, render
from openrlhf_mtp.config.roles import total_gpus
from openrlhf_mtp.upstream.openrlhf.flags import flag_specs

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


@dataclass(frozen=True)
class Hardware:
    """What a job file's header states: GPUs of one node, and of all nodes."""

    node_gpus: int
    all_gpus: int


HARDWARE = {
    "arithmetic": Hardware(0, 0),
    "smollm2_cpu": Hardware(0, 0),
    "studies": Hardware(0, 0),
    "replay": Hardware(0, 0),
    "jobs": Hardware(0, 0),  # the studies' arms
    "gsm8k_qwen2.5-0.5b_1gpu": Hardware(1, 1),
    "dapo_qwen3-8b_8gpu": Hardware(8, 8),
    "llama-3.1-8b_2nodes": Hardware(8, 16),
}
JOBS = sorted(EXAMPLES.rglob("*.yaml"))


def job_id(path: Path) -> str:
    """A job file by its folder, or by its name where a folder has several."""
    name = path.relative_to(EXAMPLES).with_suffix("").as_posix()
    return name.removesuffix("/job")


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def script(name: str) -> ModuleType:
    """A file of an example, imported by path as OpenRLHF does."""
    spec = importlib.util.spec_from_file_location(name.replace("/", "_"), EXAMPLES / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def situation(path: Path) -> JobContext:
    hardware = HARDWARE[path.parent.name]
    job = load_job(path, [], flag_specs())
    return JobContext(job, Host(hardware.node_gpus), hardware.all_gpus or None, look_at_files=False)


def test_every_example_is_listed_with_its_hardware():
    assert {path.parent.name for path in JOBS} == set(HARDWARE)


@pytest.mark.parametrize("path", JOBS, ids=job_id)
def test_a_job_file_has_no_problem_on_its_hardware(path):
    made = situation(path)
    assert [str(problem) for problem in check(made)] == []
    assert [str(problem) for problem in upstream_problems(made.job)] == []


@pytest.mark.parametrize("path", JOBS, ids=job_id)
def test_a_job_file_uses_all_the_gpus_it_states(path):
    stated = HARDWARE[path.parent.name].all_gpus
    assert not stated or total_gpus(situation(path)) == stated


@pytest.mark.parametrize("path", JOBS, ids=job_id)
def test_a_job_file_states_hardware_and_minutes(path):
    header = path.read_text(encoding="utf-8").partition("\nactor:")[0]
    assert "Hardware:" in header
    assert "inutes" in header


@pytest.mark.parametrize("path", JOBS, ids=job_id)
def test_the_reward_file_of_a_job_is_there(path):
    file = Path(load_job(path, [], flag_specs()).value("reward.remote_url"))
    names = [
        node.name
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    ]
    assert "reward_func" in names


def test_a_plan_says_what_it_could_not_see_without_the_model():
    text = render(make_plan(situation(EXAMPLES / "dapo_qwen3-8b_8gpu" / "job.yaml")), 60)
    assert "not available: skipped" in text
    assert max(map(len, text.splitlines())) <= 60


@pytest.mark.parametrize(
    ("response", "label", "expected"),
    [
        ("so \\boxed{72}.", "72", 1.0),
        ("first \\boxed{5}, no: \\boxed{1,234}", "1234", 1.0),
        ("it costs \\boxed{\\$18.00}", "18", 1.0),
        ("\\boxed{5\\%} of it", "5", 1.0),
        ("\\boxed{12 \\text{ apples}}", "12", 1.0),
        ("#### 12 apples", "12", 1.0),
        ("\\boxed{}", "12", 0.0),
        ("\\boxed{1/0}", "12", 0.0),
        ("\\boxed{Infinity}", "12", 0.0),
        ("72", "72", 0.0),
        ("", "72", 0.0),
    ],
)
def test_gsm8k_answers_are_compared_as_numbers(response, label, expected):
    result = script("gsm8k_qwen2.5-0.5b_1gpu/reward.py").reward_func(["Q?" + response], ["Q?"], [label])
    assert result["rewards"].tolist() == [expected]


def test_gsm8k_does_not_read_an_answer_in_the_prompt():
    prompt = "Say \\boxed{72}. "
    result = script("gsm8k_qwen2.5-0.5b_1gpu/reward.py").reward_func([prompt + "no"], [prompt], ["72"])
    assert result["rewards"].tolist() == [0.0]


def test_gsm8k_rows_keep_question_and_number():
    row = script("gsm8k_qwen2.5-0.5b_1gpu/prepare.py").row("How many?", "It is 1000.\n#### 1,000")
    assert row["label"] == "1000"
    assert row["input"].startswith("How many?\n")


@pytest.mark.parametrize(
    ("response", "label", "expected"),
    [
        ("Answer: 34", "34", 1.0),
        ("Answer: $1{,}024$.", "1024", 1.0),
        ("**Answer:** 7", "7", 1.0),
        ("Answer: **-7**", "-7", 1.0),
        ("Answer: 3\nAnswer: 4", "4", 1.0),
        ("\\boxed{4}", "4", 1.0),
        ("\\boxed{1{,}024}", "1024", 1.0),
        ("Answer: 34/2", "17", -1.0),
        ("nothing", "17", -1.0),
    ],
)
def test_dapo_answers_are_compared_as_integers(response, label, expected):
    result = script("dapo_qwen3-8b_8gpu/reward.py").reward_func(["Q?" + response], ["Q?"], [label])
    assert result["rewards"].tolist() == [expected]


def test_dapo_rows_keep_each_problem_once():
    source = [{"prompt": [{"content": "P"}], "reward_model": {"ground_truth": "3"}}] * 3
    assert script("dapo_qwen3-8b_8gpu/prepare.py").rows(source) == [{"input": "P", "label": "3"}]


@pytest.mark.parametrize("path", JOBS, ids=job_id)
def test_a_job_as_openrlhfs_command_line_converts_back_to_itself(path, tmp_path):
    job = load_job(path, [], flag_specs())
    command = shlex.join(["python3", "-m", "openrlhf.cli.train_ppo_ray", *job.to_argv()])
    conversion = convert(command, flag_specs())
    assert conversion.unplaced == []
    (tmp_path / "job.yaml").write_text(conversion.text("it", job="job.yaml"), encoding="utf-8")
    given = {name: value for name, value in job.flags.items() if value is not None and value is not False}
    assert load_job(tmp_path / "job.yaml", [], flag_specs()).flags == given
