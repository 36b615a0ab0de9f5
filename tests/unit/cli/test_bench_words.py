"""What is wrong with a benchmark's words is said before anything is measured."""

from pathlib import Path

import pytest

from openrlhf_mtp.bench.loss import bench_loss
from openrlhf_mtp.bench.loss_forms import Workload as LossWorkload
from openrlhf_mtp.bench.rollout import bench_rollout
from openrlhf_mtp.bench.rollout_subject import read_prompts
from openrlhf_mtp.bench.step import bench_step
from openrlhf_mtp.bench.step_forms import Workload as StepWorkload
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.runlog.run_folder import RunFolderError

LOSS = LossWorkload(512, 64, 8, 2, "ce", "float32", "cpu", 1)


def test_a_model_that_is_no_folder_of_one_is_refused_at_once(tmp_path):
    with pytest.raises(JobError, match=r"none/config\.json: no such file; expected the folder"):
        bench_rollout(str(tmp_path / "none"), tmp_path)


@pytest.mark.parametrize(
    "content", ["", "{}", "[1]", "1 + 1", '{"input": 3}', '{"input": ""}', '{"input": [3]}', "\xff"]
)
def test_prompts_that_are_none_are_refused_with_the_file(tmp_path, content):
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(JobError, match=r"--prompts: got .*prompts\.jsonl, expected"):
        read_prompts(file)


def test_a_type_that_torch_does_not_have_is_refused(tmp_path):
    loss = LossWorkload(512, 64, 8, 2, "ce", "float33", "cpu", 1)
    with pytest.raises(JobError, match="--dtype: got 'float33', expected one of float64, float32"):
        bench_loss(tmp_path, loss)


def test_a_width_that_attention_heads_cannot_share_is_refused(tmp_path):
    with pytest.raises(JobError, match="--hidden: got 65, expected a multiple of 64"):
        bench_step(tmp_path, StepWorkload(hidden=65))


@pytest.mark.parametrize(
    "measure", [lambda out: bench_loss(out, LOSS), lambda out: bench_step(out, StepWorkload())]
)
def test_a_folder_that_cannot_be_written_to_is_refused_before_the_work(tmp_path, measure):
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="cannot write to"):
        measure(Path(tmp_path / "file" / "out"))
