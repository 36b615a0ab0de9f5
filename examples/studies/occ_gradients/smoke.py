"""Tiny paths in study 6's place: untaught policies that change a little at random, and a head trained for four steps.

Nothing here says anything about OCC. The reward is for an even number of characters, which an untaught policy gets now
and then; it solves no problem.
"""

from collections.abc import Mapping

import torch
import yaml
from replay import before_rl, pool
from replay.recordings import PATHS, Recording, policy_after, step_file
from replay.states import load_policy, save_step, see
from replay.study import Folders
from text.policy import Shape, build_policy
from transformers import PreTrainedTokenizerFast

from occ_gradients.checkpoints import Checkpoint
from occ_gradients.measure import Scale
from occ_gradients.text import sample_groups

SHAPE = Shape(vocabulary=260, layers=2, width=32, inner=48, heads=2, kv_heads=1, context=96)
STEPS, MOVE, TOKENS = 2, 0.02, 12
STAGE = before_rl.Stage(batch=16, batches=2, passes=2, held_out=0)
CHECKPOINTS = tuple(Checkpoint(path, updates) for path in PATHS[:2] for updates in range(STEPS))


def even_length(response: str, label: str) -> float:
    """1 for an even number of characters."""
    return float(len(response) % 2 == 0)


SCALE = Scale(problems=8, each=4, parts=4, held_out=16, held_out_each=4, tokens=TOKENS, reward=even_length)


def make_paths(at: Folders) -> None:
    """Two base policies with a starting head and a path of two steps each, as study 6 lays them out."""
    for path in PATHS[:2]:
        if not step_file(at.path(path) / "states", STEPS).exists():
            _make_path(path, at)


def _make_path(path: Recording, at: Folders) -> None:
    tokenizer, run, base = _tokenizer(), at.path(path) / "run", at.policy(path.policy)
    torch.manual_seed(path.seed)
    model = build_policy(SHAPE, tokenizer)
    run.mkdir(parents=True, exist_ok=True)
    job: Mapping[str, object] = {"actor": {"model_name_or_path": str(base.absolute())}}
    (run / "run.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    for updates in range(STEPS + 1):
        folder = policy_after(run, updates)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * MOVE * parameter.std())
    for step in range(1, STEPS + 1):
        own = policy_after(run, step - 1)
        responses = sample_groups(
            own, count=4, each=4, held_out=False, seed=path.seed + step, tokens=TOKENS, reward=even_length
        )
        save_step(step_file(at.path(path) / "states", step), see(responses, load_policy(own), None))
    train, responses_needed = at.pool(path.policy, "train"), STAGE.batch * STAGE.batches
    pool.fill(train, base, seed=path.seed, responses=responses_needed, tokens=TOKENS)
    before_rl.train(at.heads(path.policy) / "e2e_tv", base, train, "e2e_tv", STAGE, path.seed)


def _tokenizer() -> PreTrainedTokenizerFast:
    import byte_tokenizer

    return byte_tokenizer.build(max_length=SHAPE.context)
