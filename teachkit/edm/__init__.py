"""Learned denoisers: the networks of EDM, their preconditioning, training and safe checkpoints."""

from .adapters import from_diffusers
from .checkpoints import convert, load, save
from .denoiser import Denoiser
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
    "Denoiser",
    "DhariwalUNet",
    "DownloadError",
    "EDMPrecond",
    "NonFiniteWeightsError",
    "OversizedCheckpointError",
    "SongUNet",
    "TensorMismatchError",
    "UnknownArchitectureError",
    "UnsafePickleError",
    "VEPrecond",
    "VPPrecond",
    "convert",
    "from_diffusers",
    "iDDPMPrecond",
    "load",
    "save",
]
