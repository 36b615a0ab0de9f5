"""Ray pickles the class of an actor by value where it is handed on, with what its code names."""

import inspect
from types import FunctionType
from typing import Any

import pytest

from tests.processes import in_fresh_process


def unpicklable() -> list[str]:
    """Methods of our actors whose code names a module that cannot be pickled, as cloudpickle would find it."""
    import torch.distributed.config  # noqa: F401  # as in a run, where torch has imported it by then
    from ray.cloudpickle import cloudpickle

    from openrlhf_mtp.upstream.processes import prepare_process

    prepare_process()
    from openrlhf_mtp.rollout.actor import MTPRolloutActor
    from openrlhf_mtp.training.controller.loop import AsyncController, SyncController
    from openrlhf_mtp.training.ray_actor import PolicyActor

    found = []
    for actor in (PolicyActor, SyncController, AsyncController, MTPRolloutActor):
        for name, method in vars(actor).items():
            function = inspect.unwrap(method) if callable(method) else None
            if isinstance(function, FunctionType):
                named = [function.__globals__.get(used) for used in function.__code__.co_names]
                for module in cloudpickle._find_imported_submodules(function.__code__, named):
                    found += [f"{actor.__name__}.{name}: {module.__name__}"] if refuses(module) else []
    return found


def refuses(module: Any) -> bool:
    import ray.cloudpickle

    try:
        ray.cloudpickle.dumps(module)
    except TypeError:
        return True
    return False


@pytest.mark.filterwarnings("ignore")
def test_no_method_of_an_actor_names_a_module_that_cannot_be_pickled() -> None:
    assert in_fresh_process(unpicklable) == []
