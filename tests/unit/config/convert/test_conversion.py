"""A converted command means the same as before, under today's names; what has no place is said."""

import contextlib
import random
import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openrlhf_mtp.config.convert.conversion import Conversion, convert
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.job import Job, load_job
from openrlhf_mtp.config.reading.flag_spec import FlagSpec
from openrlhf_mtp.config.reading.old_names import DROPPED, SHORT_LIVED, old_names
from openrlhf_mtp.config.reading.paths import absolute_path
from openrlhf_mtp.upstream.openrlhf.flags import flag_specs, parse_only

SPECS = flag_specs()
START = "python3 -m openrlhf.cli.train_ppo_ray "


def converted(arguments: str, **options: int) -> Conversion:
    return convert(START + arguments, SPECS, **options)


def values(conversion: Conversion) -> dict[str, object]:
    return {name: setting.value for name, setting in conversion.settings.items()}


def loaded(conversion: Conversion, folder) -> Job:
    path = folder / "job.yaml"
    path.write_text(conversion.text("x.sh", job="job.yaml"), encoding="utf-8")
    return load_job(path, [], SPECS)


def said(conversion: Conversion) -> str:
    return "\n".join([*(f"{each.what}: {each.why}" for each in conversion.unplaced), *conversion.remarks])


def conversion_refused(conversion: Conversion, folder) -> str | None:
    try:
        loaded(conversion, folder)
    except JobError as refusal:
        return str(refusal)
    return None


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


def legal(spec: FlagSpec) -> st.SearchStrategy[list[str]]:
    """Words that a flag of the installed OpenRLHF takes."""
    if spec.kind == "switch":
        return st.just([])
    word: st.SearchStrategy[str] = {
        "int": st.integers(1, 10**6).map(str),
        "float": st.floats(1e-9, 1.0).map(repr),
        "str": TEXT.filter(lambda text: not text.startswith("-")),
    }[spec.kind]
    if spec.choices:
        word = st.sampled_from([str(choice) for choice in spec.choices])
    count = spec.nargs if isinstance(spec.nargs, int) else 2 if spec.nargs else 1
    return st.lists(word, min_size=count, max_size=count)


def quoted(word: str, style: int) -> str:
    """One of the ways to write a word in bash."""
    if style == 0 and re.fullmatch(r"[\w./:-]+", word, re.ASCII):
        return word
    if style == 1:
        return '"' + re.sub(r'([\\"$`])', r"\\\1", word) + '"'
    if style == 2:
        escaped = word.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
        return f"$'{escaped}'"
    if style == 3 and word and "\n" not in word:
        return "".join(sign if sign in string.ascii_letters else f"\\{sign}" for sign in word)
    return "'" + word.replace("'", "'\\''") + "'"


def rendered(flags: dict[str, list[str]], chance: random.Random) -> str:
    """The flags as a script: quotes, continued lines, variables and an array, as chance has it."""
    setup, out = "", ""
    for number, (name, words) in enumerate(flags.items()):
        pieces = [quoted(word, chance.randrange(5)) for word in words]
        if pieces and chance.random() < 0.2:
            setup += f"V{number}={pieces[0]}\n"
            pieces[0] = f'"$V{number}"'
        if len(pieces) > 1 and chance.random() < 0.5:
            setup += f"A{number}=(  # all\n  {'  '.join(pieces)}\n)\n"
            pieces = [f'"${{A{number}[@]}}"']
        joint = "=" if len(pieces) == 1 and len(words) == 1 and chance.random() < 0.3 else " "
        gap = chance.choice([" ", " \\\n  ", "  "])
        out += f"{gap}--{name}{joint if pieces else ''}{' '.join(pieces)}"
    return f"{setup}{START}{out.lstrip()}\n"


@st.composite
def command(draw: st.DrawFn) -> tuple[dict[str, list[str]], str]:
    names = draw(st.lists(st.sampled_from([*SPECS]), unique=True, min_size=1, max_size=8))
    flags = {name: draw(legal(SPECS[name])) for name in names if not name.endswith("no_nesterov")}
    return flags, rendered(flags, draw(st.randoms(use_true_random=False)))


