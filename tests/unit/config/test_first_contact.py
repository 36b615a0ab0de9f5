"""Jobs as people first write them, through `openrlhf-mtp check`: what went wrong once, and what is right."""

import contextlib
import io
import sys

import pytest

from openrlhf_mtp.cli import main as command_line

JOB = """
actor:
  model_name_or_path: Org/policy-7b
  num_gpus_per_node: 4
data: {prompt_dataset: Org/prompts}
reward: {remote_url: "http://localhost:5000/score"}
vllm: {num_engines: 4}
train: {batch_size: 128}
rollout: {batch_size: 128, n_samples_per_prompt: 8}
algo: {advantage: {estimator: group_norm}, kl: {init_coef: 0}}
"""
HEAD = "mtp: {depths: 3}\n"

REFUSED = [
    (
        "use_ms: true",
        "use_ms needs the Python package modelscope, which is not installed; pip install modelscope",
    ),
    ("train.micro_batch_size: 0", "train.micro_batch_size: got 0, expected 1 or more (line 12)"),
    ("ds.ring_attn_size: 0", "ds.ring_attn_size: got 0, expected 1 or more (line 12)"),
    ("train.seed: .nan", "train.seed: got .nan, expected a whole number (line 12)"),
    ("train.seed: " + "9" * 5000, "line 12: a number of 5,000 digits"),
    ("mtp.pretrain.max_steps: " + "9" * 5000, "line 12: a number of 5,000 digits"),
    ("logger.wandb.run_name: caf\udce9", "line 12: got the byte 0xe9"),
    ("? [a, b]\n: 1", "line 12: a list as a key"),
    ("mtp.optim:\n  [a]: 1", "line 13: a list as a key"),
    ("mtp.num_blocks: !!int abc", "line 12: !!int with 'abc'"),
    ("mtp.num_blocks: !!bool maybe", "line 12: !!bool with 'maybe'"),
    ("mtp.num_blocks: !!timestamp abc", "line 12: the tag !!timestamp"),
    ('mtp.head: "\\uD800x"', "line 12: while parsing a quoted scalar"),
    ("mtp.head: /" + "a" * 5000, "expected a path of at most 4000 bytes"),
    ("actor.eps_clip_low_high: 0.2 0.27", "expected a list of 2 numbers, [0.2, 0.27] (line 12)"),
    ("ds: 3", "ds: got 3, expected a section, with keys such as ds."),
    ("ckpt.path: ${NOBODY_SET_THIS}", "line 12: ${NOBODY_SET_THIS}: the environment has no variable"),
    ("train.batch_size: 100", "train.batch_size is given twice"),
    ("rollout.temperature: 0", "(line 12)"),
    ("algo.advantage: {is_correction_enable: true, is_correction_type: icepop}", "icepop is token with mask"),
]
ACCEPTED = [
    "reward.clip_range: [-1e-6, 1]",
    "x-base: &base {lr: 1e-6}\nactor.adam:\n  <<: *base\n",
    "mtp.optim.lr: 1e-4",
    "mtp:\n  depths: 3\n  optim:\n",
    "actor.muon.no_nesterov: true",
    "actor.muon.no_nesterov: false",
    "critic.muon.no_nesterov: true",
    "logger.wandb: {run_name: 007, project: 1e3, group: 1.10}",
    "ckpt: {output_dir: ~/ckpt, path: ~/state}",
    "eval.n_samples_per_prompt: ${NOBODY_SET_THIS:-4}",
    "ds:\n  <<: {zero_stage: 2}\n",
]


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Exit code and both outputs, as one line each, of a check of a job file for eight GPUs."""
    monkeypatch.setenv("COLUMNS", "1000")

    def run(text: str, *overrides: str) -> tuple[int, str, str]:
        file = tmp_path / "job.yaml"
        file.write_bytes(text.encode(errors="surrogateescape"))
        words = ["openrlhf-mtp", "check", str(file), "--gpus", "8", "--no-files", *overrides]
        monkeypatch.setattr(sys, "argv", words)
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as end,
        ):
            command_line.main()
        flat = [" ".join(stream.getvalue().split()) for stream in (out, err)]
        return int(end.value.code or 0), flat[0], flat[1]

    return run


@pytest.mark.parametrize(("more", "expected"), REFUSED, ids=[more[:40] for more, _ in REFUSED])
def test_a_job_that_cannot_be_meant_is_refused_where_it_stands(check, more, expected):
    code, _, err = check(JOB + HEAD + more)
    assert code == 2
    assert expected in err
    assert err.startswith("error: ")


@pytest.mark.parametrize("more", ACCEPTED)
def test_a_job_that_openrlhf_takes_is_taken(check, more):
    code, _, err = check(JOB + ("" if more.startswith("mtp:") else HEAD) + more)
    assert (code, err.count("error:")) == (0, 0), err


def test_an_mtp_section_that_was_commented_out_is_a_warning(check):
    code, _, err = check(JOB + "mtp:\n  # depths: 3\n")
    assert code == 0
    assert "warning: mtp: got a section with nothing in it, so plain OpenRLHF runs" in err
    assert "(line 12)" not in err
    assert "(line 11)" in err


def test_a_utf16_file_is_told_so(check, tmp_path):
    code, _, err = check((JOB + HEAD).encode("utf-16").decode("utf-8", errors="surrogateescape"))
    assert code == 2
    assert "line 1: got UTF-16; save the file as UTF-8 text" in err
