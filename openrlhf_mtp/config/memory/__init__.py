"""Memory that a trainer rank and a rollout engine need, from a job's sizes alone.

| module | holds |
|---|---|
| `layers` | what a decoder layer, and a head's chain, keep of a token for backward |
| `trainer` | a rank of the actor: states, activations, logits, chain, buckets |
| `engine` | a worker of a rollout engine: weights, one forward pass, the sampler, the cache |
"""

from openrlhf_mtp.config.memory.engine import EngineMemory, engine_memory
from openrlhf_mtp.config.memory.trainer import Moment, TrainerMemory, engine_share, trainer_memory

GIB = 1 << 30

__all__ = [
    "GIB",
    "EngineMemory",
    "Moment",
    "TrainerMemory",
    "engine_memory",
    "engine_share",
    "trainer_memory",
]
