"""What the command line answers to words it does not know: in one voice, and with the words that were meant."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from openrlhf_mtp import __version__
from openrlhf_mtp.cli import main as cli
from openrlhf_mtp.cli.completion import setting_names
from openrlhf_mtp.cli.messages import wrapped
from openrlhf_mtp.cli.usage import _key, _settings
from openrlhf_mtp.config.errors import USER_ERROR
from openrlhf_mtp.upstream.openrlhf.flags import flag_specs


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """What the console script says on standard error to the words, on one line; it must refuse them."""

    def call(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["openrlhf-mtp", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == USER_ERROR
        return " ".join(capsys.readouterr().err.split())

    return call


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["chek"], "error: no such command 'chek'. Did you mean 'check'? see openrlhf-mtp --help"),
        (["check"], "error: missing argument 'JOB.yaml'; see openrlhf-mtp check --help"),
        (
            ["check", "job.yaml", "--gpus", "-1"],
            "error: invalid value for '--gpus': must be greater than or equal to 0; see",
        ),
        (["equip", "--color"], "error: no such option: --color"),
        (["equip", "model", "--actor.adam.lr", "1"], "error: no such option: --actor.adam.lr; see"),
    ],
)
def test_a_mistake_in_the_words_is_one_line(answer, words, said):
    assert answer(*words).startswith(said)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["--actor.adam.lr", "1e-6"], "actor.adam.lr=1e-6"),
        (["--actor.adam.lr=1e-6"], "actor.adam.lr=1e-6"),
        (["--train.async_enable"], "train.async_enable=true"),
        (["--eval.steps", "-1", "--ds.overlap_comm"], "eval.steps=-1 ds.overlap_comm=true"),
        (["--actor.adam.betas", "0.9", "0.95", "mtp.depths=2"], "'actor.adam.betas=[0.9, 0.95]'"),
        (["--micro_train_batch_size", "4"], "train.micro_batch_size=4"),
    ],
)
def test_flags_as_openrlhf_has_them_are_answered_with_the_settings_that_are_meant(answer, words, meant):
    said = answer("train", "job.yaml", *words)
    assert said == f"error: settings of a job are written without dashes: {meant}"


@given(st.sampled_from(sorted(flag_specs())), st.floats(allow_nan=False, allow_infinity=False))
def test_every_flag_and_number_is_understood_in_both_forms(name, number):
    expected = [] if "." not in name else [f"{name}={number}"]
    assert list(_settings([f"--{name}", str(number)])) == expected
    assert list(_settings([f"--{name}={number}"])) == expected


def test_no_option_of_ours_is_taken_for_a_flag_of_openrlhf():
    ours = {
        option
        for command in ("check", "train", "pretrain")
        for option in CliRunner().invoke(cli.app, [command, "--help"]).output.split()
        if option.startswith("--")
    }
    assert len(ours) > 5
    assert not [option for option in ours if _key(option)]


@pytest.mark.parametrize("words", [["--version"], ["-V"]])
def test_the_version_names_what_a_report_must(words):
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 0
    assert result.output.startswith(f"openrlhf-mtp {__version__} (openrlhf ")


def test_no_words_at_all_show_the_help(answer):
    assert answer().startswith("Usage: openrlhf-mtp [OPTIONS] COMMAND")


def test_a_shell_completes_settings():
    assert "actor.adam.lr=" in setting_names("actor.a")
    assert "mtp.optim.lr=" in setting_names("mtp.optim.")
    assert setting_names("actor.adam.lr=1") == []


@given(st.text(alphabet="ab /-\n", max_size=300), st.integers(20, 100))
def test_wrapping_loses_no_word_and_keeps_to_the_width(text, width):
    lines = wrapped(text, width)
    assert lines.split() == text.split()
    assert all(len(line) <= width or len(line.split()) == 1 for line in lines.splitlines())


def test_items_of_a_list_are_continued_further_in():
    assert wrapped("title:\n  - one two three four", 16) == "title:\n  - one two\n      three four"
