"""The table of `bench head`, and that its forms compute something at a toy size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rich.console import Console

from openrlhf_mtp.bench.head import Result, bench_head, render
from openrlhf_mtp.bench.head_forms import FORMS, IN_SLICES, Shape, attention, forms_on
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.heads import flash

TOY = Shape(hidden=512, vocab=64, depths=2)
NOTE = {
    "hidden": 4096,
    "vocab": 151_936,
    "depths": 3,
    "dtype": "bfloat16",
    "device": "a GPU",
    "torch": "2.13.0",
}


def test_a_row_has_the_median_the_rate_and_the_bytes_of_a_token() -> None:
    results = [
        Result("chain", 8192, (0.2, 0.1, 0.4), 8192 * 4096 * 24),
        Result("step", 32_768, problem="out of memory"),
    ]
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render(results, NOTE))
    text = console.export_text()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]
    assert ["chain", "8,192", "0.200", "40,960", "768", "24"] in rows
    assert ["step", "32,768", *"----"] in rows
    assert "step, 32,768: out of memory" in text


@pytest.mark.parametrize("form", FORMS)
def test_a_form_can_run_again(form: str) -> None:
    torch.manual_seed(0)
    run = FORMS[form](TOY, 24)
    run()
    run()


def test_attention_in_slices_leaves_flash_attention_out_and_is_measured_on_a_gpu_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def attend(q: torch.Tensor, *_: object) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append(1)
        return q.clone(), q.new_zeros(q.shape[:-1])

    monkeypatch.setattr(flash, "takes", lambda _: True)
    monkeypatch.setattr(flash, "attend", attend)
    FORMS[IN_SLICES](TOY, 24)()
    assert asked == []
    with pytest.raises(RuntimeError, match="_flash_attention_backward"):  # no CPU has it
        attention(TOY, 24)()
    assert asked == [1]
    assert set(forms_on("cuda")) - set(forms_on("cpu")) == {IN_SLICES}


def test_a_width_without_whole_groups_of_heads_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="--hidden: got 640, expected a multiple of 512"):
        bench_head(tmp_path, Shape(hidden=640), [16], 1)
