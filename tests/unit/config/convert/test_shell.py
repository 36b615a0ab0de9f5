"""Scripts are read as bash reads them, without running them. bash itself is the judge of words."""

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openrlhf_mtp.config.convert.launches import Launch, Reading, read_script

MODULE = "openrlhf.cli.train_ppo_ray"
SETUP = "V='x  y'\nW=z\nA=(p 'q  r' s)\n"
SNIPPETS = r"""
a b - = # % é ' " \ \n "$V" $V ${V} ${W} ${U:-d} ${V:+x} ${V-} $'a\tb' "${A[@]}" ${A[@]} ${A[1]} $((2*3)) --f 1 {}
"""
PIECES = [*SNIPPETS.split(), "'x y'", '"q  r"', "\\ ", " ", "\t", " \\\n  ", " # c", "\n"]


def only(script: str) -> tuple[Launch, Reading]:
    reading = read_script(script)
    assert len(reading.launches) == 1
    return reading.launches[0], reading


def words(script: str) -> list[str]:
    launch, reading = only(script)
    return [reading.holes.shown(field.text) for field in launch.arguments]


def lines(script: str) -> list[int]:
    return [field.line for field in only(script)[0].arguments]


def in_bash(script: str) -> list[str] | None:
    """The words that the command gets when bash runs the script, None where bash refuses it."""
    shown = f'{MODULE}() {{ printf \'%s\\0\' "$#" "$@"; exit 0; }}\n{script}'
    run = subprocess.run(["bash", "-c", shown], capture_output=True, check=False)
    return None if run.returncode or run.stderr else run.stdout.decode().split("\0")[1:-1]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=10).map("".join))
def test_words_are_those_that_bash_would_pass(body):
    script = f"{SETUP}{MODULE} {body}\n"
    expected = in_bash(script)
    undefined = "$V\\\n" in body  # a name that continues in the next line, which nobody writes
    if expected is not None and not undefined and "$" not in "".join(got := words(script)):
        assert got == expected


@pytest.mark.parametrize(
    ("setup", "command", "expected"),
    [
        ("M=Org/m", "--pretrain $M", ["--pretrain", "Org/m"]),
        ("M=a; M+=b", "$M", ["ab"]),
        ("", "--x ${N:-8}", ["--x", "8"]),
        ("N=4", "--x ${N:-8} $((N / 2))", ["--x", "4", "2"]),
        ("N=-7", "$((N / 2)) $((N % 2)) $(( (${N} + 9) * $N ))", ["-3", "-1", "-14"]),
        (
            "N=4",
            "$((N ** 2)) $((1x)) $((N / 0)) $((010))",
            ["$((N ** 2))", "$((1x))", "$((N / 0))", "$((010))"],
        ),
        ("export -r K='a b'", "'$K' \"$K\"", ["$K", "a b"]),
        ("A=(\n --a 1 # one\n # two\n --b\n)\nA+=(2)", '"${A[@]}"', ["--a", "1", "--b", "2"]),
        ("E='--a 1'", "$E --b", ["--a", "1", "--b"]),
        ("for s in 3; do", "--seed $s; done", ["--seed", "3"]),
        ("", '\'{"a": 1}\' "{}" {}', ['{"a": 1}', "{}", "{}"]),
        ("", "--a 1 > log.txt 2>&1 &", ["--a", "1"]),
        ("", "--a 1 |& tee log; echo --b", ["--a", "1"]),
        ("", "--a 1 > >(tee log) 2> >(tee err >&2)", ["--a", "1"]),
        ("T=$(cat <<E\nQ: {}\nE\n)", '"$T"', ["Q: {}"]),
        ("", "$'\\x41\\u00e9\\'' pre\"mid\"'post'\\ x", ["Aé'", "premidpost x"]),
    ],
)
def test_what_the_script_itself_decides_is_computed(setup, command, expected):
    assert words(f"{setup}\npython3 -m {MODULE} {command}\n") == expected


