"""`openrlhf-mtp convert`: where the job file goes, what is said, and when the exit code is not 0."""

import io
import sys
from pathlib import Path

import pytest

from openrlhf_mtp.cli.convert import run_convert
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.job import load_job
from openrlhf_mtp.upstream.openrlhf.flags import flag_specs

SCRIPT = """\
#!/bin/bash
GPUS=4
python3 -m openrlhf.cli.train_ppo_ray \\
   --actor_num_gpus_per_node $GPUS --vllm_num_engines $GPUS \\
   --pretrain Org/policy-7b --prompt_data Org/prompts \\
   --remote_rm_url http://localhost:5000/get_reward \\
   --advantage_estimator group_norm --n_samples_per_prompt 8 --init_kl_coef 0 \\
   --train_batch_size 128 --rollout_batch_size 128 --temperature 0.9
"""


@pytest.fixture
def convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Convert a script's text; returns the exit code, standard output and standard error."""

    def call(text: str, out: Path | None = None, **options) -> tuple[int, str, str]:
        script = tmp_path / "train.sh"
        script.write_text(text, encoding="utf-8")
        settings = {"nth": None, "overwrite": False, "with_head": True, **options}
        code = run_convert([str(script)], out, **settings)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_a_whole_script_becomes_a_job_that_loads_and_checks(convert, tmp_path):
    out = tmp_path / "jobs" / "job.yaml"
    code, printed, said = convert(SCRIPT, out)
    assert (code, printed) == (0, f"{out}\n")
    assert "11 settings of train.sh, line 3; 11 with another name" in said
    job = load_job(out, [], flag_specs())
    assert job.value("rollout.temperature") == 0.9
    assert job.value("vllm.num_engines") == 4
    assert job.mtp is not None
    assert job.mtp.depths == 3


def test_without_out_the_job_file_is_all_that_standard_output_gets(convert, tmp_path):
    _, printed, _ = convert(SCRIPT)
    (tmp_path / "job.yaml").write_text(printed, encoding="utf-8")
    assert load_job(tmp_path / "job.yaml", [], flag_specs()).value("train.batch_size") == 128


def test_without_mtp_the_job_is_plain_openrlhf(convert, tmp_path):
    out = tmp_path / "job.yaml"
    assert convert(SCRIPT, out, with_head=False)[0] == 0
    assert load_job(out, [], flag_specs()).mtp is None


def test_what_check_would_refuse_is_kept_said_and_counted(convert, tmp_path):
    out = tmp_path / "job.yaml"
    code, _, said = convert(SCRIPT.replace("--temperature 0.9", "--ring_attn_size 2 --packing_samples"), out)
    assert code == 2
    assert "error: ds.ring_attn_size" in said
    assert load_job(out, [], flag_specs()).value("ds.ring_attn_size") == 2


def test_a_number_that_no_job_can_mean_is_said_too(convert):
    code, printed, said = convert(SCRIPT.replace("128", "-8"))
    assert code == 2
    assert "batch_size: -8" in printed
    assert "error: job file: train.batch_size: got -8" in said


def test_what_found_no_place_is_said_and_counted(convert):
    code, _, said = convert(SCRIPT.replace("--temperature", "--heat"))
    assert code == 2
    assert "line 8: --heat 0.9: heat: unknown key" in said


def test_a_job_whose_numbers_wait_for_the_environment_is_checked_when_they_are_there(convert, monkeypatch):
    script = SCRIPT.replace("--n_samples_per_prompt 8", "--n_samples_per_prompt $SAMPLES")
    monkeypatch.delenv("SAMPLES", raising=False)
    code, printed, said = convert(script)
    assert code == 2
    assert "n_samples_per_prompt: ${SAMPLES} " in printed
    assert "not checked, because rollout.n_samples_per_prompt" in said
    monkeypatch.setenv("SAMPLES", "8")
    assert convert(script)[0] == 0


def test_an_existing_file_is_replaced_only_when_asked(convert, tmp_path):
    out = tmp_path / "job.yaml"
    out.write_text("mine", encoding="utf-8")
    with pytest.raises(JobError, match="which exists"):
        convert(SCRIPT, out)
    assert out.read_text(encoding="utf-8") == "mine"
    assert convert(SCRIPT, out, overwrite=True)[0] == 0


def test_a_command_line_and_standard_input_are_read_as_well(convert, tmp_path, monkeypatch, capsys):
    words = ["python3", "-m", "openrlhf.cli.train_ppo_ray", "--input_template", "Q: {} 'A'"]
    options = {"nth": None, "overwrite": False, "with_head": True}
    run_convert(words, None, **options)
    assert "input_template: \"Q: {} 'A'\"" in capsys.readouterr().out
    run_convert([" ".join(words[:3]) + " --seed 3"], None, **options)
    assert "seed: 3" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(SCRIPT.encode())))
    run_convert(["-"], None, **options)
    assert "temperature: 0.9" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "train.sh: expected a command that starts"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"\x7fELF\x00", "train.sh: got a binary file"),
        (b"python -m openrlhf.cli.train_dpo", "found openrlhf.cli.train_dpo"),
    ],
)
def test_a_file_that_is_no_launch_script_is_refused_in_words(tmp_path, content, message):
    (tmp_path / "train.sh").write_bytes(content)
    with pytest.raises(JobError) as refusal:
        run_convert([str(tmp_path / "train.sh")], None, nth=None, overwrite=False, with_head=True)
    assert message in str(refusal.value)


@pytest.mark.parametrize("name", ["none.sh", ".", "a\0b", "x" * 5000, "~nobody-here/x.sh"])
def test_a_script_that_cannot_be_read_is_named(name):
    with pytest.raises(JobError, match="cannot be read"):
        run_convert([name], None, nth=None, overwrite=False, with_head=True)


def test_the_variables_that_the_job_file_waits_for_are_named(convert, monkeypatch):
    monkeypatch.setenv("HERE", "/runs")
    monkeypatch.delenv("NOT_HERE", raising=False)
    _, printed, said = convert(
        SCRIPT.replace("--temperature 0.9", "--save_path $HERE/x --ckpt_path ${NOT_HERE}")
    )
    assert 'output_dir: "${HERE}/x"' in printed
    assert "NOT_HERE, which is not set by the script" in said
    assert "HERE, which" not in said.replace("NOT_HERE", "")