@settings(max_examples=120, deadline=None)
@given(command())
def test_a_script_becomes_the_settings_that_openrlhf_would_parse(tmp_path_factory, case):
    flags, script = case
    argv = [word for name, words in flags.items() for word in (f"--{name}", *words)]
    args = parse_only(argv)
    conversion = convert(script, SPECS)
    assert conversion.unplaced == []
    for name in flags:
        parsed = args
        for key in name.split("."):
            parsed = getattr(parsed, key)
        value = conversion.settings[name].value
        assert (list(value) if isinstance(value, tuple) else value) == parsed, name


@settings(max_examples=80, deadline=None)
@given(command())
def test_the_job_file_reads_back_as_the_settings_it_was_made_of(tmp_path_factory, case):
    conversion = convert(case[1], SPECS)
    too_large = conversion_refused(conversion, tmp_path_factory.mktemp("job"))
    if too_large is not None:
        assert "expected" in too_large  # a value that no job can mean, refused with its range
        return
    job = loaded(conversion, tmp_path_factory.mktemp("job"))
    for name, value in values(conversion).items():
        assert job.flags[name] == absolute_path(name, value), name


SNIPPETS = r"""
openrlhf.cli.train_ppo_ray
--pretrain --bf16 --x= --prompt_max_len --target_modules 5 -1e-6 nan ' " $( ${ $(( ) } { ( ; && `
$' \ # <<EOF if fi for x in a do done case esac ;; f() eval bash -c export A=( A+= $A ${A[@]} ${A:- $1 é {a,b} < > | x=
"""
NOISE = st.lists(st.sampled_from([*SNIPPETS.split(), " ", "\n", "\\\n", "\nEOF\n", "\x07"]), max_size=40).map(
    "".join
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(NOISE, NOISE.map(START.__add__), st.text()))
def test_any_text_is_converted_or_refused_in_words(text):
    with contextlib.suppress(JobError):
        assert convert(text, SPECS).text("x.sh", job="job.yaml")


@pytest.mark.parametrize("text", ["$(" * 3000, "${x:-" * 1000, "x=(" * 3000, "A=x\n" + "A=$A$A\n" * 40])
def test_a_text_that_would_take_for_ever_is_refused(text):
    with pytest.raises(JobError):
        convert(text + " openrlhf.cli.train_ppo_ray $A", SPECS)


def words_for(name: str) -> str:
    """Values that the old flag took."""
    if name in ("bf16", "flash_attn", "enable_vllm_is_correction"):
        return ""
    if name == "vllm_is_correction_type":
        return "icepop --enable_vllm_is_correction"
    spec = SPECS[old_names()[name].now]
    if spec.kind == "switch":
        return ""
    word = str(spec.choices[0]) if spec.choices else {"int": "7", "float": "0.5", "str": "text"}[spec.kind]
    return " ".join([word] * (spec.nargs if isinstance(spec.nargs, int) else 1))


@pytest.mark.parametrize("name", old_names())
def test_every_old_name_is_placed_under_the_name_of_today(name):
    conversion = converted(f"--{name} {words_for(name)}")
    assert conversion.unplaced == []
    assert old_names()[name].now in conversion.settings
    assert f"--{name}" in conversion.text("x.sh", job="job.yaml") or "correction" in name


def test_lengths_are_added_because_today_one_holds_prompt_and_response():
    assert values(converted("--prompt_max_len 1024 --generate_max_len 3072")) == {
        "rollout.max_new_tokens": 3072,
        "data.max_len": 4096,
    }
    alone = converted("--generate_max_len 3072")
    assert values(alone) == {"rollout.max_new_tokens": 3072, "data.max_len": 4096}
    assert "1024 (--prompt_max_len left out)" in alone.text("x", job="job.yaml")
    given_total = values(converted("--prompt_max_len 512 --generate_max_len 512 --max_len 2048"))
    assert given_total == {"rollout.max_new_tokens": 512, "data.max_len": 2048}


