"""A head against its policy on the held-out responses of its run, anchor by anchor, in plain PyTorch.

This shares with the trainer only the head and the alignment, so that it also checks the trainer's own figures. With
p_j the policy's distribution that depth j is compared with and q_j the head's, per anchor and depth:

    sampled    alpha_j = sum_v min(p_j, q_j)      what a draft drawn from q_j is accepted with
    greedy     p_j(argmax q_j)                    what the head's most probable token is accepted with
    length     1 + sum_j prod_{i <= j} alpha_i    over the anchors that have all depths; the same with greedy
    rate       (length - 1) / k                   accepted over drafted tokens, if every anchor were drafted from
    walked     accepted over drafted tokens along the path that an engine takes through the text

`walked` is the figure to compare with a paper's acceptance rate, and with `spec/acceptance_rate` of a run: an engine
drafts next where its last draft ended (`losses.replayed_acceptance`).
"""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch.nn.functional import embedding
from transformers import AutoModelForCausalLM

from harness.study import Place, Values
from openrlhf_mtp.heads.formats.head_folder import load_head
from openrlhf_mtp.losses.alignment import find_anchors, next_tokens
from openrlhf_mtp.losses.replayed_acceptance import replay_acceptance
from openrlhf_mtp.training.pretrain.batches import collate
from openrlhf_mtp.training.pretrain.responses import Response, read_responses, split_by_prompt

BATCH = 64
ANCHORS = "heldout.npz"
"""Kept in the run's folder: measuring is not free, and study 2 reads it."""


@dataclass(frozen=True)
class Acceptance:
    """Per anchor and depth; NaN where the depth does not count.

    Attributes:
        entropy: of p_j, in nats [N, k].
        sampled: alpha_j [N, k].
        greedy: p_j(argmax q_j) [N, k].
        sampled_given: chance that a sampled draft was accepted, given the token x of the text,
            min(1, q(x) / p(x)) [N, k].
        greedy_given: the same of a greedy draft, 1 where argmax q_j is x [N, k].
        tokens: the token x that the policy sampled from p_j [N, k]; any where the depth does not count.
        response: number of the response that the anchor is in [N].
        place: the anchor's position in its padded sequence [N].
    """

    entropy: NDArray[np.float32]
    sampled: NDArray[np.float32]
    greedy: NDArray[np.float32]
    sampled_given: NDArray[np.float32]
    greedy_given: NDArray[np.float32]
    tokens: NDArray[np.int64]
    response: NDArray[np.int64]
    place: NDArray[np.int64]


def of_run(place: Place) -> Acceptance:
    """The acceptance of a finished pre-RL stage's head, measured once."""
    kept = place.folder / ANCHORS
    if not _is_whole(kept):
        job = yaml.safe_load((place.folder / "run.yaml").read_text(encoding="utf-8"))
        settings = job["mtp"]["pretrain"]
        responses = list(read_responses(place.folder / "responses"))
        _, held_out = split_by_prompt(responses, settings["holdout_fraction"])
        measured = acceptance(
            Path(job["actor"]["model_name_or_path"]),
            place.folder / "head",
            held_out,
            depths=job["mtp"]["depths"],
            temperature=settings["temperature"] or job["rollout"].get("temperature", 1.0),
        )
        np.savez_compressed(kept, **vars(measured))
    with np.load(kept) as stored:
        return Acceptance(**stored)


def _is_whole(kept: Path) -> bool:
    """Whether a file holds all that is measured today."""
    if not kept.exists():
        return False
    with np.load(kept) as stored:
        return set(stored.files) == {field.name for field in fields(Acceptance)}


