"""The study `replay` on two tiny random policies: its states are the policy's, and a cut walk ends like a whole one."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import Qwen2Config, Qwen2ForCausalLM

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "studies"))

from occ_gradients.checkpoints import follow
from replay import outcome, recordings, refit, study, walk
from replay.arms import ARMS, FAMILIES, HeadArm
from replay.before_rl import Stage, order, train
from replay.learner import Learner, trunk_config
from replay.pool import CHUNK, batch_of, chunk_file
from replay.states import load_step, save_step, see
from replay.weights import row_weights

from openrlhf_mtp.config.settings.objective import ObjectiveSettings
from openrlhf_mtp.config.settings.pretrain import HeadOptim
from openrlhf_mtp.heads.formats.head_folder import load_head
from openrlhf_mtp.losses import OBJECTIVES
from openrlhf_mtp.losses.clipped_policy import clipped_policy
from openrlhf_mtp.losses.mtp_loss import OutputHead, mtp_loss
from openrlhf_mtp.runlog.rollouts import RecordedResponse, write_rollouts
from openrlhf_mtp.runlog.run import read_run

VOCABULARY, WIDTH, STEPS = 48, 32, 3


def policy(seed):
    """A random policy of two layers."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    return Qwen2ForCausalLM(config).eval().requires_grad_(False)


def responses(seed, count=6):
    """Random text: prompts of 3 to 5 tokens, responses of 5 to 14."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high):
        return int(torch.randint(low, high, (1,), generator=generator))

    made = []
    for _ in range(count):
        prompt, length = draw(3, 6), draw(5, 15)
        ids = tuple(torch.randint(2, VOCABULARY, (prompt + length,), generator=generator).tolist())
        reward = float(draw(0, 2))
        made.append(RecordedResponse("", "", ids, ((prompt, prompt + length),), reward, reward - 0.5))
    return made


@pytest.fixture(scope="module")
def seen():
    return see(responses(1), policy(1), policy(2))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A base policy with a starting head, a path of three steps and a pool, as the study lays them out."""
    folder = tmp_path_factory.mktemp("replay")
    policies = [policy(10 + at) for at in range(STEPS + 1)]
    policies[0].save_pretrained(folder / "policy")
    for at in range(STEPS):
        path = recordings.step_file(folder / "states", at + 1)
        save_step(path, see(responses(at), policies[at], policies[at + 1]))
    save_step(chunk_file(folder / "pool", 0), see(responses(9, 24), policies[0], None))
    stage = Stage(batch=6, batches=2, passes=2)
    for start in ("kl", "e2e_tv"):
        train(folder / "heads" / start, folder / "policy", folder / "pool", start, stage, seed=1)
    return folder


ONE_OF_EACH = (
    HeadArm("frozen", "e2e_tv"),
    HeadArm("online", "e2e_tv", "e2e_tv"),
    HeadArm("signed", "e2e_tv", "ce", weighting="signed"),
    HeadArm("oracle", "e2e_tv", "e2e_tv", weighting="oracle"),
    HeadArm("future", "e2e_tv", "e2e_tv", ahead=True),
    HeadArm("still", "kl", "kl", text="still"),
    HeadArm("second", "e2e_tv", "e2e_tv", every=2),
)


def take(place, out, monkeypatch, *, states="states", arms=ONE_OF_EACH):
    monkeypatch.setattr(walk, "SAVE_EVERY", 1)
    monkeypatch.setattr("replay.pool.CHUNK", 24)
    walk.walk_path(
        arms,
        out,
        states=place / states,
        heads=place / "heads",
        still=place / "pool",
        policy=place / "policy",
        rate=1e-3,
    )
    return {arm.name: read_run(out / arm.name).rows for arm in arms}


def test_the_states_are_those_of_each_response_alone(seen):
    model = policy(1)
    for row, each in enumerate(responses(1)):
        alone = model.base_model(input_ids=torch.tensor([each.ids])).last_hidden_state[0]
        kept = seen.batch().hidden[row, : len(each.ids)]
        torch.testing.assert_close(kept, alone, atol=1e-5, rtol=1e-4)


def test_a_step_comes_back_from_its_file_and_some_of_its_rows_are_those_rows(seen, tmp_path):
    save_step(tmp_path / "step", seen)
    back = load_step(tmp_path / "step")
    torch.testing.assert_close(back.batch(ahead=True).hidden, seen.batch(ahead=True).hidden)
    chosen = torch.tensor([4, 1])
    some, width = back.rows(chosen), int(seen.present[chosen].sum(1).max())
    torch.testing.assert_close(some.batch().hidden, seen.batch().hidden[chosen, :width])
    assert some.tokens == int(seen.actions[chosen].sum())


