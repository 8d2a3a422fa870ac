"""Learned denoisers: the networks of EDM, their preconditioning, training and safe checkpoints."""

from .networks import DhariwalUNet, SongUNet
from .preconditioning import Denoiser, EDMPrecond, VEPrecond, VPPrecond, iDDPMPrecond

__all__ = ["Denoiser", "DhariwalUNet", "EDMPrecond", "SongUNet", "VEPrecond", "VPPrecond", "iDDPMPrecond"]
