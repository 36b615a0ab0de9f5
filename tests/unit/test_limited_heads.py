"""Study 5: its sampler, its losses, its runs and its choice of rates."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

STUDIES = Path(__file__).parents[2] / "examples" / "studies"
sys.path.insert(0, str(STUDIES))

from harness.runs import RunsFailed  # noqa: E402
from harness.study import Place  # noqa: E402
from limited_heads import tuning  # noqa: E402
from limited_heads.losses import top_k_cross_entropy  # noqa: E402
from limited_heads.runs import TOP_K, Recipe, figures, measure, run, slope, train  # noqa: E402
from limited_heads.samples import Samples, Sampling, book_prompts, make_samples  # noqa: E402
from limited_heads.scale import FULL, SMOKE, TEMPERATURES, TRAINED_AT, policy_of  # noqa: E402
from limited_heads.study import OBJECTIVES, STUDY, script  # noqa: E402
from limited_heads.warm_up import out_folder, table  # noqa: E402
from limited_heads.work import run_stages  # noqa: E402
from limited_heads_real.prompts import batches, read_prompts  # noqa: E402
from limited_heads_real.stages import PREPARE  # noqa: E402
from limited_heads_real.study import STUDY as REAL  # noqa: E402
from text.policy import Shape, build_policy  # noqa: E402
from text.sampling import continue_prompts  # noqa: E402
from text.tokenizer import train_bpe  # noqa: E402

from openrlhf_mtp.losses import OBJECTIVES as PRODUCTS  # noqa: E402
from openrlhf_mtp.losses.kernels.projection import Scratch  # noqa: E402
from openrlhf_mtp.losses.targets import top_k  # noqa: E402

TINY = Shape(vocabulary=280, layers=2, width=32, inner=48, heads=4, kv_heads=2, context=64)
SAMPLING = Sampling(parts=3, temperature=1.0, seed=3, new_tokens=13)
PROMPTS = book_prompts(torch.arange(2, 200), SAMPLING, rows=4, width=3)


@pytest.fixture(scope="module")
def policy():
    torch.manual_seed(0)
    tokenizer = train_bpe(["In the beginning"] * 9, vocabulary=280, max_length=64)
    model = build_policy(TINY, tokenizer).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.mul_(4.0 if parameter.ndim == 2 else 1.0)  # distributions that are not all alike
    return model


@pytest.fixture(scope="module")
def samples(policy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    make_samples(folder, policy, SAMPLING, PROMPTS)
    return Samples(folder)


def test_the_sampler_keeps_the_hidden_states_that_the_policy_has(policy):
    prompts = torch.randint(2, 280, (5, 4), generator=torch.Generator().manual_seed(1))
    tokens, hidden = continue_prompts(policy, prompts, 12, temperature=1.0, seed=2)
    expected = policy.model(tokens).last_hidden_state
    torch.testing.assert_close(hidden[:, :-1], expected[:, :-1], rtol=1e-4, atol=1e-4)
    assert torch.equal(tokens[:, :4], prompts)
    assert not hidden[:, -1].any(), "the last token was never fed"


def test_the_sampler_repeats_a_prompt_and_reads_it_once(policy):
    prompts = torch.tensor([[5, 9, 7], [11, 3, 8]])
    tokens, hidden = continue_prompts(policy, prompts, 9, temperature=1.0, seed=2, times=3)
    assert torch.equal(tokens[:, :3], prompts.repeat_interleave(3, dim=0))
    expected = policy.model(tokens).last_hidden_state
    torch.testing.assert_close(hidden[:, :-1], expected[:, :-1], rtol=1e-4, atol=1e-4)
    assert len(tokens.unique(dim=0)) == 6


def test_a_response_ends_with_its_first_end_token_and_rows_are_padded_after_it(policy, tmp_path):
    sampling = replace(SAMPLING, parts=2, times=2)
    widths = (3, 5)
    ends = list(range(2, 60))
    make_samples(tmp_path, policy, sampling, lambda n: torch.arange(2, 2 + widths[n])[None], ends)
    read = Samples(tmp_path)
    assert read.begin.tolist() == [3, 3, 5, 5]
    batch = read.batch(torch.arange(4))
    for row in range(4):
        response = batch.sequences[row][batch.action_mask[row]]
        assert read.tokens[row, read.begin[row] : read.end[row]].tolist() == response.tolist()
        assert not torch.isin(response[:-1], torch.tensor(ends)).any()
        assert len(response) == 13 or response[-1] in ends
    assert read.anchors == int(batch.action_mask.sum()) - 4
    assert torch.equal(batch.attention_mask.sum(1), read.end)


def test_samples_follow_the_policys_distribution(policy):
    prompts = torch.tensor([[5, 9, 7]]).repeat(20_000, 1)
    tokens, _ = continue_prompts(policy, prompts, 4, temperature=0.7, seed=4)
    wanted = (policy(prompts[:1]).logits[0, -1] / 0.7).softmax(-1)
    found = torch.bincount(tokens[:, 3], minlength=280) / 20_000
    # total variation of 20,000 draws from 280 outcomes is at most about (280 / (2 pi 20000))^1/2 = 0.047
    assert (found - wanted).abs().sum() / 2 < 0.06


def test_samples_depend_on_their_seed_alone_and_continue_where_they_were_cut_off(policy, samples, tmp_path):
    make_samples(tmp_path, policy, SAMPLING, PROMPTS)
    (tmp_path / "part_0001.safetensors").unlink()
    make_samples(tmp_path, policy, SAMPLING, PROMPTS)
    again = Samples(tmp_path)
    assert torch.equal(again.tokens, samples.tokens)
    assert torch.equal(again.hidden, samples.hidden)
    assert len(samples.tokens.unique(dim=0)) == 12, "no response twice"


def test_a_folder_of_other_samples_is_refused(policy, tmp_path):
    make_samples(tmp_path, policy, SAMPLING, PROMPTS)
    with pytest.raises(ValueError, match=r"got samples made with .*expected .*choose another --runs"):
        make_samples(tmp_path, policy, replace(SAMPLING, temperature=0.7), PROMPTS)


def test_both_parts_of_the_study_show_the_same_of_a_run():
    """By these names results are stored: a changed one makes a finished study unreadable."""
    names = ["walked", "length", "reach_1", "reach_2", "reach_3", "alpha_1", "alpha_2", "alpha_3", "greedy_1"]
    coolest, warmest = min(TEMPERATURES), max(TEMPERATURES)
    own = [f"walked@{coolest:g}", f"walked@{warmest:g}", "slope"]
    assert [column.name for column in STUDY.columns] == [*names, *own, "lr"]
    assert [column.name for column in REAL.columns] == [*names, "lr"]


@given(st.integers(0, 2**31), st.integers(1, 40))
def test_the_top_k_cross_entropy_is_its_formula_and_blind_to_other_tokens(seed, k):
    rng = torch.Generator().manual_seed(seed)
    draft, target = (3.0 * torch.randn(3, 32, generator=rng, dtype=torch.float64) for _ in range(2))
    found = top_k_cross_entropy(draft, target, k)
    for row in range(3):
        kept = target[row].argsort(descending=True)[:k].tolist()
        p, q = (part[row, kept].exp() / part[row, kept].exp().sum() for part in (target, draft))
        assert found[row].item() == pytest.approx(-(p * q.log()).sum().item())
    outside = torch.ones(3, 32).scatter(1, target.topk(min(k, 32)).indices, 0.0)
    torch.testing.assert_close(top_k_cross_entropy(draft + 7.0 * outside, target, k), found)


def test_the_cut_policys_kl_pushes_other_tokens_down_and_skyrls_cross_entropy_does_not():
    rng = torch.Generator().manual_seed(5)
    draft, target = (torch.randn(3, 32, generator=rng, dtype=torch.float64) for _ in range(2))
    outside = torch.ones(3, 32, dtype=torch.bool).scatter(1, target.topk(8).indices, False)
    draft.requires_grad_()
    (of_skyrl,) = torch.autograd.grad(top_k_cross_entropy(draft, target, 8).sum(), draft)
    cut = top_k(lambda index, _: target[index].clone(), 8)(torch.arange(3), Scratch())
    (of_kl,) = torch.autograd.grad(-(cut.softmax(-1) * draft.log_softmax(-1)).sum(), draft)
    assert (of_skyrl[outside] == 0).all()
    torch.testing.assert_close(of_kl[outside], draft.softmax(-1)[outside])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_trains_a_head_in_one_pass(objective, policy, samples):
    recipe = Recipe(objective, lr=1e-2, seed=1, anchors=6 * 2 * 12, batch=2)
    rows = [row for _, row in train(recipe, policy, samples)]
    assert rows[-1]["step"] == 6
    head = list(train(recipe, policy, samples))[-1][0]
    fresh = next(iter(train(replace(recipe, lr=1e-12), policy, samples)))[0]
    before, after = (figures(measure(policy, each, samples, 1.0))["walked"] for each in (fresh, head))
    assert after > before


def test_a_run_is_a_function_of_its_recipe(policy, samples):
    recipe = Recipe("e2e_tv", lr=1e-3, seed=1, anchors=48, batch=2)
    first, again, other = (
        list(train(each, policy, samples))[-1][0].state_dict()
        for each in (recipe, recipe, replace(recipe, seed=2))
    )
    name = "blocks.0.proj.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])


def test_a_pass_that_would_repeat_responses_is_refused(policy, samples):
    with pytest.raises(ValueError, match="got 144 anchors of 12 responses, expected 168 for one pass"):
        next(iter(train(Recipe("kl", 1e-3, 1, anchors=168, batch=2), policy, samples)))


def test_the_figures_are_those_of_the_walk(policy, samples):
    head = next(iter(train(Recipe("kl", 1e-12, 1, anchors=24, batch=2), policy, samples)))[0]
    found = figures(measure(policy, head, samples, 1.0))
    assert found["length"] == pytest.approx(1.0 + 3.0 * found["walked"])
    assert 1.0 >= found["reach_1"] >= found["reach_2"] >= found["reach_3"] >= 0.0


def test_the_slope_is_in_tokens_of_length_per_nat():
    line = {t: {"entropy": h, "length": 3.0 - 0.5 * h} for t, h in ((0.7, 1.0), (1.0, 2.0), (1.3, 3.5))}
    assert slope(line) == pytest.approx(-0.5)


def test_the_rate_is_chosen_by_the_mean_over_the_pilot_seeds(tmp_path):
    for rate, values in zip(tuning.RATES, ([0.5, 0.5], [0.4, 0.7], [0.6, 0.45]), strict=True):
        for seed, walked in zip(tuning.SEEDS, values, strict=True):
            folder = tuning.pilot_folder(tmp_path, "kl", rate, seed)
            folder.mkdir(parents=True)
            at_it = {str(TRAINED_AT): {"walked": walked}}
            (folder / "measured.json").write_text(json.dumps({"held_out": at_it}))
    tuning.write_rates(tmp_path, ["kl"])
    assert tuning.chosen_rate(tmp_path, "kl") == 1e-3
    assert json.loads((tmp_path / tuning.CHOSEN).read_text())["kl"]["at_an_end"] is False


def test_a_rate_is_not_chosen_before_all_its_pilots_have_run(tmp_path):
    with pytest.raises(FileNotFoundError):
        tuning.write_rates(tmp_path, ["kl"])


def test_the_plan_and_the_study_say_the_same():
    plan = (STUDIES / "limited_heads" / "plan.md").read_text()
    (primary,) = [each for each in STUDY.contrasts if each.role == "primary"]
    assert f"`{primary.arm} − {primary.against}` in walked E/k. Expected sign: **{primary.expected}**" in plan
    assert f"effect of interest: **{primary.least}**" in plan
    for each in STUDY.contrasts:
        assert f"`{each.arm} − {each.against}`" in plan
    for arm in STUDY.arms:
        assert f"`{arm.name}`" in plan
    assert "seeds 1 to 5" in plan
    assert tuple(STUDY.seeds) == (1, 2, 3, 4, 5)
    assert f"{FULL.warm_pool:,} responses, {FULL.warm_anchors:,} anchors, at {tuning.WARM_RATE:g}" in plan
    assert f"{FULL.anchors:,} anchors" in plan
    assert f"{FULL.pool:,} responses of {FULL.new_tokens} tokens" in plan
    assert f"{FULL.steps} steps of 4,096 tokens" in plan
    assert set(OBJECTIVES) - {TOP_K} <= set(PRODUCTS)


def test_every_run_reads_each_response_once():
    for scale in (FULL, SMOKE):
        assert scale.anchors <= scale.pool * (scale.new_tokens - 1)
        assert scale.warm_anchors <= scale.warm_pool * (scale.new_tokens - 1)
        assert {scale.pool % scale.part, scale.tuning % scale.part, scale.held_out % scale.part} == {0}


def test_the_sets_of_responses_are_disjoint_in_their_seeds():
    seeds = [sampling.seed for policy in (1, 2) for sampling in FULL.samples(policy).values()]
    assert len(set(seeds)) == len(seeds) == 2 * (3 + len(TEMPERATURES))


def test_an_a_a_run_has_the_policy_of_its_seed_and_another_order():
    again = next(arm for arm in STUDY.arms if arm.seed_offset)
    place = Place(again.name, 2, Path("runs/limited_heads/e2e_tv_again/seed_2"), smoke=False)
    words = script(again, place, Path("runs"))
    assert words[1:5] == ["run", "e2e_tv", "2", "1002"]
    assert policy_of(2) == 2


class Template:
    """A tokenizer with a chat template, a token a letter."""

    chat_template = "some"

    def apply_chat_template(self, turns, *, tokenize, add_generation_prompt):
        assert add_generation_prompt
        assert not tokenize
        return "".join(f"<{turn['role']}>{turn['content']}" for turn in turns) + "<assistant>"

    def __call__(self, text, *, add_special_tokens):
        assert not add_special_tokens, "the template has them"
        return {"input_ids": [ord(letter) for letter in text]}


def written(path, *inputs):
    path.write_text("".join(json.dumps({"input": each}) + "\n" for each in inputs))
    return path


def test_prompts_of_a_real_model_go_through_its_chat_template(tmp_path):
    turns = [
        {"role": "user", "content": "2+2"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "3"},
    ]
    found = read_prompts(written(tmp_path / "p.jsonl", "hello", turns), Template())
    assert ["".join(map(chr, each)) for each in found] == [
        "<user>hello<assistant>",
        "<user>2+2<assistant>4<user>3<assistant>",
    ]


def test_a_prompt_that_is_no_text_and_no_messages_is_named_by_its_line(tmp_path):
    with pytest.raises(ValueError, match=r"p\.jsonl, line 2: got int, expected a text or messages"):
        read_prompts(written(tmp_path / "p.jsonl", "hello", 7), Template())


def test_prompts_that_are_all_too_long_are_refused():
    with pytest.raises(ValueError, match="got prompts of 3 tokens or more, expected some of at most 2"):
        batches([[1, 2, 3]], most=2, longest=2)


@given(st.lists(st.integers(1, 6), max_size=30), st.integers(1, 4))
def test_every_short_prompt_is_in_one_batch_of_its_length(lengths, most):
    prompts = [[number] * length for number, length in enumerate([1, *lengths])]
    found = batches(prompts, most=most, longest=5)
    assert all(len(batch) <= most for batch in found)
    rows = [tuple(row) for batch in found for row in batch.tolist()]
    assert sorted(rows) == sorted(tuple(prompt) for prompt in prompts if len(prompt) <= 5)


def test_a_failed_piece_of_work_stops_a_study_after_the_others(tmp_path):
    script = tmp_path / "work.py"
    script.write_text(
        "import sys, pathlib; pathlib.Path(sys.argv[3], sys.argv[1]).touch(); sys.exit(sys.argv[1] == 'b')"
    )
    with pytest.raises(RunsFailed, match=r"ended with an error:\nb$"):
        run_stages(script, [["a"], ["b"], ["c"]], tmp_path, smoke=False, parallel=2)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "c", "work.py"}


def test_the_script_that_makes_the_real_policy_takes_what_it_is_given():
    source = PREPARE.read_text()
    for option in ("--policy", "--data", "--train", "--eval"):
        assert f'"{option}"' in source


def test_a_warm_head_goes_on_from_where_it_was(policy, samples, tmp_path):
    policy.save_pretrained(tmp_path / "policy")
    warm = Recipe("kl", lr=1e-2, seed=1, anchors=48, batch=2)
    run(warm, tmp_path / "policy", samples, {1.0: samples}, tmp_path / "warm", keep_head=True)
    still = replace(warm, lr=1e-12)
    run(
        still, tmp_path / "policy", samples, {1.0: samples}, tmp_path / "on", start=tmp_path / "warm" / "head"
    )
    before, after = (
        json.loads((tmp_path / name / "measured.json").read_text())["held_out"]["1.0"]["walked"]
        for name in ("warm", "on")
    )
    assert after == pytest.approx(before, abs=1e-6)


@pytest.mark.parametrize(("walked", "overlap"), [(0.39, 0.6), (0.76, 0.8), (0.5, 0.9)])
def test_heads_that_are_not_limited_stop_the_study(tmp_path, walked, overlap):
    folder = tuning.warm_folder(tmp_path, 1)
    folder.mkdir(parents=True)
    found = {str(TRAINED_AT): {"walked": walked, "alpha_1": overlap}}
    (folder / "measured.json").write_text(json.dumps({"held_out": found}))
    with pytest.raises(
        ValueError, match=r"expected 0\.4 to 0\.75 and below 0\.9; change the policies as plan\.md says"
    ):
        tuning.require_limited(tmp_path, [1])


def test_the_table_of_warm_ups_ends_with_the_studys_own_warm_head(tmp_path):
    folders = {
        out_folder(tmp_path, 0.08, 101): (0.3, 0.5),
        tuning.warm_folder(tmp_path / "limited_heads", 101): (0.6, 0.8),
    }
    for folder, (walked, overlap) in folders.items():
        folder.mkdir(parents=True)
        found = {str(TRAINED_AT): {"walked": walked, "alpha_1": overlap}}
        (folder / "measured.json").write_text(json.dumps({"held_out": found}))
    assert table(tmp_path, [0.08, 0.5], [101]).splitlines()[2:] == [
        "| 0.08 | 101 | 0.300 | 0.500 |",
        "| 1 | 101 | 0.600 | 0.800 |",
    ]
