"""Who runs where. OpenRLHF checks some of this only after its first processes are up, and waits for ever for GPUs."""

from collections.abc import Iterator

from openrlhf_mtp.config.checks.conflict import Conflict, error
from openrlhf_mtp.config.roles import roles, total_gpus
from openrlhf_mtp.config.situation import Situation


def engines(s: Situation) -> Iterator[Conflict]:
    """Rollouts need at least one vLLM engine."""
    if s.engines < 1:
        got = s.job.value("vllm.num_engines")
        yield error(
            "vllm.num_engines", "nothing" if got is None else got, "1 or more", "set vllm.num_engines"
        )


def colocation(s: Situation) -> Iterator[Conflict]:
    """Roles that share GPUs must have the same number of them."""
    shares = s.on("train.colocate_all") or s.on("train.colocate_actor_ref")
    actor = s.ranks("actor")
    if s.colocates_engines and s.engines and actor != s.engine_gpus:
        yield error(
            "vllm.num_engines",
            f"{s.engine_gpus} engine GPUs",
            f"as many as the actor has, {actor}, because train.colocate_all shares them",
            "make vllm.num_engines * vllm.tensor_parallel_size equal to the actor's GPUs",
        )
    if shares and s.uses_reference and s.ranks("ref") != actor:
        yield error(
            "ref.num_gpus_per_node",
            f"{s.ranks('ref')} GPUs of the reference model",
            f"the actor's {actor}, because they share them",
            "give ref.num_nodes and ref.num_gpus_per_node the actor's values, or algo.kl.init_coef 0",
        )
    pair_shares = s.on("train.colocate_critic_reward") and s.uses_critic and s.uses_reward_model
    if pair_shares and s.ranks("critic") != s.ranks("reward"):
        yield error(
            "critic.num_gpus_per_node",
            f"{s.ranks('critic')} GPUs of the critic",
            f"the reward model's {s.ranks('reward')}, because they share them",
            "give both the same number",
        )


def gpus(s: Situation) -> Iterator[Conflict]:
    """More GPUs than there are. On a host without CUDA they are logical and made to measure."""
    needed = total_gpus(s)
    present = s.cluster_gpus
    if present is None and s.host.has_cuda and _one_node(s):
        present = s.host.cuda_gpus
    if present is not None and needed > present:
        parts = ", ".join(f"{role.name} {role.gpus}" for role in roles(s) if not role.shares)
        yield error(
            "GPUs",
            f"{needed} ({parts})",
            f"at most the {present} there are",
            "share GPUs with train.colocate_all, or lower actor.num_gpus_per_node or vllm.num_engines",
        )


def _one_node(s: Situation) -> bool:
    return all(s.number(f"{role}.num_nodes") == 1 for role in ("actor", "ref", "critic", "reward"))