@pytest.mark.parametrize(
    ("setup", "word", "variable"),
    [
        ("", "$HOME/x", "HOME"),
        ('D=$(dirname "$0")', "$D/x", "D"),
        ("if true; then D=a; else D=b; fi", "${D}/x", "D"),
        ('[ -z "$D" ] && D=a', "$D/x", "D"),
        ("for D in a b; do :; done", "$D/x", "D"),
        ("f() { D=a; }; g", "$D/x", "D"),
        ("while read -r D; do", "$D/x; done", "D"),
        ("", "$(date +%F)", None),
        ("", "$1", None),
        ("", '"$@"', None),
        ("D=a", "${D%/*}", None),
        ("", "{a,b}", None),
    ],
)
def test_what_only_the_shell_knows_is_left_open(setup, word, variable):
    launch, reading = only(f"{setup}\n{MODULE} --save_path {word}\n")
    holes = reading.holes.within(launch.arguments[1].text)
    assert [hole.variable for hole in holes] == [variable]
    assert holes[0].reason


def test_what_a_subshell_sets_is_gone_after_it():
    assert words(f"D=a\n(D=b; cd x)\n{MODULE} $D") == ["a"]


def test_a_function_is_read_where_it_is_called_with_its_arguments():
    script = f'run() {{\n  {MODULE} --pretrain $M --seed ${{1}} "${{@:2}}" $2\n}}\nM=Org/m\nrun 7 x\n'
    assert words(script) == ["--pretrain", "Org/m", "--seed", "7", "${@:2}", "x"]
    assert words(f"function run {{ {MODULE} --seed 1; }}") == ["--seed", "1"]
    assert words(f"f() {{ f; }}\nf\n{MODULE} --seed 1") == ["--seed", "1"]
    assert words(f"f() {{ {'f; ' * 20} }}\nf\n{MODULE} --seed 1") == ["--seed", "1"]
    assert words(f"f() {{ :; }}\nf 7\n{MODULE} $1") == ["$1"]
    assert words(f"main() {{\n  D=b\n}}\nD=a\nmain\n{MODULE} $D") == ["b"]


def test_words_added_under_a_condition_keep_that_condition():
    script = (
        'A=(--seed 1)\nif [ "$X" ]; then\n  A+=(--bf16 --zpg 2)\nfi\n[ $Y ] && A+=(--perf)\n'
        f'A+=(--l2 0.1)\n{MODULE} "${{A[@]}}"\n'
    )
    launch, _ = only(script)
    always = [field.text for field in launch.arguments if not field.when]
    assert always == ["--seed", "1", "--l2", "0.1"]
    assert [(field.text, field.when) for field in launch.arguments if field.when] == [
        ("--bf16", "is added in a branch of the script, line 2"),
        ("--zpg", "is added in a branch of the script, line 2"),
        ("2", "is added in a branch of the script, line 2"),
        ("--perf", "is added under a condition, line 5"),
    ]


def test_an_inner_shell_sees_only_what_is_exported():
    assert words(f"export D=a\nbash -c '{MODULE} $D'") == ["a"]
    launch, reading = only(f"D=a\nbash -c '{MODULE} $D'")
    assert "not exported" in reading.holes.within(launch.arguments[0].text)[0].reason


@pytest.mark.parametrize(
    "wrapper",
    [
        "python3 -m {}",
        "FOO=1 BAR='a b' nohup python -u -m {}",
        "deepspeed --num_gpus 8 --module {}",
        "torchrun --nproc_per_node 8 -m {}",
        "ray job submit --address=http://127.0.0.1:8265 --runtime-env-json='{{\"pip\": []}}' -- python3 -m {}",
        'srun --nodes=1 -w "$node" python -m {}',
        "docker run --gpus all img:1 python -m {}",
        "set -x; cd /x && python /x/openrlhf/cli/train_ppo_ray.py",
        "if [[ ${{1}} != slurm ]]; then\n deepspeed {}",
        "run() {{\n  python -m {}",
    ],
)
def test_the_command_is_found_behind_any_wrapper(wrapper):
    assert words(wrapper.format(MODULE) + " --pretrain Org/m\n") == ["--pretrain", "Org/m"]


