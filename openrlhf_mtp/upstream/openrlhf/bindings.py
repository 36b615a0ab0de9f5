"""Put our classes where OpenRLHF looks up its own, by module attribute. Checked on openrlhf 0.11.2.

OpenRLHF has no plug-in points: `train()` and the Ray actors find their collaborators by the global names of
their module. A binding therefore replaces one global in one process and fails when that global is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any


def bind(module: ModuleType, replacements: Mapping[str, Any]) -> None:
    """Replace globals of an imported module.

    Raises:
        AttributeError: a name does not exist there, so that OpenRLHF was changed and the seam moved.
    """
    missing = [name for name in replacements if not hasattr(module, name)]
    if missing:
        raise AttributeError(
            f"{module.__name__} has no {', '.join(missing)}: the installed OpenRLHF is not the pinned 0.11.2"
        )
    for name, value in replacements.items():
        setattr(module, name, value)


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
        placement_group: in place of Ray's, which would let `train` wait for ever when GPUs are missing.
        actor_group: in place of `RayActorGroup`, which makes no placement group for single GPUs.
    """
    import openrlhf.cli.train_ppo_ray as entry
    import openrlhf.trainer.ppo_trainer as ppo
    import openrlhf.trainer.ppo_trainer_async as ppo_async

    bind(
        entry,
        {
            "PolicyModelActor": policy_actor,
            "create_vllm_engines": create_engines,
            "placement_group": placement_group,
            "RayActorGroup": actor_group,
        },
    )
    bind(ppo, {"PPOTrainer": trainer})
    bind(ppo_async, {"PPOTrainerAsync": async_trainer})
    train: Callable[[Any], None] = entry.train
    return train


def bind_policy_worker(*, actor: type, trainer: type) -> None:
    """In a trainer process: what `PolicyModelActor` constructs."""
    import openrlhf.trainer.ray.ppo_actor as ppo_actor

    bind(ppo_actor, {"Actor": actor, "ActorPPOTrainer": trainer})


def bind_controller(
    *,
    prepare_datasets: Callable[..., Any],
    prompt_dataset: type,
    samples_generator: type,
    experience_maker: type,
) -> None:
    """In the process of a controller or of the generating side: what these look up."""
    import openrlhf.trainer.ppo_trainer as ppo
    import openrlhf.trainer.ppo_trainer_async as ppo_async

    ours = {"prepare_datasets": prepare_datasets, "SamplesGenerator": samples_generator}
    bind(ppo, {**ours, "PromptDataset": prompt_dataset, "RemoteExperienceMaker": experience_maker})
    bind(ppo_async, ours)


def bind_async_workers(*, training_actor: Any, generating_actor: Any) -> None:
    """In the async controller's process: the actors that train and generate."""
    import openrlhf.trainer.ppo_trainer_async as ppo_async

    bind(ppo_async, {"TrainingActor": training_actor, "GenerateSamplesActor": generating_actor})
