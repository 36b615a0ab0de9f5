"""Records of a run whose acceptance depends on entropy in a known way."""

import numpy as np

from openrlhf_mtp.runlog.anchor_records import Records


def recorded(*, responses=40, length=50, sampled=(0.95, -0.05), greedy=(1.0, -0.6), seed=0, depths=2):
    """Positions whose acceptance is intercept + slope * H plus noise that a response shares."""
    rng = np.random.default_rng(seed)
    response = np.repeat(np.arange(responses), length)
    h = rng.uniform(0.0, 1.5, (len(response), depths))

    def values(line):
        shared = 0.02 * rng.normal(size=responses)[response][:, None]
        return line[0] + line[1] * h + shared + 0.02 * rng.normal(size=h.shape)

    arrays = [array.astype(np.float32) for array in (h, values(sampled), values(greedy))]
    for array in arrays:
        array[length - 1 :: length, 1:] = np.nan  # the last anchor of a response has depth 1 alone
    return Records(*arrays, response.astype(np.int32))
