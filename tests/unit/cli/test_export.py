"""`openrlhf-mtp equip` and `export` on a checkpoint that brings its own head."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from openrlhf_mtp.cli.export import SHOWN, table
from openrlhf_mtp.cli.main import app
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.heads.formats.accounting import Planned
from openrlhf_mtp.heads.formats.shards import StoredTensor
from tests.natives import write_native_checkpoint
from tests.unit.heads.tiny import SIZES


@pytest.fixture
def equipped(tmp_path: Path) -> Path:
    write_native_checkpoint(tmp_path / "source", "mimo", SIZES)
    result = CliRunner().invoke(app, ["equip", str(tmp_path / "source"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "the checkpoint's own, layout mimo" in result.output
    return tmp_path / "out"


def test_an_export_says_what_it_wrote(equipped: Path, tmp_path: Path) -> None:
    out = tmp_path / "native"
    result = CliRunner().invoke(app, ["export", str(equipped), "--format", "native", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "model.mtp_layers.0.input_proj.weight" in result.output
    text = " ".join(result.output.split())
    assert f"{out / 'model-mtp.safetensors'}: 16 tensors" in text
    assert f"list: {out / 'export.json'}" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--format", "merged", "--published", "x"],
            "--published: got x with format merged, expected native",
        ),
        (["--format", "onnx"], "got 'onnx', expected one of native, draft-folder, merged"),
        (["--format", "merged", "--head", "nowhere"], "nowhere/config.json: no MTP head there"),
    ],
)
def test_what_cannot_be_exported_is_a_user_error(
    equipped: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    result = CliRunner().invoke(app, ["export", str(equipped), *words, "--out", str(tmp_path / "x")])
    assert isinstance(result.exception, JobError)
    assert message in str(result.exception)


def test_a_head_with_hundreds_of_tensors_is_cut_off_in_the_table_alone() -> None:
    tensors = [Planned("f", f"t{n}", StoredTensor((1,), "F32"), "head") for n in range(SHOWN + 5)]
    rows = table(tensors)
    assert rows.row_count == SHOWN + 1
    assert list(rows.columns[0].cells)[-1] == "and 5 more"
