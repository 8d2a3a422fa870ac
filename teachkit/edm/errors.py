"""Why a checkpoint is refused: one class per reason, all of them :class:`CheckpointError`."""


class CheckpointError(ValueError):
    """A checkpoint that teachkit will not load."""


class UnsafePickleError(CheckpointError):
    """The pickle asks for a function or class that a snapshot of weights does not need."""


class CorruptCheckpointError(CheckpointError):
    """The file is truncated, damaged, or not a checkpoint at all."""


class UnknownArchitectureError(CheckpointError):
    """The file describes a network that teachkit does not have, or describes it with impossible arguments."""


class TensorMismatchError(CheckpointError):
    """Tensors are missing, unexpected, or of the wrong shape or dtype."""


class NonFiniteWeightsError(CheckpointError):
    """Some weights are NaN or infinite."""


class OversizedCheckpointError(CheckpointError):
    """The file asks for far more memory than the numbers it holds."""


class DownloadError(OSError):
    """A published checkpoint is not here and could not be fetched."""
