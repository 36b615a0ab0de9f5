"""What `bench sync` makes of its turns: ratios by turn, shares, and the table; its rounds are in tests/engine."""

from types import SimpleNamespace

import pytest

from openrlhf_mtp.bench.harness import Runs
from openrlhf_mtp.bench.sync import (
    OPENRLHF,
    Turn,
    our_forms,
    processor_seconds,
    render,
    render_parts,
    to_json,
    verification,
)
from openrlhf_mtp.bench.sync_setup import CountedHandle, Counter, Workload

PARTS = {"pack": 0.1, "broadcast": 0.2, "engine": 0.3, "verify": 0.1}
TURNS = {
    OPENRLHF: Runs((Turn(9, 8.0, 580), Turn(9, 4.0, 580), Turn(9, 6.0, 580))),
    "gloo": Runs((Turn(3, 2.0, 2, 1.0, PARTS), Turn(3, 1.0, 2, 1.0, PARTS), Turn(3, 1.0, 2, 1.0, PARTS))),
    "gloo, verified": Runs(
        (Turn(5, 2.2, 2, 1.1, PARTS), Turn(5, 1.4, 2, 1.1, PARTS), Turn(5, 1.2, 2, 1.2, PARTS))
    ),
}
NOTE = {"tensors": 290, "bytes": 2e8, "engines": 2, "device": "CPU"}


def test_ratios_are_paired_by_turn():
    record = to_json(TURNS, NOTE)
    assert record["forms"]["gloo"]["openrlhf_over_it"] == (4.0, 4.0, 6.0)
    assert record["forms"][OPENRLHF]["calls"] == [580] * 3
    assert verification(TURNS)["gloo"].middle == pytest.approx(1.2)
    assert record["verified_over_plain"]["gloo"] == pytest.approx((1.2, 1.1, 1.4))
    assert record["verified_over_plain_processor"]["gloo"] == pytest.approx((1.1, 1.1, 1.2))


def test_the_table_has_a_row_for_each_form():
    assert render(TURNS, NOTE).row_count == len(TURNS)
    assert render_parts(TURNS).row_count == 2, "ours; OpenRLHF reports no parts"


def test_seconds_of_the_processors_are_those_of_this_process_and_its_children():
    before = processor_seconds()
    sum(number * number for number in range(3_000_000))
    assert 0.02 < processor_seconds() - before < 60


def test_every_form_of_ours_names_its_transport_and_whether_it_verifies():
    assert {name: (s.backend, s.verify_every) for name, s in our_forms().items()} == {
        "gloo": ("gloo", 0),
        "gloo, verified": ("gloo", 1),
        "ipc": ("ipc", 0),
        "ipc, verified": ("ipc", 1),
    }


def test_the_default_policy_has_more_than_two_hundred_tensors():
    assert Workload().tensors == 290


def test_calls_are_counted_and_go_through():
    counter, seen = Counter(), list[int]()
    handle = CountedHandle(SimpleNamespace(update=SimpleNamespace(remote=seen.append)), counter)
    for number in (1, 2):
        handle.update.remote(number)
    assert (seen, counter.drain(), counter.drain()) == ([1, 2], 2, 0)
