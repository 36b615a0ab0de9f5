"""Placement of the roles. OpenRLHF checks some of it after its first processes are up, and waits forever for GPUs."""

from collections.abc import Iterator

from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.problem import Problem, error, refuse
from openrlhf_mtp.config.roles import roles, total_gpus


def engines(s: JobContext) -> Iterator[Problem]:
    """Rollouts need at least one vLLM engine."""
    if s.engines < 1:
        got = s.job.value("vllm.num_engines")
        yield error(
            "vllm.num_engines", "nothing" if got is None else got, "1 or more", "set vllm.num_engines"
        )


def colocation(s: JobContext) -> Iterator[Problem]:
    """Roles that share GPUs must have the same number of them."""
    shares = s.on("train.colocate_all") or s.on("train.colocate_actor_ref")
    actor = s.ranks("actor")
    if s.colocates_engines and s.engines and actor != s.engine_gpus:
        yield refuse(
            "vllm.num_engines",
            f"train.colocate_all has the engines share the actor's GPUs, but the engines have {_count(s.engine_gpus)} "
            f"and the actor {_count(actor)}; make vllm.num_engines * vllm.tensor_parallel_size equal to the "
            "actor's GPUs",
        )
    if shares and s.uses_reference and _size(s, "ref") != _size(s, "actor"):
        yield refuse(
            "ref.num_gpus_per_node",
            f"the reference model shares the actor's GPUs, but it has {_gpus(s, 'ref')} and the actor "
            f"{_gpus(s, 'actor')}; give ref.num_nodes and ref.num_gpus_per_node the actor's values, or set "
            "algo.kl.init_coef 0",
        )
    pair = s.on("train.colocate_critic_reward") and s.uses_critic
    if pair and _size(s, "critic") != _size(
        s, "reward"
    ):  # OpenRLHF compares them without a reward model, too
        yield refuse(
            "critic.num_gpus_per_node",
            f"train.colocate_critic_reward has the critic share the reward model's GPUs, but the critic has "
            f"{_gpus(s, 'critic')} and the reward model {_gpus(s, 'reward')}; give both the same number, or drop "
            "train.colocate_critic_reward",
        )
    for role in ("critic", "reward"):
        used = s.uses_critic if role == "critic" else s.uses_reward_model
        if s.on("train.colocate_all") and used and not pair and s.ranks(role) > actor:
            yield refuse(
                f"{role}.num_gpus_per_node",
                f"train.colocate_all puts the {role} model on the actor's GPUs, but it has {_count(s.ranks(role))} and "
                f"the actor {_count(actor)}; give {role}.num_nodes and {role}.num_gpus_per_node the actor's values",
            )


def gpus(s: JobContext) -> Iterator[Problem]:
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


def _size(s: JobContext, role: str) -> tuple[int, int]:
    return s.number(f"{role}.num_nodes"), s.number(f"{role}.num_gpus_per_node")


def _gpus(s: JobContext, role: str) -> str:
    nodes, each = _size(s, role)
    return _count(each) if nodes == 1 else f"{_count(nodes * each)} ({nodes} nodes of {each})"


def _count(gpus: int) -> str:
    return f"{gpus} GPU" if gpus == 1 else f"{gpus} GPUs"


def _one_node(s: JobContext) -> bool:
    return all(s.number(f"{role}.num_nodes") == 1 for role in ("actor", "ref", "critic", "reward"))