def test_divergence_and_ratio_are_those_of_a_loop_over_tokens(seen):
    own, ahead = policy(1).double(), policy(2).double()
    total, tokens, ratios = 0.0, 0, []
    for each in responses(1):
        ids = torch.tensor([each.ids])
        p, q = (model(input_ids=ids).logits[0].log_softmax(-1) for model in (own, ahead))
        start, end = each.sampled[0]
        ratios.append(sum(float(q[t - 1, ids[0, t]] - p[t - 1, ids[0, t]]) for t in range(start, end)))
        for t in range(start, end):
            total += float((p[t - 1].exp() * (p[t - 1] - q[t - 1])).sum())
            tokens += 1
    assert seen.divergence(seen.own, seen.ahead) == pytest.approx(total / tokens, rel=1e-4)
    assert seen.log_ratio().tolist() == pytest.approx(ratios, abs=1e-4)


def test_weights_keep_the_total_unless_they_are_signed(seen):
    counts = torch.tensor([1.0, 2, 3, 4, 5, 6])
    for weighting in ("positive", "exponential_1", "exponential_4", "oracle"):
        weights = row_weights(weighting, seen, counts)
        assert float((weights * counts).sum()) == pytest.approx(float(counts.sum()), rel=1e-5)
    ratio = seen.log_ratio().exp()
    oracle = row_weights("oracle", seen, counts)
    torch.testing.assert_close(oracle / oracle[0], ratio / ratio[0])
    assert row_weights("signed", seen, counts).tolist() == seen.advantages.tolist()
    assert row_weights("mixed", seen, counts).tolist() == (1 + seen.advantages).tolist()
    assert row_weights("none", seen, counts) is None


def head_gradient(place, step, objective, weights):
    """Of the starting head on a step, flat."""
    head = load_head(
        place / "heads/e2e_tv/head", trunk_config(place / "policy"), dtype=torch.float32, device="cpu"
    )
    batch = step.batch()
    anchors = batch.anchors(3, fraction=1.0, seed=0)
    reads = [torch.nn.functional.embedding(tokens, step.own.embedding) for tokens in anchors.reads]
    states = head(batch.hidden, reads, batch.position_ids, batch.segment_ids, 3, anchors.grid)
    output = OutputHead.of(step.own.output, 1.0)
    mtp_loss(states, anchors, batch.targets, output, objective, row_weight=weights).loss_sum.backward()
    return torch.cat([parameter.grad.flatten() for parameter in head.parameters()])


def test_hard_labels_weighted_by_the_advantage_are_the_clipped_policy_loss_at_its_first_update(seen, place):
    weighted = head_gradient(place, seen, OBJECTIVES["ce"], seen.advantages)
    anchors = seen.batch().anchors(3, fraction=1.0, seed=0)
    clipped = head_gradient(place, seen, clipped_policy(seen.advantages[anchors.row]), None)
    torch.testing.assert_close(weighted, clipped)


def test_every_batch_of_a_pass_is_trained_on_once_and_the_last_ones_never():
    stage = Stage(batch=4, batches=7, passes=3)
    for current in range(3):
        assert sorted(order(stage, 5, current * 7 + at) for at in range(7)) == list(range(7))
    assert [order(stage, 5, at) for at in range(7)] != [order(stage, 5, 7 + at) for at in range(7)]


def test_batches_of_a_pool_are_different_responses(place, monkeypatch):
    monkeypatch.setattr("replay.pool.CHUNK", 24)
    first, second = (batch_of(place / "pool", number, 6) for number in (0, 3))
    assert first.sequences[0, :4].tolist() == list(responses(9, 24)[0].ids[:4])
    assert second.sequences[0, :4].tolist() == list(responses(9, 24)[18].ids[:4])
    assert CHUNK % 64 == 0, "a batch of 64 does not cross a file"


def test_arms_differ_as_their_fields_say(place, tmp_path, monkeypatch):
    rows = take(place, tmp_path, monkeypatch)
    lengths = {name: [row["mtp/replayed_length"] for row in arm] for name, arm in rows.items()}
    assert all(len(series) == STEPS for series in lengths.values())
    first = {lengths[name][0] for name in lengths if name != "still"}
    assert len(first) == 1, "measured before it learns: all heads of one start agree on the first step"
    learner = Learner.load(
        place / "heads" / "kl" / "head", trunk_config(place / "policy"), ObjectiveSettings(), HeadOptim()
    )
    scored = learner.score(load_step(recordings.step_file(place / "states", 1)))
    assert scored["mtp/replayed_length"] == lengths["still"][0]
    assert lengths["second"][1] == lengths["frozen"][1]
    assert lengths["second"][2] != lengths["frozen"][2]
    assert len({lengths[name][1] for name in ("frozen", "online", "signed", "oracle", "future")}) == 5
    assert "mtp/grad_norm" not in rows["frozen"][0]
    assert rows["online"][0]["mtp/grad_norm"] > 0


