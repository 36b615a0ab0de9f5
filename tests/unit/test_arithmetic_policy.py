"""The taught policy that is shipped is what `teach.py` makes: its exam, its shape, its tokenizer, its size."""

import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, Qwen2ForCausalLM

EXAMPLE = Path(__file__).parents[2] / "examples" / "arithmetic"
POLICY = EXAMPLE / "policy"
sys.path.insert(0, str(EXAMPLE))

import byte_tokenizer  # noqa: E402
import teach  # noqa: E402

BAND = teach.TEACHERS[-1]


@pytest.fixture(scope="module")
def record():
    return json.loads((POLICY / "teach.json").read_text())


@pytest.fixture(scope="module")
def policy():
    return Qwen2ForCausalLM.from_pretrained(POLICY, dtype=torch.float32).eval()


def test_it_passes_the_exam_it_is_shipped_with(policy, record):
    # computed, not sampled: only rounding can move it
    problems = teach.exam_problems(teach.EXAM_PROBLEMS, record["seed"])
    measured = teach.accuracy(policy, byte_tokenizer.build(), problems)
    assert measured == pytest.approx(record["exams"][-1]["accuracy"], abs=0.01)
    assert BAND.lowest - 0.01 <= measured <= BAND.highest + 0.01
    assert BAND.lowest <= record["accuracy"] <= BAND.highest


def test_other_weights_fail_the_exam(policy, record):
    tokenizer, problems = byte_tokenizer.build(), teach.exam_problems(64, record["seed"])
    weight = policy.model.layers[1].mlp.down_proj.weight
    with torch.no_grad():
        kept = weight.clone()
        weight.zero_()
        broken = teach.accuracy(policy, tokenizer, problems)
        weight.copy_(kept)
    assert broken < BAND.lowest - 0.01


def test_both_teachers_ended_with_an_exam_they_wanted(record):
    for teacher in teach.TEACHERS:
        assert any(teacher.lowest <= exam["accuracy"] <= teacher.highest for exam in record["exams"])


def test_its_config_is_the_one_that_is_taught(policy):
    built = teach.build_model(byte_tokenizer.build()).config.to_dict()
    shipped = policy.config.to_dict()
    differ = {name for name in built.keys() | shipped.keys() if built.get(name) != shipped.get(name)}
    assert differ <= {"architectures", "dtype", "_name_or_path"}


def test_its_tokenizer_is_the_one_that_is_taught(tmp_path):
    byte_tokenizer.build().save_pretrained(tmp_path)
    built, shipped = (json.loads((place / "tokenizer.json").read_text()) for place in (tmp_path, POLICY))
    assert built == shipped
    loaded = AutoTokenizer.from_pretrained(POLICY)
    assert (loaded.pad_token_id, loaded.eos_token_id) == (0, 1)
    text = "347+285=....\n347+285=..12<eos>"
    assert loaded(text)["input_ids"] == byte_tokenizer.build()(text)["input_ids"]


def test_its_files_are_small_and_tracked_as_binary():
    assert sum(path.stat().st_size for path in POLICY.iterdir()) <= 2.5e6
    assert "*.safetensors binary" in (EXAMPLE.parents[1] / ".gitattributes").read_text()


def test_lessons_without_progress_end_after_a_number_of_batches(monkeypatch):
    monkeypatch.setattr(teach, "BATCH", 1)
    monkeypatch.setattr(teach, "EXAM_PROBLEMS", 2)
    school = teach.School(seed=0, max_batches=3)
    school.exams.append(teach.Exam(1, 0.0, 0.99))  # of a teacher before
    with pytest.raises(
        teach.NothingLearned, match=r"the hasty teacher gave all its 3 batches: accuracy 0\.00 after"
    ):
        school.attend(teach.TEACHERS[1], lambda *_: None)
