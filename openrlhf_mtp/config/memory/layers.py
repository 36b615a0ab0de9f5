"""Bytes that autograd keeps of a token, counted operation by operation as transformers' layers run them.

`each` is the size of an element, 2 or 4 bytes. H hidden size, I width of the MLP, N query heads and K key-value heads
of width D.
"""

from openrlhf_mtp.config.model_files import ModelShape

FLOAT32 = 4

PART = 2048
"""Anchors of a chain that are run at once (`heads.head.PART`)."""


def norm(width: int, each: int, *, constant: bool = False) -> int:
    """An RMS norm: its input in float32, and for its weight's gradient what the weight is multiplied with."""
    return width * (FLOAT32 + (0 if constant else each))


def _mlp(shape: ModelShape, each: int, *, constant: bool = False) -> int:
    """Gate before and after its activation, the other projection, their product, which the last projection reads."""
    return (3 if constant else 4) * shape.intermediate_size * each


def _widths(shape: ModelShape) -> tuple[int, int]:
    """N D and K D."""
    return shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim


def _query_key_norms(shape: ModelShape, each: int, *, constant: bool = False) -> int:
    return norm(sum(_widths(shape)), each, constant=constant) if shape.family.normalizes_qk else 0


def layer(shape: ModelShape, each: int, *, copies_keys: bool, constant: bool = False) -> int:
    """A decoder layer of the policy: two norms with their results, queries, keys, values, what was attended before and
    after its heads lie side by side, the MLP.

    `copies_keys`: each query head has a copy of its keys and values, as torch's own attention has with a mask.
    `constant`: no gradient of its parameters is wanted, so that what its projections read is not kept.
    """
    queries, keys = _widths(shape)
    results = 0 if constant else 2 * shape.hidden_size * each
    norms = 2 * norm(shape.hidden_size, each, constant=constant) + results
    attention = ((2 if constant else 3) * queries + 2 * (queries if copies_keys else keys)) * each
    return (
        norms
        + _query_key_norms(shape, each, constant=constant)
        + attention
        + _mlp(shape, each, constant=constant)
    )


def depth(shape: ModelShape, each: int, *, constant: bool = False) -> int:
    """A depth of a head's chain in one piece: `layer`, with three norms and the projection's input more."""
    projected = 0 if constant else 2 * shape.hidden_size * each
    norms = 3 * norm(shape.hidden_size, each, constant=constant)
    return layer(shape, each, copies_keys=False, constant=constant) + norms + projected


def chain(
    shape: ModelShape, each: int, *, tokens: int, depths: int, blocks: int, constant: bool = False
) -> tuple[int, int]:
    """A chain over so many anchors: what it keeps until backward, and what backward computes again at once.

    A short chain is kept whole. Of a long one, inputs and attention are kept, and a part of it is computed again.
    `constant`: of a head whose parameters get no gradient (`heads.constant`).
    """
    queries, keys = _widths(shape)
    part = min(tokens, PART) * depths * depth(shape, each, constant=constant)
    if tokens <= PART:
        return part, 0
    inputs = (3 + depths) * shape.hidden_size + 2 * keys * blocks  # hidden, x and its normed form, embeddings
    return tokens * each * (inputs + depths * queries), part
