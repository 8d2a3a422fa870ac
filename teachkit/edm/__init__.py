"""Learned denoisers: the networks of EDM, their preconditioning, training, distillation and safe checkpoints."""

from teachkit import renamed

from .checkpoints import convert, load, save
from .denoiser import LearnedDenoiser
from .distillation import distil
from .errors import (
    CheckpointError,
    CorruptCheckpointError,
    DownloadError,
    NonFiniteWeightsError,
    OversizedCheckpointError,
    TensorMismatchError,
    UnknownArchitectureError,
    UnsafePickleError,
)
from .networks import DhariwalUNet, SongUNet
from .preconditioning import EDMPrecond, VEPrecond, VPPrecond, iDDPMPrecond

__all__ = [
    "CheckpointError",
    "CorruptCheckpointError",
    "DhariwalUNet",
    "DownloadError",
    "EDMPrecond",
    "LearnedDenoiser",
    "NonFiniteWeightsError",
    "OversizedCheckpointError",
    "SongUNet",
    "TensorMismatchError",
    "UnknownArchitectureError",
    "UnsafePickleError",
    "VEPrecond",
    "VPPrecond",
    "convert",
    "distil",
    "iDDPMPrecond",
    "load",
    "save",
]

__getattr__ = renamed.attribute(__name__)
