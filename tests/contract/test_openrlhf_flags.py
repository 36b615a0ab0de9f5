"""What `upstream.openrlhf.flags` relies on in the installed OpenRLHF is still there."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from openrlhf_mtp.cli.jobs import upstream_problems
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.job import load_job
from openrlhf_mtp.config.reading.paths import FOLDERS, PATHS
from openrlhf_mtp.config.reading.ranges import RANGES, in_range
from openrlhf_mtp.upstream.openrlhf import flags
from openrlhf_mtp.upstream.openrlhf.flags import (
    UpstreamChangedError,
    flag_specs,
    parse,
    parse_only,
    parse_with_notes,
)

SMALLEST = ["--reward.remote_url=reward.py", "--actor.num_gpus_per_node=1"]


def test_flags_keep_their_kinds():
    specs = flag_specs()
    assert len(specs) > 150
    assert specs["actor.adam.lr"].kind == "float"
    assert specs["rollout.max_new_tokens"].kind == "int"
    assert specs["train.colocate_all"].kind == "switch"
    assert specs["actor.adam.betas"].nargs == 2
    assert "group_norm" in specs["algo.advantage.estimator"].choices
    assert specs["actor.muon.nesterov"].off_name == "actor.muon.no_nesterov"


def test_the_precision_takes_float32_and_auto_which_is_the_default():
    spec = flag_specs()["ds.param_dtype"]
    assert spec.choices == ("bf16", "fp16", "fp32", "auto")
    assert spec.default == "auto"
    for name in spec.choices:
        assert parse([*SMALLEST, f"--ds.param_dtype={name}"]).ds.param_dtype == name
    with pytest.raises(JobError, match="invalid choice: 'fp8'"):
        parse([*SMALLEST, "--ds.param_dtype=fp8"])


def test_the_flags_our_checks_read_exist():
    """A flag that OpenRLHF renames must fail here, not in the middle of a check."""
    source = Path(flags.__file__).parents[2] / "config"
    used = set()
    for file in (file for room in (".", "checks", "machine") for file in source.glob(f"{room}/*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            reads = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args
            if reads and node.func.attr in {"on", "number", "real", "text", "value"}:
                argument = node.args[0]
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    used.add(argument.value)
    assert len(used) > 30
    assert used <= set(flag_specs())


def test_nothing_of_openrlhf_or_torch_is_imported():
    program = (
        "import sys; from openrlhf_mtp.upstream.openrlhf.flags import flag_specs, parse; "
        f"flag_specs(); parse({SMALLEST}); "
        "print(*{name.partition('.')[0] for name in sys.modules} & {'torch', 'ray', 'vllm', 'openrlhf'})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_arguments_are_a_tree_and_validated():
    args = parse([*SMALLEST, "--actor.adam.lr=1e-5"])
    assert args.actor.adam.lr == 1e-5
    assert args.reward.remote_url == ["reward.py"], "its validation splits the list"
    assert args.rollout.vllm_generate_batch_size == args.rollout.batch_size, "its validation fills this in"


def test_parsing_alone_keeps_what_was_asked():
    assert parse_only(SMALLEST).reward.remote_url == "reward.py"


def test_its_refusals_reach_the_user_in_its_own_words():
    with pytest.raises(JobError, match=r"group_norm requires n_samples_per_prompt > 1"):
        parse([*SMALLEST, "--algo.advantage.estimator=group_norm"])


def test_an_unknown_flag_is_an_error_and_not_an_exit():
    with pytest.raises(JobError, match=r"unrecognized arguments: --no\.such=1"):
        parse(["--no.such=1"])


def test_a_crash_of_its_validation_names_the_statement():
    with pytest.raises(JobError, match="A flag it needs is probably missing"):
        parse(["--actor.num_gpus_per_node=1"])


def test_what_its_validation_prints_is_returned():
    _, notes = parse_with_notes([*SMALLEST, "--vllm.enable_sleep"])
    assert any("enable_sleep" in note for note in notes)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("def main(): pass", "0 `if __name__"),
        ("if __name__ == '__main__':\n    parser = 1\n    train(args)", "0 statements `args = parser"),
        (
            "if __name__ == '__main__':\n    args = parser.parse_args()\n    run(args)",
            "the last statement is",
        ),
        (
            "if __name__ == '__main__':\n    args = parser.parse_args()\n    train(args)",
            "`hierarchize` is not",
        ),
    ],
)
def test_another_shape_of_the_entry_point_is_refused(monkeypatch, tmp_path, body, what):
    (tmp_path / "cli").mkdir()
    (tmp_path / "cli" / "train_ppo_ray.py").write_text(body, encoding="utf-8")
    monkeypatch.setattr(flags, "_package_folder", lambda: tmp_path)
    flags._entry_point.cache_clear()
    try:
        with pytest.raises(UpstreamChangedError, match=what):
            flag_specs()
    finally:
        flags._entry_point.cache_clear()


def test_every_number_among_the_flags_has_a_range_and_its_default_is_in_it():
    numbers = {name: spec for name, spec in flag_specs().items() if spec.kind in ("int", "float")}
    assert set(RANGES) == set(numbers)
    for name, spec in numbers.items():
        in_range(name, spec.default)


def legal(spec):
    """A value that the flag takes and that is not its default."""
    if spec.kind == "switch":
        return True
    if spec.choices:
        return spec.choices[-1]
    if spec.nargs is not None:
        return {"float": [0.5, 0.75], "str": ["some"]}[spec.kind]
    if spec.name == "actor.dual_clip":
        return 1.5
    return {"int": 2, "float": 0.5, "str": "some"}[spec.kind]


def test_every_flag_goes_through_the_validation_or_is_refused_in_words(tmp_path):
    specs = flag_specs()
    for name, spec in specs.items():
        (tmp_path / "job.yaml").write_text(json.dumps({"reward.remote_url": "reward.py", name: legal(spec)}))
        job = load_job(tmp_path / "job.yaml", ["actor.num_gpus_per_node=1"], specs)
        list(upstream_problems(job))  # an error of its own kind would end the test here


def test_a_package_that_its_validation_wants_is_named():
    with pytest.raises(JobError, match="use_ms needs the Python package modelscope, which is not installed"):
        parse([*SMALLEST, "--use_ms"])


def test_a_division_in_its_validation_is_a_refusal():
    with pytest.raises(JobError, match=r"ZeroDivisionError.*A flag it needs is probably missing, or is 0"):
        parse([*SMALLEST, "--ds.ring_attn_size=0"])


def test_every_flag_that_takes_a_path_is_made_absolute():
    """A new path of OpenRLHF must be in config/reading/paths.py, or `~` and relative ones mean other places."""
    looks_like_one = re.compile(
        r"(_|\.)(path|dir|file|folder)$|_name_or_path$|dataset$|remote_url$|func_path$"
    )
    found = {name for name, spec in flag_specs().items() if spec.is_text and looks_like_one.search(name)}
    assert found == set(PATHS) - set(FOLDERS)


@pytest.mark.parametrize("value", [-1e-6, -1e-30, -0.5, -12.0, 1e-6])
def test_its_parser_takes_a_small_negative_number_in_a_list(value):
    spec = flag_specs()["reward.clip_range"]
    assert parse([*SMALLEST, *spec.argv((value, 1.0))]).reward.clip_range == [value, 1.0]


def test_a_switch_and_its_contrary_are_one_setting():
    specs = flag_specs()
    assert specs["critic.muon.no_nesterov"].opposite == "critic.muon.nesterov"
    assert {spec.opposite for spec in specs.values()} == {None, "actor.muon.nesterov", "critic.muon.nesterov"}
