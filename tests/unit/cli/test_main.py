"""The command line: help with an example everywhere, errors as one block, nothing heavy before it is needed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from openrlhf_mtp.cli import main as cli
from openrlhf_mtp.cli.failures import RunFailed
from openrlhf_mtp.cli.outcome import RUN_FAILED
from openrlhf_mtp.config.errors import USER_ERROR

GROUPS = ["", "bench"]
COMMANDS = ["quickstart", "equip", "export", "pretrain", "train", "check", "report", "doctor", "convert"]
COMMANDS += [
    "bench rollout",
    "bench loss",
    "bench head",
    "bench step",
    "bench sync",
    "bench run",
    "bench all",
]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run the console script's function; returns exit code, standard output, and standard error as one line."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["openrlhf-mtp", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, " ".join(captured.err.split())

    return call


def test_the_list_here_has_every_command():
    program = typer.main.get_command(cli.app)
    groups = [group for group in GROUPS if group]
    inner = {f"{group} {name}" for group in groups for name in program.commands[group].commands}
    assert {*program.commands} - {*groups} | inner == set(COMMANDS)


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_that_fits_a_narrow_terminal(command, width):
    result = CliRunner().invoke(cli.app, [*command.split(), "-h"], terminal_width=width)
    assert result.exit_code == 0
    assert f"Example:\n    openrlhf-mtp {command}" in result.output
    assert max(map(len, result.output.splitlines())) <= width
    assert not re.search(r"<(?!=)|>(?!=)|[{}]", result.output), "types of Python are no help"


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("group", GROUPS)
def test_no_summary_of_a_command_is_cut(group, width):
    result = CliRunner().invoke(cli.app, [*group.split(), "--help"], terminal_width=width)
    listed = result.output.partition("Commands:")[2]
    assert listed
    assert "..." not in listed
    assert max(map(len, result.output.splitlines())) <= width


def test_help_lists_every_command():
    output = CliRunner().invoke(cli.app, ["--help"]).output
    assert all(command.split()[0] in output for command in COMMANDS)


def test_a_mistake_in_a_job_is_one_block_and_no_traceback(run, tmp_path):
    (tmp_path / "job.yaml").write_text("mtp: {depth: 3}", encoding="utf-8")
    code, out, err = run("train", str(tmp_path / "job.yaml"), "actor.adam.ir=1")
    assert (code, out) == (USER_ERROR, "")
    assert err.startswith("error: ")
    assert "mtp.depth: unknown key; did you mean mtp.depths?" in err
    assert "actor.adam.ir: unknown key; did you mean actor.adam.lr?" in err
    assert "Traceback" not in err


def test_a_missing_job_file_is_a_user_error(run, tmp_path):
    code, _, err = run("check", str(tmp_path / "none.yaml"))
    assert code == USER_ERROR
    assert "is not a file" in err


def test_training_is_refused_before_anything_starts_with_every_problem(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(
        "vllm: {num_engines: 1}\nrollout: {temperature: 0}\nmtp: {}", encoding="utf-8"
    )
    code, _, err = run("train", "job.yaml")
    assert code == USER_ERROR
    for problem in (
        "actor.model_name_or_path: got ",
        "data.prompt_dataset: got ",
        "reward.remote_url: the job has no reward",
        "rollout.temperature: got ",
    ):
        assert f"- {problem}" in err
    assert not (tmp_path / "runs").exists()


def test_check_prints_the_plan_and_fails_on_a_problem(run, tmp_path):
    (tmp_path / "job.yaml").write_text("vllm: {num_engines: 1}\nmtp: {}", encoding="utf-8")
    code, out, err = run("check", str(tmp_path / "job.yaml"))
    assert code == USER_ERROR
    assert "Roles" in out
    assert re.search(r"Problems: [0-9]+ error", out.splitlines()[-1])
    assert "error: data.prompt_dataset" in err, "where the errors of a job that cannot be read go, too"


def test_check_of_a_right_job_ends_with_0(run, project_root, monkeypatch):
    monkeypatch.chdir(project_root)
    code, out, _ = run("check", "examples/dapo_qwen3-8b_8gpu/job.yaml", "--gpus", "8", "--no-files")
    assert (code, out.splitlines()[-1]) == (0, "No problems.")


def test_a_setting_that_openrlhf_would_change_behind_the_users_back_is_refused(run, tmp_path):
    (tmp_path / "job.yaml").write_text(
        "vllm: {num_engines: 1}\nds: {attn_implementation: sdpa, packing_samples: true}\nreward.remote_url: http://x"
    )
    _, _, words = run("check", str(tmp_path / "job.yaml"), "--gpus", "8")
    assert (
        "ds.attn_implementation: got sdpa, expected flash_attention_2: OpenRLHF would silently run" in words
    )
    assert "[Warning]" not in words, "OpenRLHF's own line says the same in names that no longer exist"


def test_equipping_a_folder_that_is_no_model_is_a_user_error(run, tmp_path):
    code, _, err = run("equip", str(tmp_path), "--out", str(tmp_path / "out"))
    assert code == USER_ERROR
    assert f"{tmp_path}: no config.json there" in err


def test_a_model_that_is_nowhere_names_both_places(run, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, _, err = run("equip", "no-one/no-model", "--out", str(tmp_path / "out"))
    assert code == USER_ERROR
    assert "got no-one/no-model, which is not a folder here" in err


def test_a_run_that_failed_is_one_block_with_another_exit_code(monkeypatch, capsys):
    def failing(**_: object) -> None:
        raise RunFailed("RewardError: the reward function raised")

    monkeypatch.setattr(cli, "app", failing)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == RUN_FAILED != USER_ERROR
    assert capsys.readouterr().err == "error: RewardError: the reward function raised\n"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/gsm8k/job.yaml", "train-gsm8k"),
        ("a/fast.yaml", "train-fast"),
        ("-", "train-stdin"),
        ("/dev/stdin", "train-stdin"),
        ("/dev/fd/63", "train-stdin"),
    ],
)
def test_a_run_folder_is_named_after_its_job(path, expected):
    from openrlhf_mtp.cli.jobs import default_out

    assert default_out("train", Path(path)) == Path("runs") / expected


def test_check_imports_no_engine(project_root):
    program = (
        "import sys; sys.argv = ['x', 'check', 'examples/dapo_qwen3-8b_8gpu/job.yaml', '--no-files', '--gpus', '8']\n"
        "from openrlhf_mtp.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "print('ENGINES', *sorted({n.partition('.')[0] for n in sys.modules} & {'torch', 'vllm', 'ray', 'numpy'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=project_root, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "ENGINES"


def test_an_unknown_way_of_grouping_runs_names_those_there_are(run, tmp_path):
    code, _, err = run("report", str(tmp_path), "--group", "color")
    assert code == USER_ERROR
    assert "--group: got 'color', expected one of seed, folder, none" in err
