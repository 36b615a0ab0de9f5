"""What an unknown name is answered with: the right name, or none; a wrong one would change an experiment in silence."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.config.reading.names import unknown
from openrlhf_mtp.config.reading.old_names import DROPPED, LAST_OLD, RENAMED, advice, old_names
from openrlhf_mtp.config.settings.section import mtp_names
from openrlhf_mtp.upstream.openrlhf.flags import flag_specs

KNOWN = [*flag_specs(), *mtp_names()]
TABLE = Path(__file__).parent / "old_names.tsv"
"""All 143 old names with today's, written down apart from the package's own table."""
OLD = {old: now for old, now, *_ in csv.reader(TABLE.open(encoding="utf-8"), delimiter="\t")}


def suggested(name: str) -> str:
    """The name after "did you mean"; "" when nothing is suggested."""
    return unknown(name, KNOWN).partition("; did you mean ")[2]


def test_the_table_has_143_old_names():
    assert len(OLD) == len(old_names()) == 143


@pytest.mark.parametrize("old", OLD)
def test_an_old_name_is_answered_with_the_flag_of_today(old):
    assert suggested(old).startswith(f"{OLD[old]}, its name since OpenRLHF 0.10.2?")


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_name_of_ours_is_refused_with_the_new_one(old, new):
    assert old not in mtp_names()
    assert new in mtp_names()
    assert unknown(old, KNOWN) == f"{old}: unknown key; it is called {new} now"


def test_every_name_of_the_table_is_a_flag_of_the_installed_openrlhf():
    flags = flag_specs()
    targets = [name for row in old_names().values() for name in (row.now, row.also) if name]
    assert [name for name in targets if name not in flags] == []
    assert [
        row.name for row in old_names().values() if not (0, 6) <= row.since <= row.until <= LAST_OLD
    ] == []


@pytest.mark.parametrize(
    "name",
    ["rollout.group_scheduler", "fsdp.tp_size", "fsdp.offload", "teacher.model", "algo.opd.coef"],
)
def test_a_name_of_a_fork_gets_no_far_off_guess(name):
    assert unknown(name, KNOWN) == f"{name}: unknown key"


def test_a_key_in_the_wrong_section_is_shown_where_it_is():
    assert (
        unknown("actor.offload", KNOWN)
        == "actor.offload: unknown key; there are ref.offload and reward.offload"
    )
    assert unknown("ds.path", KNOWN) == "ds.path: unknown key; there is ckpt.path"
    assert "did you mean" not in unknown("train.temperature", KNOWN)


def test_the_named_corrections_of_0_11_0_are_told_with_their_values():
    for name in ("algo.advantage.is_correction_type", "vllm_is_correction_type"):
        assert "tis is level token with mode clip" in unknown(name, KNOWN)


def test_an_old_flag_that_set_two_roles_names_both():
    assert "critic.adam.weight_decay" in unknown("l2", KNOWN)
    assert advice("temperature") == ""


@pytest.mark.parametrize("name", DROPPED)
def test_a_flag_that_openrlhf_dropped_says_why(name):
    assert "OpenRLHF has it no more" in unknown(name, KNOWN)


@given(st.sampled_from(KNOWN), st.data())
def test_one_wrong_letter_finds_the_name_again(name, data):
    at = data.draw(st.integers(0, len(name) - 1))
    slip = name[:at] + "q" + name[at + 1 :]
    assert name in suggested(slip)


def test_a_wrong_letter_for_the_dot_finds_the_name_too():
    assert suggested("mtp.coefficientqkind") == "mtp.coefficient.kind?"


@given(st.one_of(st.sampled_from([*KNOWN, *OLD]), st.text(max_size=40)))
def test_the_name_that_was_given_is_never_suggested(name):
    assert suggested(name).partition("?")[0].partition(",")[0] != name or not name