def test_a_walk_that_was_cut_off_ends_like_a_whole_one(place, tmp_path, monkeypatch):
    arms = [arm for arm in ONE_OF_EACH if arm.name in ("frozen", "online", "second")]
    whole = take(place, tmp_path / "whole", monkeypatch, arms=arms)
    short = place / "short"
    shutil.copytree(place / "states", short, dirs_exist_ok=True)
    recordings.step_file(short, STEPS).unlink()
    take(place, tmp_path / "cut", monkeypatch, states="short", arms=arms)
    for arm in arms:
        (tmp_path / "cut" / arm.name / walk.DONE).unlink()  # it had not known that this was no end
    assert take(place, tmp_path / "cut", monkeypatch, arms=arms) == whole


def test_the_head_of_a_checkpoint_is_that_of_the_online_arm_after_as_many_steps(place, tmp_path, monkeypatch):
    take(place, tmp_path, monkeypatch, arms=[HeadArm("online_e2e_tv", "e2e_tv", "e2e_tv")])
    steps = [recordings.step_file(place / "states", step) for step in range(1, STEPS + 1)]
    follow(place / "policy", place / "heads" / "e2e_tv" / "head", steps, tmp_path / "head", rate=1e-3)
    walked = torch.load(tmp_path / "online_e2e_tv" / "state.pt", weights_only=False)["head"]
    head = load_head(tmp_path / "head", trunk_config(place / "policy"), dtype=torch.float32, device="cpu")
    for name, tensor in head.state_dict().items():
        torch.testing.assert_close(tensor, walked[name], rtol=0, atol=0)


@pytest.fixture
def recorded_run(tmp_path):
    """A run folder as `record` leaves it: rollouts and policies of three steps."""
    run = tmp_path / "run"
    policies = [policy(20 + at) for at in range(STEPS + 1)]
    policies[0].save_pretrained(tmp_path / "policy")
    for at, each in enumerate(policies[1:], start=1):
        write_rollouts(run, at, responses(at))
        each.save_pretrained(run / "checkpoints" / f"global_step{at}_hf")
    (run / "run.yaml").write_text(yaml.safe_dump({"actor": {"model_name_or_path": str(tmp_path / "policy")}}))
    return run, policies


def test_states_are_of_the_policy_that_sampled_and_of_the_next(recorded_run, tmp_path, monkeypatch):
    monkeypatch.setattr(recordings, "KEEP_EVERY", 2)
    run, policies = recorded_run
    states = tmp_path / "states"
    recordings.extract(run, states, keep=[1])
    for at in range(STEPS):
        found, wanted = (
            load_step(recordings.step_file(states, at + 1)),
            see(responses(at + 1), policies[at], policies[at + 1]),
        )
        torch.testing.assert_close(found.batch().hidden, wanted.batch().hidden)
        torch.testing.assert_close(found.batch(ahead=True).hidden, wanted.batch(ahead=True).hidden)
    left = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert left == ["global_step1_hf", "global_step2_hf"], "those asked for, and every KEEP_EVERY-th"
    first, *_, last = recordings.drift(states)
    assert first["kl_start"] == pytest.approx(0.0, abs=1e-6), "the first rollout is the first policy's"
    assert last["kl_start"] > 0
    assert first["kl_step"] > 0


def test_extraction_that_was_cut_off_goes_on(recorded_run, tmp_path, monkeypatch):
    run, _ = recorded_run
    states, whole = tmp_path / "states", tmp_path / "whole"
    kept = recordings.save_step

    def cut(path, step):
        if path.name.endswith("3.safetensors"):
            raise KeyboardInterrupt
        kept(path, step)

    with monkeypatch.context() as patch:
        patch.setattr(recordings, "save_step", cut)
        with pytest.raises(KeyboardInterrupt):
            recordings.extract(run, states)
    shutil.copytree(run, tmp_path / "again")
    recordings.extract(tmp_path / "again", whole)
    recordings.extract(run, states)
    assert recordings.drift(states) == recordings.drift(whole)
    names = [sorted(path.name for path in folder.iterdir()) for folder in (states, whole)]
    assert names[0] == names[1]


