"""The joint term a second time, from its definition: full logits, loops over samples and tokens, no chunks."""

from __future__ import annotations

from typing import Any

from tests.engine.joint_cases import DEPTHS


def reference_log_probs(
    head: Any,
    experience: Any,
    entries: tuple[Any, Any, Any],
    temperature: float,
    share: set[tuple[int, int]] | None,
) -> tuple[Any, Any]:
    """log q^j(x_t) in column t - 1 and where it exists, [k, B, T - 1] each, by the definition of the masks."""
    import torch

    hidden, table, weight = entries
    tokens, attention = experience.sequences, experience.attention_mask.long()
    batch, length = tokens.shape
    if hidden.shape[:2] != tokens.shape:  # packed
        rows = hidden.new_zeros(batch * length, hidden.shape[-1])
        hidden = rows.index_put((attention.flatten().nonzero().flatten(),), hidden[0]).view(batch, length, -1)
    positions = (attention.cumsum(-1) - 1).clamp(min=0)
    ahead = [torch.nn.functional.embedding(tokens.roll(-j, 1), table) for j in range(1, DEPTHS + 1)]
    fixed = {name: p.detach() for name, p in head.named_parameters()}
    states = torch.func.functional_call(head, fixed, (hidden, ahead, positions, attention, DEPTHS))
    action = torch.nn.functional.pad(experience.action_mask.bool(), (1, 0))
    values = hidden.new_zeros(DEPTHS, batch, length - 1)
    mask = torch.zeros(DEPTHS, batch, length - 1, dtype=torch.bool)
    for j in range(1, DEPTHS + 1):
        log_q = (states[j - 1] @ weight.T / temperature).log_softmax(-1)
        for b in range(batch):
            for i in range(length - j - 1):
                if action[b, i + 1 : i + j + 2].all() and (share is None or (b, i) in share):
                    mask[j - 1, b, i + j] = True
                    values[j - 1, b, i + j] = log_q[b, i, tokens[b, i + j + 1]]
    return values, mask


def occ_terms(log_probs: Any, old: Any, values: Any, mask: Any, action: Any) -> tuple[Any, Any]:
    """What a micro-batch adds to OCC's sums and to the public code's, token by token from their definitions."""
    paper = [[0.0] * DEPTHS for _ in range(3)]
    for j, b, t in mask.nonzero().tolist():
        rl, mtp = (float(new[b, t]) - float(old[b, t]) for new in (log_probs, values[j]))
        for row, add in zip(paper, (rl * mtp, mtp * mtp, 1.0), strict=True):
            row[j] += add
    ratio = 0.0
    for b, t in (mask[0] & action.bool()).nonzero().tolist():
        rl, mtp = (float(new[b, t]) - float(old[b, t]) for new in (log_probs, values[0]))
        ratio += rl * mtp / (mtp * mtp + 1e-8)
    return paper, [ratio, float(len(action) * action.sum(1).max())]


def advantage_weights(experience: Any, micro_batches: list[Any]) -> Any:
    """sigmoid(a) [B], over its mean over all tokens that the depths predict in the optimizer step."""
    import torch

    def weight(one: Any) -> Any:
        mask = one.action_mask
        return torch.sigmoid((one.advantages * mask).sum(1) / mask.sum(1))

    def predicted(one: Any) -> Any:
        return sum((one.action_mask.sum(1) - depth).clamp(min=0) for depth in range(1, DEPTHS + 1))

    total = sum((weight(one) * predicted(one)).sum() for one in micro_batches)
    return weight(experience) * sum(predicted(one).sum() for one in micro_batches) / total


def is_inside(args: Any, old: Any, engine: Any) -> Any:
    """Tokens whose importance weight is within the band."""
    low, high = args.algo.advantage.is_correction_threshold
    return ((old - engine).exp() >= low) & ((old - engine).exp() <= high)


def policy_loss(args: Any, values: Any, mask: Any, rollout: Any, info: dict[str, Any]) -> Any:
    """OpenRLHF's documented policy losses, from their papers' formulas."""
    import torch

    old, advantages, engine = rollout.old_log_probs, rollout.advantages, rollout.rollout_log_probs
    ratio = (values - old).clamp(-20, 20).exp()
    if args.actor.policy_loss_type == "gspo":
        mean = ((values - old) * mask).sum(-1) / mask.sum(-1).clamp(min=1)
        ratio = mean.exp()[:, None] * mask
    low, high = args.actor.eps_clip_low_high
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)
    if args.actor.dual_clip is not None:
        floored = torch.maximum(surrogate, args.actor.dual_clip * advantages)
        surrogate = torch.where(advantages < 0, floored, surrogate)
    loss = -surrogate
    if args.algo.advantage.is_correction_level == "token":
        loss = loss * torch.where(is_inside(args, old, engine), (old - engine).exp(), 0.0)
    if args.actor.policy_loss_type == "gspo":
        each = (loss * mask).sum(-1) / mask.sum(-1).clamp(min=1)
        return each.sum() / info["global_batch_size"]
    return (loss * mask).sum() / info["batch_num_tokens"]


def joint_term(args: Any, mtp: Any, head: Any, micro: Any) -> tuple[Any, Any, Any]:
    """The term of a micro-batch (`joint_watch.MicroBatch`), and the head's log-probs with their mask."""
    share = None
    if mtp.anchor_fraction < 1.0:
        length = micro.experience.sequences.shape[1]
        share = {divmod(n, length) for n in micro.anchors.index.tolist()}
    temperature = args.rollout.temperature
    values, mask = reference_log_probs(head, micro.experience, micro.entries, temperature, share)
    info = micro.info
    reference = values.new_zeros(())
    for j, factor in enumerate(micro.coefficient):
        if mtp.regime == "joint_ce":
            by_sample = -(values[j] * mask[j]).sum(-1)
            if mtp.advantage.weighting != "none":
                by_sample = by_sample * advantage_weights(micro.experience, info.micro_batches)
            each = by_sample.sum() / info["batch_num_tokens"]
        elif mtp.coefficient.kind == "occ" and mtp.coefficient.occ_variant == "released_code":
            scaled = micro.tokens._replace(advantages=micro.tokens.advantages * factor)
            each, factor = policy_loss(args, values[j], mask[j], scaled, info), DEPTHS * (factor != 0)
        else:
            each = policy_loss(args, values[j], mask[j], micro.tokens, info)
        inside_mean = args.actor.policy_loss_type != "gspo"
        reference = reference + factor / DEPTHS * each / (mtp.anchor_fraction if inside_mean else 1.0)
    return reference, values, mask