@torch.no_grad()
def acceptance(
    policy: Path, head: Path, responses: list[Response], *, depths: int, temperature: float
) -> Acceptance:
    """Measure a head on responses, in float32 whatever the checkpoints' precision."""
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32).eval()
    chain = load_head(head, model.config, dtype=torch.float32, device="cpu").eval()
    pieces = []
    for at in range(0, len(responses), BATCH):
        batch = collate(responses[at : at + BATCH], model.config.pad_token_id)
        segments = batch.attention_mask
        hidden = model.model(batch.sequences, attention_mask=segments).last_hidden_state
        read = next_tokens(batch.sequences, depths)
        positions = (segments.cumsum(-1) - 1).clamp(min=0)
        embedded = [embedding(read[..., j], model.get_input_embeddings().weight) for j in range(depths)]
        states = torch.stack(chain(hidden, embedded, positions, segments, depths), dim=2)  # [B, T, k, H]
        anchors = find_anchors(batch.sequences, batch.action_mask, segments, depths)
        draft = (model.lm_head(states.flatten(0, 1)[anchors.index]) / temperature).softmax(-1)
        target = (model.lm_head(hidden.flatten(0, 1)[anchors.target_index]) / temperature).softmax(-1)
        best, token = draft.argmax(-1), anchors.tokens.clamp(min=0)[..., None]
        values = (
            -torch.special.xlogy(target, target).sum(-1),
            torch.minimum(target, draft).sum(-1),
            target.gather(-1, best[..., None]).squeeze(-1),
            (draft.gather(-1, token) / target.gather(-1, token)).squeeze(-1).clamp(max=1.0),
            (best == anchors.tokens).float(),
        )
        kept = [value.masked_fill(~anchors.mask, torch.nan).numpy() for value in values]
        row, place = anchors.index // batch.sequences.shape[1], anchors.index % batch.sequences.shape[1]
        pieces.append([*kept, anchors.tokens.numpy(), (at + row).numpy(), place.numpy()])
    return Acceptance(*(np.concatenate(field) for field in zip(*pieces, strict=True)))


def summary(measured: Acceptance) -> Values:
    """Means over the anchors: acceptance by depth and in all, length and rates, for both ways to draft."""
    values: Values = {"entropy": float(np.nanmean(measured.entropy))}
    for name, accepted in (("sampled", measured.sampled), ("greedy", measured.greedy)):
        depths = accepted.shape[1]
        for j in range(1, depths + 1):
            values[f"{name}/depth_{j}"] = float(np.nanmean(accepted[:, j - 1]))
        values[f"{name}/mean"] = float(np.mean([values[f"{name}/depth_{j + 1}"] for j in range(depths)]))
        length = 1.0 + float(expected_accepted(accepted).mean())
        values |= {f"{name}/length": length, f"{name}/rate": (length - 1.0) / depths}
        values |= {f"{name}/{key}": value for key, value in walked(measured, name).items()}
    return values


def expected_accepted(accepted: NDArray[np.float32]) -> NDArray[np.float64]:
    """sum_j prod_{i <= j} of each anchor that has all depths: [N, k] -> [those]."""
    whole = accepted[~np.isnan(accepted).any(1)].astype(np.float64)
    summed: NDArray[np.float64] = np.cumprod(whole, axis=1).sum(1)
    return summed


def walked(measured: Acceptance, way: str) -> Values:
    """What an engine would count that drafts the text in this way.

    Args:
        measured: a head on its responses.
        way: "sampled" or "greedy".

    Returns:
        `walked`: accepted over drafted tokens; `walked_length`: tokens per target forward; `reach_j`: the share of
        drafts that are accepted through depth j.
    """
    given = torch.from_numpy(vars(measured)[f"{way}_given"])
    apart = int(measured.place.max()) + 2  # so that no two responses touch
    index = torch.from_numpy(measured.response * apart + measured.place)
    counts = replay_acceptance(given.nan_to_num(), ~given.isnan(), index)
    reach = (counts.reached / counts.drafts).tolist()
    by_depth = {f"reach_{j}": share for j, share in enumerate(reach, start=1)}
    return {"walked": sum(reach) / len(reach), "walked_length": 1.0 + sum(reach), **by_depth}