def test_the_replay_is_compared_with_the_engine_step_by_step(tmp_path):
    rows = {
        "run": [
            {"step": 0, "eval/accuracy": 0.1},
            *(
                {"step": at, "spec/mean_acceptance_length": 2.0 + at, "mtp/replayed_length": 2.1 + at}
                for at in (1, 2)
            ),
        ],
        "arm": [{"step": at, "mtp/replayed_length": 2.1 + at} for at in (1, 2, 3)],
    }
    for name, lines in rows.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    found = outcome.agreement(tmp_path / "run", tmp_path / "arm")
    assert (found["steps"], found["engine"]) == (2, 3.5)
    assert found["replay_minus_engine"] == pytest.approx(0.1)
    assert found["largest_replay_minus_trainer"] == pytest.approx(0.0)


def test_a_refit_starts_afresh_where_the_run_saved_its_head(recorded_run, place, tmp_path, monkeypatch):
    monkeypatch.setattr("replay.pool.CHUNK", 24)
    run, _ = recorded_run
    states, out = tmp_path / "states", tmp_path / "arms" / "refit_bound"
    shutil.copytree(place / "heads" / "kl" / "head", recordings.policy_after(run, 1) / "mtp")
    recordings.extract(run, states, keep=[1])
    shutil.copytree(place / "pool", out / "after_1" / "pool")
    stage = Stage(batch=6, batches=2, passes=1)
    refit.refit_path(out, run=run, states=states, after=[1], stage=stage, tokens=4, seed=1)
    (row,) = read_run(out).rows
    assert row["step"] == 2, "the rollout that the refitted policy sampled"
    refitted, live = (
        load_head_of(folder) for folder in (out / "after_1" / "head", place / "heads" / "kl" / "head")
    )
    assert not refitted.equal(live)


def load_head_of(folder):
    return load_file(folder / "model.safetensors")["model.blocks.0.proj.weight"]


def test_an_arm_comes_to_means_over_thirds(tmp_path):
    arm = tmp_path / "online"
    arm.mkdir()
    rows = [{"step": step, "mtp/replayed_length": 2.0 + step / 10} for step in range(1, 10)]
    (arm / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = outcome.measure(outcome.Place("online", 1, arm, smoke=False), steps=9)
    assert values["length/early"] == pytest.approx(2.2)
    assert values["length/late"] == pytest.approx(2.8)
    assert values["length/growth"] == pytest.approx(0.6)
    assert values["rate/late"] == pytest.approx(0.6)


def test_the_change_is_split_at_the_steps_that_have_a_refit(tmp_path):
    lengths = {"online": {at: 2.0 + at / 10 for at in range(1, 10)}, "refit_bound": {2: 3.0, 7: 3.2, 9: 3.4}}
    for arm, by_step in lengths.items():
        (tmp_path / arm).mkdir()
        rows = [{"step": step, "mtp/replayed_length": length} for step, length in by_step.items()]
        (tmp_path / arm / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "refit_bound" / walk.DONE).write_text("{}")
    online, bound = (
        outcome.measure(outcome.Place(arm, 1, tmp_path / arm, smoke=False), steps=9) for arm in lengths
    )
    assert online["length/at_refits"] == pytest.approx(2.8)
    assert bound["length/at_refits"] == pytest.approx(3.3)
    assert online["split/intrinsic"] == bound["split/intrinsic"] == pytest.approx(0.3)
    assert online["split/lag"] == pytest.approx((2.8 - 2.2) - 0.3)
    assert bound["split/lag"] == pytest.approx(0.0)


def test_the_job_file_and_the_study_have_the_same_sizes():
    job = yaml.safe_load(recordings.JOB.read_text())
    rollout, full = job["rollout"], study.FULL
    assert (rollout["batch_size"], rollout["n_samples_per_prompt"]) == (full.prompts, full.responses)
    assert job["train"]["batch_size"] == full.prompts * full.responses, "one update a rollout"
    assert (rollout["max_new_tokens"], job["mtp"]["optim"]["lr"]) == (full.tokens, full.rate)
    assert max(full.refits) < full.steps


def test_the_plan_names_arms_that_there_are_and_one_primary_contrast():
    names = {arm.name for arm in ARMS} | {"refit_bound"}
    assert len(ARMS) == len({arm.name for arm in ARMS})
    for family in FAMILIES.values():
        assert {name for each in family for name in (each.arm, each.against)} <= names
        assert [each.role for each in family].count("primary") == 1
    assert len(recordings.PATHS) >= 5
    assert len({path.policy for path in recordings.PATHS}) == 2
