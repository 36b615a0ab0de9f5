"""The roles of a job and the GPUs each takes, as OpenRLHF's `train` places them."""

from dataclasses import dataclass

from openrlhf_mtp.config.job_context import JobContext


@dataclass(frozen=True)
class Role:
    """A role of a job and its GPUs.

    Attributes:
        name: what it is called in the plan.
        processes: how many Ray actors it has.
        gpus: GPUs it takes.
        shares: the role whose GPUs it shares, None when it has its own.
        workers: tensor-parallel workers of each, with a GPU each.
    """

    name: str
    processes: int
    gpus: int
    shares: str | None = None
    workers: int = 1

    @property
    def share(self) -> str:
        """Its GPUs as a part of the job's: "actor 4", "rollout engines 4 (2 x 2)"."""
        return f"{self.name} {self.gpus}" + (
            f" ({self.processes} x {self.workers})" if self.workers > 1 else ""
        )


def roles(context: JobContext) -> list[Role]:
    """Every role that the job starts, in starting order."""
    all_shared = context.colocates_all
    with_actor = all_shared or context.on("train.colocate_actor_ref")
    found = [
        Role(
            "rollout engines",
            context.engines,
            context.engine_gpus,
            "actor" if context.colocates_engines else None,
            context.number("vllm.tensor_parallel_size"),
        ),
        Role("actor", context.ranks("actor"), context.ranks("actor")),
    ]
    if context.uses_reference:
        found.append(
            Role("reference", context.ranks("ref"), context.ranks("ref"), "actor" if with_actor else None)
        )
    # a second group of GPUs, also beside train.colocate_all, whose group the two then leave
    pair = context.on("train.colocate_critic_reward") and context.uses_critic
    with_all = "actor" if all_shared and not pair else None
    if context.uses_critic:
        found.append(Role("critic", context.ranks("critic"), context.ranks("critic"), with_all))
    if context.uses_reward_model:
        found.append(
            Role(
                "reward model",
                context.ranks("reward"),
                context.ranks("reward"),
                "critic" if pair else with_all,
            )
        )
    return found


def total_gpus(context: JobContext) -> int:
    """GPUs the job needs in all; roles that share are counted once."""
    return sum(role.gpus for role in roles(context) if role.shares is None)
