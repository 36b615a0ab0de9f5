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
    """

    name: str
    processes: int
    gpus: int
    shares: str | None = None


def roles(s: JobContext) -> list[Role]:
    """Every role that the job starts, in starting order."""
    all_shared = s.on("train.colocate_all")
    with_actor = all_shared or s.on("train.colocate_actor_ref")
    found = [
        Role("rollout engines", s.engines, s.engine_gpus, "actor" if s.colocates_engines else None),
        Role("actor", s.ranks("actor"), s.ranks("actor")),
    ]
    if s.uses_reference:
        found.append(Role("reference", s.ranks("ref"), s.ranks("ref"), "actor" if with_actor else None))
    # a second group of GPUs, also beside train.colocate_all, whose group the two then leave
    pair = s.on("train.colocate_critic_reward") and s.uses_critic
    with_all = "actor" if all_shared and not pair else None
    if s.uses_critic:
        found.append(Role("critic", s.ranks("critic"), s.ranks("critic"), with_all))
    if s.uses_reward_model:
        found.append(
            Role("reward model", s.ranks("reward"), s.ranks("reward"), "critic" if pair else with_all)
        )
    return found


def total_gpus(s: JobContext) -> int:
    """GPUs the job needs in all; roles that share are counted once."""
    return sum(role.gpus for role in roles(s) if role.shares is None)
