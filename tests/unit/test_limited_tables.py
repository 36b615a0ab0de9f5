"""The script behind the tables of limited heads in docs/losses.md: it counts what an engine accepts, finds optima."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))

import limited_tables
from limited_tables import FORMS, OBJECTIVES, Tables, mean_squares, optima, value

DOCS = Path(__file__).parents[2] / "docs"


def accepted(tables, head):
    """Drafts that rejection sampling accepts: token by token along every draft, not along the text."""
    pairs = [(p.exp(), q.exp()) for p, q in zip(tables.log_p, tables.drafts(head), strict=True)]
    total = 0.0
    for p, q in reversed(pairs):
        drafted = torch.minimum(*torch.broadcast_tensors(p, q))
        total = (drafted * (1 + total)).sum(-1)
    return total.mean()


@pytest.mark.parametrize("depths", [1, 2, 3])
def test_the_value_is_what_rejection_sampling_accepts(depths):
    tables = Tables.draw(1.0, 3, depths)
    rng = torch.Generator().manual_seed(depths)
    head = [torch.randn(part.shape, generator=rng).double() for part in tables.cold_head()]
    torch.testing.assert_close(value("e2e_tv_sampled", tables, head), accepted(tables, head))
    torch.testing.assert_close(value("prefix held", tables, head), accepted(tables, head))


def test_the_optima_come_in_the_order_of_the_table():
    found = optima(2.0, (0,), 2, steps=60)
    values = [found[name] for name in OBJECTIVES]
    assert values == sorted(values)
    assert values[-1] > values[0] + 0.05
    assert 0.4 < found["overlap at depth 1"] < 0.6


def test_the_control_variate_halves_the_square_of_a_good_heads_gradient():
    found = mean_squares(0.1, 0, texts=2000, steps=60)
    plain, controlled = found["no control variate"], found["e2e_tv_sampled"]
    assert found["overlap at depth 1"] > 0.8
    assert controlled < 0.75 * plain
    assert found["e2e_tv"] == pytest.approx(controlled, rel=0.2)


def test_the_command_prints_every_row(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["limited_tables.py", "--steps", "3", "--texts", "20"])
    limited_tables.main()
    said = capsys.readouterr().out
    for name in OBJECTIVES + FORMS:
        assert f"  {name} " in said