@pytest.mark.parametrize(
    ("flags", "level", "mode"),
    [
        ("--enable_vllm_is_correction", "token", "clip"),
        ("--enable_vllm_is_correction --vllm_is_correction_type icepop", "token", "mask"),
        ("--enable_vllm_is_correction --vllm_is_correction_type mis", "seq", "mask"),
        ("--enable_vllm_is_correction --use_icepop", "token", "mask"),
        ("--algo.advantage.is_correction_enable", "token", "clip"),
        (
            "--algo.advantage.is_correction_enable --algo.advantage.is_correction_type seq-mask-tis",
            "seq",
            "mask",
        ),
    ],
)
def test_a_named_correction_becomes_level_and_mode(flags, level, mode):
    section = "algo.advantage.is_correction"
    assert values(converted(flags)) == {f"{section}_level": level, f"{section}_mode": mode}


def test_a_correction_that_is_not_enabled_did_nothing_and_stays_so():
    conversion = converted("--vllm_is_correction_type icepop")
    assert values(conversion) == {}
    assert "did nothing" in said(conversion)


def test_a_flag_that_set_two_roles_sets_both_where_both_are():
    both = values(converted("--l2 0.1 --ref_reward_offload --reward_pretrain Org/rm"))
    assert both["critic.adam.weight_decay"] == both["actor.adam.weight_decay"] == 0.1
    assert both["ref.offload"] is both["reward.offload"] is True
    without = values(converted("--l2 0.1 --advantage_estimator group_norm"))
    assert "critic.adam.weight_decay" not in without


def test_a_default_that_changed_is_said_where_the_script_relied_on_it():
    old = "--actor_learning_rate 1e-6 --bf16 --flash_attn --micro_train_batch_size 1 --micro_rollout_batch_size 1"
    assert "algo.advantage.lambd: 0.95" in said(converted(old))
    assert "algo.advantage.lambd" not in said(converted(f"{old} --lambd 1"))
    assert "algo.advantage.lambd" not in said(converted(f"{old} --advantage_estimator rloo"))
    assert "algo.advantage.lambd" not in said(converted(f"{old} --eps_clip_low_high 0.2 0.3"))  # since 0.8.2
    assert "checkpoint's own precision" in said(converted("--actor_learning_rate 1e-6"))
    assert "default" not in said(converted("--actor.adam.lr 1e-6"))


@pytest.mark.parametrize("name", [*DROPPED])
def test_a_dropped_flag_is_listed_with_the_reason(name):
    value = "" if name in ("actor_init_on_gpu", "perf", "torch_compile") else " 1"
    assert DROPPED[name] in said(converted(f"--{name}{value}"))


def test_short_lived_names_are_known_too():
    conversion = converted("--use_kl_estimator_k3 --universal_ckpt")
    assert values(conversion) == {"algo.kl.estimator": "k3", "ds.use_universal_ckpt": True}
    assert set(SHORT_LIVED) >= {"use_icepop", "algo.advantage.is_correction_enable"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("--fsdp.tp_size 2", "--fsdp.tp_size 2: fsdp.tp_size: unknown key"),
        ("--packing_samples true", "true: --packing_samples takes no value"),
        ("--seed", "--seed: --seed takes one value"),
        ("--seed x", "--seed x: as train.seed: got x, expected a whole number"),
        ("--kl_estimator k9", "--kl_estimator k9: as algo.kl.estimator: got"),
        ("--seed 1 2", "2: --seed takes one value"),
        ("--adam_betas $N 1", "--adam_betas $N 1: $N is not set by the script; set actor.adam.betas"),
        ("--seed 1$N", "--seed 1$N: $N is not set by the script; set train.seed"),
        ("--save_path $(date)", "--save_path $(date): $(date) is computed by the shell; set ckpt.output_dir"),
        ('--seed 1 "$@"', "$@: $@ means the arguments of the script"),
        ("--adam_betas 0.9", "--adam_betas 0.9: --adam_betas takes 2 values"),
        ("-h", "-h: h: unknown key"),
        ("x", "x: --bf16 takes no value"),
    ],
)
def test_what_has_no_place_is_listed_in_the_file_and_nowhere_else(arguments, line, tmp_path):
    conversion = converted(f"--bf16 {arguments}")
    assert line in said(conversion)
    text = conversion.text("x.sh", job="job.yaml")
    assert f"#   line 1: {line}" in text
    job = loaded(conversion, tmp_path)
    assert job.flags["ds.param_dtype"] == "bf16"


