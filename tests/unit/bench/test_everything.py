"""All measurements in one command: what is collected, and that one that fails stops no other."""

import json

import pytest

from ci import measurements
from ci.compare import load_baseline
from openrlhf_mtp.bench import everything
from openrlhf_mtp.bench.everything import PARTS, bench_all
from openrlhf_mtp.bench.step_forms import Workload
from openrlhf_mtp.config.errors import JobError

RATIO = [1.5, 1.0, 2.0]
RECORDS = {
    "loss": {
        "forms": {
            "plain": {
                "time_ratio": dict(zip(("middle", "low", "high"), (1.0, 1.0, 1.0), strict=True)),
                "memory_ratio": 1.0,
            },
            "ours": {
                "time_ratio": dict(zip(("middle", "low", "high"), RATIO, strict=True)),
                "memory_ratio": 0.05,
            },
            "speculators": {"problem": "needs a GPU"},
        }
    },
    "step": {"forms": {form: {"over_no_head": RATIO} for form in Workload().forms()}},
    "sync": {
        "forms": {
            form: {"openrlhf_over_it": RATIO}
            for form in ("OpenRLHF", "gloo", "gloo, verified", "ipc", "ipc, verified")
        }
    },
    "rollout": {
        "rows": [{"batch": batch, "ratio": 1.5, "ratio_low": 1.0, "ratio_high": 2.0} for batch in (1, 4)]
    },
}


class Commands:
    """Stands for the processes: notes the words and leaves a record."""

    def __init__(self, records=RECORDS, fails=()):
        self.records, self.fails, self.given = records, fails, []

    def __call__(self, words):
        self.given.append(list(words))
        group, name = words[:2]
        assert group == "bench"
        if name in self.fails:
            return 1
        out = words[list(words).index("--out") + 1]
        with open(f"{out}/bench_{name}.json", "w", encoding="utf-8") as file:
            json.dump(self.records[name], file)
        return 0


def results(folder):
    return json.loads((folder / everything.RESULT).read_text(encoding="utf-8"))


def test_every_ratio_is_collected_under_the_name_that_is_compared(tmp_path):
    commands = Commands()
    assert bench_all(tmp_path, "policy", smoke=False, run=commands) == 0
    metrics = results(tmp_path)["metrics"]
    assert {one.metric for one in load_baseline(measurements.BASELINE, measurements.FILE)} <= metrics.keys()
    assert metrics["loss: ours, time over plain"] == {"median": 1.5, "min": 1.0, "max": 2.0}
    assert metrics["rollout: batch 4, speed over no drafts"]["median"] == 1.5
    assert not [name for name in metrics if "speculators" in name or "no head, time" in name]
    assert [words[1] for words in commands.given] == [part.name for part in PARTS]
    assert [words[2] for words in commands.given if "policy" in words] == ["policy"], "rollouts' own argument"


def test_a_measurement_that_fails_is_said_and_stops_no_other(tmp_path, capsys):
    (tmp_path / "bench_step.json").write_text(json.dumps(RECORDS["step"]), encoding="utf-8")
    assert bench_all(tmp_path, None, smoke=False, run=Commands(fails=("step",))) == 1
    left = results(tmp_path)
    assert list(left["problems"]) == ["step"]
    assert not [name for name in left["metrics"] if name.startswith("step")], (
        "not an earlier command's figures"
    )
    assert [name for name in left["metrics"] if name.startswith("rollout")]
    assert "step: exit code 1" in capsys.readouterr().out


def test_a_record_without_a_ratio_is_a_failure(tmp_path):
    nothing = {**RECORDS, "loss": {"forms": {"plain": {"problem": "no memory"}}}}
    assert bench_all(tmp_path, None, smoke=False, run=Commands(nothing)) == 1


def test_smoke_is_passed_on_and_noted(tmp_path):
    commands = Commands()
    bench_all(tmp_path, None, smoke=True, only=["sync", "rollout"], run=commands)
    assert [words[4:] for words in commands.given] == [["--smoke"], ["--repeats", "1"]]
    assert results(tmp_path)["smoke"]


def test_an_unknown_name_is_refused_before_anything_runs(tmp_path):
    commands = Commands()
    with pytest.raises(JobError, match="--only: got 'kernels', expected one of loss, step, sync, rollout"):
        bench_all(tmp_path, None, smoke=True, only=["kernels"], run=commands)
    assert not commands.given
