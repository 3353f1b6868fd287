"""Published methods as values of dynamic sparse training: nothing here but defaults, each with its source."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from gancompress.components.registry import METHODS
from gancompress.methods.dst import (
    DST,
    DropFraction,
    DSTConfig,
    Every,
    Explore,
    GrowthField,
    Placement,
    Regrow,
    RoleGrowth,
    Stop,
)
from gancompress.sparsity.schedules import Constant, Cosine

if TYPE_CHECKING:
    from gancompress.methods.base import MethodConfig

__all__ = ["SET", "STUGAN", "RigL", "RigLConfig", "SETConfig", "STUGANConfig"]


class SETConfig(DSTConfig):
    """Defaults of SET (Mocanu et al., Nature Communications 2018)."""

    growth: GrowthField = "random"  # algorithm 1: "add randomly new weights (connections)"
    explore: Explore = "both"  # the paper has one network
    every: Every = 500  # algorithm 1 says once an epoch; an epoch of CIFAR-10 at batch 100 is 500 steps
    drop_fraction: DropFraction = Constant(value=0.3)  # zeta = 0.3 (Methods)
    stop: Stop = 1.0  # algorithm 1 grows nothing after the last epoch


@METHODS.register("set")
class SET(DST):
    """SET: drop the smallest, grow at random.

    Two things differ from the paper: it drops the smallest positive and the largest negative weights separately, and
    gives new weights random values; here both signs are ranked by magnitude and new weights start from 0, as in the
    later literature (RigL, section 3, table 1).
    """

    Config: ClassVar[type[MethodConfig]] = SETConfig


class RigLConfig(SETConfig):
    """Defaults of RigL (Evci et al., ICML 2020): SET with another growth score, annealed, and stopping early."""

    growth: GrowthField = "gradient"  # algorithm 1
    every: Every = 100  # Delta T = 100 (section 4.1)
    drop_fraction: DropFraction = Cosine(start=0.3, end=0.0)  # section 3; alpha = 0.3 (section 4.1)
    stop: Stop = 0.75  # T_end = 25k of 32k steps (section 4.1)
    placement: Placement = "instead-of-step"  # algorithm 1: either an update or a step of SGD


@METHODS.register("rigl")
class RigL(DST):
    """RigL: drop the smallest, grow where the gradient is largest."""

    Config: ClassVar[type[MethodConfig]] = RigLConfig


class STUGANConfig(DSTConfig):
    """Defaults of STU-GAN (Liu et al., 2022), read from its code of September 2021, which made the paper's runs."""

    growth: GrowthField = RoleGrowth(generator="gradient", discriminator="random")  # G_growth, D_growth
    explore: Explore = "generator"  # abstract: "the parameter space spanned over the generator"; scripts *_onlyG
    every: Every = 500  # BigGAN; its SNGAN scripts use 1000
    drop_fraction: DropFraction = Cosine(start=0.5, end=0.005)  # death_rate, CosineDecay's eta_min
    stop: Stop = None  # updates go on to the last step
    placement: Placement = "after-step"  # Masking.step: the optimizer first
    regrow: Regrow = "allowed"  # candidates are all weights outside the mask after dropping


@METHODS.register("stu-gan")
class STUGAN(DST):
    """STU-GAN: explore the generator by gradient, keep the discriminator's random mask.

    Exact counts replace the Bernoulli draws of the published code. Its sparse EMA is the recipe's
    ``training.ema.sparse``, its unmasked Adam moments ``sparsity.moments: dense``.
    """

    Config: ClassVar[type[MethodConfig]] = STUGANConfig
