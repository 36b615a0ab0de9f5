"""Memory of a rollout engine's sampler in one decode step, from sizes alone.

Counted are tensors of V columns, in float32 unless said otherwise, that vLLM's V1 runner holds at once for B sequences
with k sampled drafts each (`GPUModelRunner._get_spec_decode_draft_probs`, `RejectionSampler`):

    drafts' distributions      2 k     kept from the proposal, and as one tensor for the verification
    logits                     k + 1   in 16 bits
    logits of the last token   1
    target's logits            k
    then, while verifying      k + 1   target's distribution, and noise for the tokens that replace rejected drafts
    or, for log-probs          3 (k + 1)   logits of all tokens, those of the sampled ones, and their log-probs
"""

FLOAT32, HALF = 4, 2


def sampler_bytes(sequences: int, depths: int, vocab: int, *, logprobs: bool = True) -> int:
    """Bytes that sampling takes at its peak on each worker of an engine; all workers sample from the whole vocabulary.

    Args:
        sequences: B, in one decode step at most (`mtp.rollout.max_num_seqs`).
        depths: k, drafts for each; 0 without speculation.
        vocab: V.
        logprobs: whether some request asks for log-probs.
    """
    tokens = depths + 1
    if depths == 0:  # logits, distribution, noise, log-probs
        return sequences * vocab * (FLOAT32 * (3 + logprobs) + HALF)
    held = 2 * depths + 1 + depths
    then = max(depths + 1, 3 * tokens if logprobs else 0)
    return sequences * vocab * (FLOAT32 * (held + then) + HALF * tokens)
