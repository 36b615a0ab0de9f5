"""Bytes that autograd keeps of a token, counted operation by operation as transformers' layers run them.

`each` is the size of an element, 2 or 4 bytes. H hidden size, I width of the MLP, N query heads and K key-value heads
of width D.
"""

from openrlhf_mtp.config.model_files import ModelShape

FLOAT32 = 4

PART = 2048
"""Anchors of a chain that are run at once (`heads.head.PART`)."""


def norm(width: int, each: int) -> int:
    """An RMS norm: its input in float32, and what its weight is multiplied with."""
    return width * (FLOAT32 + each)


def _mlp(shape: ModelShape, each: int) -> int:
    """Gate before and after its activation, the other projection, their product."""
    return 4 * shape.intermediate_size * each


def _widths(shape: ModelShape) -> tuple[int, int]:
    """N D and K D."""
    return shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim


def _query_key_norms(shape: ModelShape, each: int) -> int:
    return norm(sum(_widths(shape)), each) if shape.family.normalizes_qk else 0


def layer(shape: ModelShape, each: int, *, copies_keys: bool) -> int:
    """A decoder layer of the policy: two norms with their results, queries, keys, values, what was attended before and
    after its heads lie side by side, the MLP.

    `copies_keys`: each query head has a copy of its keys and values, as torch's own attention has with a mask.
    """
    queries, keys = _widths(shape)
    norms = 2 * (norm(shape.hidden_size, each) + shape.hidden_size * each)
    attention = (3 * queries + 2 * (queries if copies_keys else keys)) * each
    return norms + _query_key_norms(shape, each) + attention + _mlp(shape, each)


def depth(shape: ModelShape, each: int) -> int:
    """A depth of a head's chain in one piece: `layer`, with three norms and the projection's input more."""
    more = 3 * norm(shape.hidden_size, each) + 2 * shape.hidden_size * each
    return layer(shape, each, copies_keys=False) + more


def chain(shape: ModelShape, each: int, *, tokens: int, depths: int, blocks: int) -> tuple[int, int]:
    """A chain over so many anchors: what it keeps until backward, and what backward computes again at once.

    A short chain is kept whole. Of a long one, inputs and attention are kept, and a part of it is computed again.
    """
    queries, keys = _widths(shape)
    part = min(tokens, PART) * depths * depth(shape, each)
    if tokens <= PART:
        return part, 0
    inputs = (3 + depths) * shape.hidden_size + 2 * keys * blocks  # hidden, x and its normed form, embeddings
    return tokens * each * (inputs + depths * queries), part