@pytest.mark.parametrize(
    "script",
    [
        'bash -c "cd /x && python -m {} \\\n  --pretrain Org/m \\\n  --zpg 2"\n',
        "srun apptainer exec img.sif bash -lc 'python -m {} \\\n  --pretrain Org/m \\\n  --zpg 2'\n",
        'ssh node "\npython -m {}\\\n  --pretrain Org/m\\\n  --zpg 2"\n',
        "read -r -d '' cmd <<EOF\n{} \\\n --pretrain Org/m \\\n --zpg 2\nEOF\ndeepspeed --module $cmd\n",
        'cmd="{} --pretrain Org/m\n  --zpg 2"\npython -m $cmd\n',
        "cmd='python -m {} --pretrain \"Org/m\" --zpg 2'\neval $cmd\n",
        "cmd='python -m {} --pretrain Org/m --zpg 2'\necho \"$cmd\" | bash\n",
        "sbatch <<'EOF'\n#!/bin/bash\nsrun python -m {} --pretrain Org/m --zpg 2\nEOF\n",
        "cat > run.sh <<EOF\npython -m {} --pretrain Org/m --zpg 2\nEOF\n",
    ],
)
def test_the_command_is_found_inside_quotes_and_documents(script):
    assert words(script.format(MODULE)) == ["--pretrain", "Org/m", "--zpg", "2"]


@pytest.mark.parametrize(
    "script",
    [
        "# python -m {}\n",
        "echo python -m {}\n",
        "pkill -f {}\n",
        "ps aux | grep {}\n",
        "cat <<EOF\nusage: python -m {} --pretrain\nEOF\n",
        "cmd='python -m {}'\n",
    ],
)
def test_a_command_that_is_only_named_is_none(script):
    assert read_script(script.format(MODULE)).launches == []


def test_each_word_knows_its_line_through_continuations_documents_and_arrays():
    assert lines(f"\npython -m {MODULE} \\\n  --a 1 \\\n  --b\n") == [3, 3, 4]
    assert lines(f"read -r -d '' c <<EOF\n{MODULE} \\\n --a 1 \\\n --b\nEOF\nx $c\n") == [3, 3, 4]
    assert lines(f"A=(\n  --a\n  --b\n)\n{MODULE} ${{A[@]}}\n") == [2, 3]
    assert lines(f'bash -c "x && \\\n{MODULE} \\\n --a \\\n --b"\n') == [3, 4]


def test_words_after_a_comment_between_continued_lines_are_not_lost_in_silence():
    launch, _ = only(f"{MODULE} \\\n  --a 1 \\\n  # not now \\\n  --b 2 \\\n  --c\necho done\n")
    assert [field.text for field in launch.arguments] == ["--a", "1"]
    assert [(field.line, field.text) for field in launch.lost] == [(4, "--b"), (4, "2"), (5, "--c")]


def test_the_same_command_in_two_branches_is_one():
    script = f"if a; then\n  deepspeed {MODULE} --a 1\nelse\n  srun {MODULE} --a 1\nfi\n"
    assert len(read_script(script).launches) == 1
    assert len(read_script(script.replace("srun", "srun x").replace("--a 1\nfi", "--a 2\nfi")).launches) == 2


def test_what_a_job_file_cannot_hold_is_said():
    script = (
        "export NCCL_DEBUG=INFO\nsource vars.sh\ncd /work\nray start --head\nray job submit "
        f'--runtime-env-json=\'{{"working_dir": "/o", "env_vars": {{"K": "1"}}}}\' -- python -m {MODULE}\n'
    )
    said = "\n".join(only(script)[0].remarks)
    for part in ("NCCL_DEBUG", "vars.sh", "/work", "line 4", "/o", "K"):
        assert part in said
