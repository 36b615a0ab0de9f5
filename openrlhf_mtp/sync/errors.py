"""Errors of a round. Each is fatal for the run: a half-loaded engine must not sample."""


class SyncError(RuntimeError):
    """A round failed; the message names the side, the rank and the bucket."""


class SyncTimeout(SyncError):
    """A wait ran past its deadline. Not a `TimeoutError`: Ray would take that for its own polling timeout."""


class ManifestMismatch(SyncError):
    """Trainer and engine do not hold the same tensors; the message lists every difference."""


class CorruptTransfer(SyncError):
    """A tensor arrived with other bits than the trainer sent."""


class StaleWeights(SyncError):
    """An engine computes with other weights than the trainer's after a round."""