def test_a_flag_that_is_added_under_a_condition_is_the_users_to_decide():
    script = f"A=(--seed 1)\nif $x; then A+=(--zpg 2 --bf16); fi\nA+=(--l2 0.1)\n{START}" + ' "${A[@]}"'
    conversion = convert(script, SPECS)
    assert [(each.line, each.what) for each in conversion.unplaced] == [(2, "--zpg 2"), (2, "--bf16")]
    assert {name for name in conversion.settings if "critic" not in name} == {
        "train.seed",
        "actor.adam.weight_decay",
    }


def test_values_are_cut_as_argparse_cuts_them():
    conversion = converted(
        "--reward_clip_range -1e-6 -.5 --max_sampl 5 --seed=3 --seed 4 --target_modules a b --zpg 1"
    )
    assert values(conversion) == {
        "reward.clip_range": (-1e-6, -0.5),
        "data.max_samples": 5,
        "train.seed": 4,
        "ds.lora.target_modules": ("a", "b"),
        "ds.zpg": 1,
    }
    assert "the last one counts" in said(conversion)


def test_a_variable_of_the_environment_stays_one(tmp_path, monkeypatch):
    conversion = convert(f"{START} --save_path $RUNS/x --use_wandb '$KEY'", SPECS)
    assert conversion.variables == {"RUNS": "is not set by the script"}
    monkeypatch.setenv("RUNS", str(tmp_path))
    job = loaded(conversion, tmp_path)
    assert job.value("ckpt.output_dir") == f"{tmp_path}/x"
    assert job.value("logger.wandb.key") == "$KEY"


def test_a_number_may_wait_for_a_variable_too(tmp_path, monkeypatch):
    conversion = converted("--seed $N --kl_estimator ${K}")
    assert conversion.waiting({"N"}) == ["algo.kl.estimator"]
    monkeypatch.setenv("N", "7")
    monkeypatch.setenv("K", "k3")
    job = loaded(conversion, tmp_path)
    assert (job.value("train.seed"), job.value("algo.kl.estimator")) == (7, "k3")


def test_numbers_look_as_in_the_script_and_comments_name_line_and_old_name():
    text = converted("\\\n  --actor_learning_rate 5e-7 \\\n --input_template $'Q: {}\\nA:' # end").text(
        "x.sh", job="j.yaml"
    )
    assert re.search(r"^    lr: 5e-7 +# line 2, --actor_learning_rate$", text, re.M)
    assert re.search(r'^  input_template: "Q: \{\}\\nA:" +# line 3, --input_template$', text, re.M)


def test_line_ends_and_a_mark_of_windows_change_nothing():
    windows = f"\ufeff#!/bin/bash\r\n{START} \\\r\n  --seed 3 \\\r\n  --bf16\r\n"
    assert values(convert(windows, SPECS)) == {"train.seed": 3, "ds.param_dtype": "bf16"}


def test_several_commands_are_chosen_by_number():
    script = f"{START} --seed 1\n{START} --seed 2\n"
    with pytest.raises(JobError, match=r"found 2 different .*1: line 1; 2: line 2.*--nth"):
        convert(script, SPECS)
    assert values(convert(script, SPECS, nth=2)) == {"train.seed": 2}
    with pytest.raises(JobError, match="--nth: got 3, expected 1 to 2"):
        convert(script, SPECS, nth=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found none"),
        ("ls", "found none"),
        ("python -m openrlhf.cli.train_sft --x 1", r"found openrlhf\.cli\.train_sft \(line 1\)"),
        ("\0ELF", "binary file"),
        ("a" * 1_000_001, "at most 1,000,000"),
    ],
)
def test_a_text_without_the_command_is_refused_in_words(text, message):
    with pytest.raises(JobError, match=message):
        convert(text, SPECS)
