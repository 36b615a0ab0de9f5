"""Put our classes where OpenRLHF looks up its own. A function for each process in which that happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from openrlhf_mtp.upstream.replacement import Binding

_VERSIONS = "openrlhf 0.11.2"

DRIVER = Binding(
    name="the driver starts our actors",
    target="openrlhf.cli.train_ppo_ray",
    touches=("PolicyModelActor", "create_vllm_engines", "placement_group", "RayActorGroup"),
    reason="the policy has a head, the engines draft, and a placement group must fail where GPUs are missing",
    versions=_VERSIONS,
)
CONTROLLER = Binding(
    name="the driver starts our controller",
    target="openrlhf.trainer.ppo_trainer",
    touches=("PPOTrainer",),
    reason="OpenRLHF's controller writes no run folder and does not watch acceptance",
    versions=_VERSIONS,
)
ASYNC_CONTROLLER = Binding(
    name="the driver starts our asynchronous controller",
    target="openrlhf.trainer.ppo_trainer_async",
    touches=("PPOTrainerAsync",),
    reason="OpenRLHF's controller writes no run folder and does not watch acceptance",
    versions=_VERSIONS,
)
POLICY_WORKER = Binding(
    name="a trainer process builds our policy and our trainer",
    target="openrlhf.trainer.ray.ppo_actor",
    touches=("Actor", "ActorPPOTrainer"),
    reason="the head reads the policy's hidden states and is trained in the policy's step",
    versions=_VERSIONS,
)
COLLABORATORS = Binding(
    name="a controller uses our prompts, samples and experience",
    target="openrlhf.trainer.ppo_trainer",
    touches=("prepare_datasets", "SamplesGenerator", "PromptDataset", "RemoteExperienceMaker"),
    reason="prompts are checked, a rollout resumes at its prompt, and ranks get equal numbers of samples",
    versions=_VERSIONS,
)
ASYNC_COLLABORATORS = Binding(
    name="an asynchronous controller uses our prompts and samples",
    target="openrlhf.trainer.ppo_trainer_async",
    touches=("prepare_datasets", "SamplesGenerator"),
    reason="prompts are checked, and a rollout resumes at its prompt",
    versions=_VERSIONS,
)
ASYNC_SIDES = Binding(
    name="an asynchronous controller starts our two sides",
    target="openrlhf.trainer.ppo_trainer_async",
    touches=("TrainingActor", "GenerateSamplesActor"),
    reason="steps are measured on the training side, prompts and samples are ours on the generating side",
    versions=_VERSIONS,
)
ENGINES = Binding(
    name="rollout engines are our Ray actors, placed with a limit",
    target="openrlhf.trainer.ray.vllm_engine",
    touches=("RolloutRayActor", "placement_group"),
    reason="engines draft, count and take weights in few calls; OpenRLHF waits for their GPUs without a limit",
    versions=_VERSIONS,
)
EXECUTOR = Binding(
    name="a rollout engine asks our executor for rewards",
    target="openrlhf.trainer.ray.vllm_engine",
    touches=("SingleTurnAgentExecutor",),
    reason="OpenRLHF logs the exception of a reward function and continues without the reward",
    versions=_VERSIONS,
)
PROGRESS = Binding(
    name="a benchmark's trainer draws no bar",
    target="openrlhf.trainer.ray.ppo_actor",
    touches=("tqdm",),
    reason="a bar for each step would hide the benchmark's own lines",
    versions=_VERSIONS,
)


def plain_class(actor_class: Any) -> type:
    """The undecorated class behind a `@ray.remote` class."""
    plain: type = actor_class.__ray_metadata__.modified_class
    return plain


def bind_entry_point(
    *,
    policy_actor: Any,
    trainer: Any,
    async_trainer: Any,
    create_engines: Callable[..., Any],
    placement_group: Callable[..., Any],
    actor_group: type,
) -> Callable[[Any], None]:
    """Bind the driver's collaborators and return OpenRLHF's `train(args)`.

    Args:
        policy_actor: Ray actor class in place of `PolicyModelActor`.
        trainer: Ray actor class in place of `PPOTrainer`.
        async_trainer: Ray actor class in place of `PPOTrainerAsync`.
        create_engines: in place of `create_vllm_engines`, same signature.
        placement_group: in place of Ray's, which would let `train` wait forever when GPUs are missing.
        actor_group: in place of `RayActorGroup`, which makes no placement group for single GPUs.
    """
    import openrlhf.cli.train_ppo_ray as entry
    import openrlhf.trainer.ppo_trainer as ppo
    import openrlhf.trainer.ppo_trainer_async as ppo_async

    DRIVER.bind(
        entry,
        PolicyModelActor=policy_actor,
        create_vllm_engines=create_engines,
        placement_group=placement_group,
        RayActorGroup=actor_group,
    )
    CONTROLLER.bind(ppo, PPOTrainer=trainer)
    ASYNC_CONTROLLER.bind(ppo_async, PPOTrainerAsync=async_trainer)
    train: Callable[[Any], None] = entry.train
    return train


def bind_policy_worker(*, actor: type, trainer: type) -> None:
    """In a trainer process: the policy and the trainer that `PolicyModelActor` constructs."""
    import openrlhf.trainer.ray.ppo_actor as ppo_actor

    POLICY_WORKER.bind(ppo_actor, Actor=actor, ActorPPOTrainer=trainer)


def bind_controller(
    *,
    prepare_datasets: Callable[..., Any],
    prompt_dataset: type,
    samples_generator: type,
    experience_maker: type,
) -> None:
    """In the process of a controller or of the generating side: its prompts, samples and experience."""
    import openrlhf.trainer.ppo_trainer as ppo
    import openrlhf.trainer.ppo_trainer_async as ppo_async

    COLLABORATORS.bind(
        ppo,
        prepare_datasets=prepare_datasets,
        SamplesGenerator=samples_generator,
        PromptDataset=prompt_dataset,
        RemoteExperienceMaker=experience_maker,
    )
    ASYNC_COLLABORATORS.bind(ppo_async, prepare_datasets=prepare_datasets, SamplesGenerator=samples_generator)


def bind_async_workers(*, training_actor: Any, generating_actor: Any) -> None:
    """In the asynchronous controller's process: the actors that train and generate."""
    import openrlhf.trainer.ppo_trainer_async as ppo_async

    ASYNC_SIDES.bind(ppo_async, TrainingActor=training_actor, GenerateSamplesActor=generating_actor)


def bind_engines(*, actor: Any, placement_group: Callable[..., Any] | None) -> Callable[..., list[Any]]:
    """In the driver: the rollout engines' Ray actor. Returns OpenRLHF's `create_vllm_engines`.

    Args:
        actor: in place of `RolloutRayActor`; OpenRLHF calls its `options` and `remote`.
        placement_group: in place of Ray's; None leaves it.
    """
    import openrlhf.trainer.ray.vllm_engine as vllm_engine

    ENGINES.bind(vllm_engine, RolloutRayActor=actor)
    if placement_group is not None:
        ENGINES.bind(vllm_engine, placement_group=placement_group)
    create: Callable[..., list[Any]] = vllm_engine.create_vllm_engines
    return create


def bind_executor(executor: type) -> None:
    """In an engine's process: the class that generates a response and asks for its reward."""
    import openrlhf.trainer.ray.vllm_engine as vllm_engine

    EXECUTOR.bind(vllm_engine, SingleTurnAgentExecutor=executor)


def bind_progress(bar: Callable[..., Any]) -> None:
    """In a trainer's process: the bar over its steps."""
    import openrlhf.trainer.ray.ppo_actor as ppo_actor

    PROGRESS.bind(ppo_actor, tqdm=bar)
