"""Placement of the roles. OpenRLHF checks some of it after its first processes are up, and waits forever for GPUs."""

from collections.abc import Iterator

from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.problem import Problem, error, refuse
from openrlhf_mtp.config.roles import roles, total_gpus


def engines(context: JobContext) -> Iterator[Problem]:
    """Rollouts need at least one vLLM engine."""
    if context.engines < 1:
        got = context.job.value("vllm.num_engines")
        yield error(
            "vllm.num_engines", "nothing" if got is None else got, "1 or more", "set vllm.num_engines"
        )


def colocation(context: JobContext) -> Iterator[Problem]:
    """Roles that share GPUs must have the same number of them."""
    shares = context.colocates_all or context.on("train.colocate_actor_ref")
    actor = context.ranks("actor")
    if context.colocates_engines and context.engines and actor != context.engine_gpus:
        yield refuse(
            "vllm.num_engines",
            f"train.colocate_all has the engines share the actor's GPUs, but the engines have "
            f"{_count(context.engine_gpus)} and the actor {_count(actor)}; make vllm.num_engines * "
            "vllm.tensor_parallel_size equal to the actor's GPUs",
        )
    if shares and context.uses_reference and _size(context, "ref") != _size(context, "actor"):
        yield refuse(
            "ref.num_gpus_per_node",
            f"the reference model shares the actor's GPUs, but it has {_gpus(context, 'ref')} and the actor "
            f"{_gpus(context, 'actor')}; give ref.num_nodes and ref.num_gpus_per_node the actor's values, or set "
            "algo.kl.init_coef 0",
        )
    pair = context.on("train.colocate_critic_reward") and context.uses_critic
    if pair and _size(context, "critic") != _size(
        context, "reward"
    ):  # OpenRLHF compares them without a reward model, too
        yield refuse(
            "critic.num_gpus_per_node",
            f"train.colocate_critic_reward has the critic share the reward model's GPUs, but the critic has "
            f"{_gpus(context, 'critic')} and the reward model {_gpus(context, 'reward')}; give both the same number, "
            "or drop train.colocate_critic_reward",
        )
    for role in ("critic", "reward"):
        used = context.uses_critic if role == "critic" else context.uses_reward_model
        if context.colocates_all and used and not pair and context.ranks(role) > actor:
            yield refuse(
                f"{role}.num_gpus_per_node",
                f"train.colocate_all puts the {role} model on the actor's GPUs, but it has "
                f"{_count(context.ranks(role))} and the actor {_count(actor)}; give "
                f"{role}.num_nodes and {role}.num_gpus_per_node the actor's values",
            )


def gpus(context: JobContext) -> Iterator[Problem]:
    """More GPUs than there are. On a host without CUDA they are logical and made to measure."""
    needed = total_gpus(context)
    present = context.cluster_gpus
    if present is None and context.host.has_cuda and _one_node(context):
        present = context.host.cuda_gpus
    if present is not None and needed > present:
        parts = ", ".join(role.share for role in roles(context) if not role.shares)
        parallel = context.number("vllm.tensor_parallel_size") > 1
        yield error(
            "GPUs",
            f"{needed} ({parts})",
            f"at most the {present} there are",
            "share GPUs with train.colocate_all, or lower actor.num_gpus_per_node or vllm.num_engines"
            + (" or vllm.tensor_parallel_size" if parallel else ""),
        )


def _size(context: JobContext, role: str) -> tuple[int, int]:
    return context.number(f"{role}.num_nodes"), context.number(f"{role}.num_gpus_per_node")


def _gpus(context: JobContext, role: str) -> str:
    nodes, each = _size(context, role)
    return _count(each) if nodes == 1 else f"{_count(nodes * each)} ({nodes} nodes of {each})"


def _count(gpus: int) -> str:
    return f"{gpus} GPU" if gpus == 1 else f"{gpus} GPUs"


def _one_node(context: JobContext) -> bool:
    return all(context.number(f"{role}.num_nodes") == 1 for role in ("actor", "ref", "critic", "reward"))
