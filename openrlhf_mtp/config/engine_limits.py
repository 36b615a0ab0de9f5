"""Sequences and tokens of an engine on a GPU, where the job leaves them open.

vLLM's own defaults depend on who starts the engine. For OpenRLHF's way it knows none and takes 128 sequences and 2,048
tokens, on any GPU.
"""

SEQUENCES = 256
TOKENS = 8192


def sequences_on_gpu(given: int | None) -> int:
    """Sequences that an engine decodes at once, given `mtp.rollout.max_num_seqs`."""
    return SEQUENCES if given is None else given


def tokens_on_gpu(given: int | None, sequences: int, a_step: int) -> int:
    """Tokens of one forward pass, given `mtp.rollout.max_num_batched_tokens`; a decode step has `a_step` a sequence."""
    return max(TOKENS, sequences * a_step) if given is None else given
