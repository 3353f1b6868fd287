"""Optimizers by name through timm's factory, with every setting checked before timm could drop it.

``timm.optim.create_optimizer_v2`` silently ignores ``betas``, ``eps`` and ``momentum`` for an optimizer that has none;
a recipe that gives one to such an optimizer is refused here. As in timm, weight decay leaves biases and normalisation
(one-dimensional parameters) alone.

The learning rate and the betas are pure functions of the training step, so no scheduler has to be saved.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer

from gancompress.errors import RecipeError, did_you_mean
from gancompress.sparsity.schedules import cosine

if TYPE_CHECKING:
    from gancompress.recipe.schema import OptimizerConfig

__all__ = ["build_optimizer", "learning_rate", "moment_decays", "optimizer_names"]

#: optimizers of torch whose fused kernel does what the plain one does, in one pass over memory
_FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
#: they need a loss closure, or second-order gradients, which the training loop does not give
_NEED_MORE = frozenset({"adahessian"})


def optimizer_names() -> list[str]:
    """Return the names that a recipe may use."""
    import timm.optim

    names: list[str] = timm.optim.list_optimizers()
    return sorted(set(names) - _NEED_MORE)


def build_optimizer(network: nn.Module, config: OptimizerConfig, *, fused: bool = True) -> Optimizer:
    """Build the optimizer of one network.

    Args:
        network: its parameters, already on their device.
        config: name and settings; a ``None`` setting leaves the optimizer's default.
        fused: let Adam, AdamW and SGD use torch's fused kernel on CPU and CUDA; it rounds differently.

    Raises:
        RecipeError: the name is unknown, or the optimizer does not take a setting that was given.
    """
    import timm.optim

    name = config.name.lower()
    known = optimizer_names()
    if name not in known:
        raise RecipeError(f"unknown optimizer {config.name!r}{did_you_mean(name, known)}")
    info = timm.optim.get_optimizer_info(name)
    try:
        factory = timm.optim.get_optimizer_class(name, bind_defaults=False)
    except (AssertionError, ImportError) as error:
        raise RecipeError(f"optimizer {name!r} cannot be used here: {error}") from error
    given = _given(config)
    _refuse_dropped(name, info, factory, given)
    if fused and factory in _FUSED and _fusible(network):
        given["fused"] = True
    try:
        optimizer = timm.optim.create_optimizer_v2(
            network, opt=name, lr=config.lr, weight_decay=config.weight_decay, **given
        )
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise RecipeError(f"optimizer {name!r} refuses its settings: {' '.join(str(error).split())}") from error
    if not isinstance(optimizer, Optimizer):
        raise RecipeError(f"optimizer {name!r} is a {type(optimizer).__name__}, which is not a torch optimizer")
    if "fused" in given:
        _keep_aligned(optimizer)
    return optimizer


def learning_rate(config: OptimizerConfig, progress: float) -> float:
    """Return the learning rate at ``progress`` of the schedule: 0 at the first step of a round, 1 where it ends."""
    return _on_the_way(config, config.lr, config.final_lr, progress)


def moment_decays(config: OptimizerConfig, progress: float) -> tuple[float, float] | None:
    """Return the betas at ``progress`` of the schedule, None for those that stay as they are."""
    if config.betas is None or config.final_beta2 is None:
        return None
    return config.betas[0], _on_the_way(config, config.betas[1], config.final_beta2, progress)


def _on_the_way(config: OptimizerConfig, start: float, end: float, progress: float) -> float:
    if config.schedule == "constant":
        return start
    if config.schedule == "cosine":
        return cosine(start, end, progress)
    return start * max(0.0, 1.0 - progress) + end * min(1.0, progress)


def _given(config: OptimizerConfig) -> dict[str, Any]:
    settings = {"betas": config.betas, "eps": config.eps, "momentum": config.momentum}
    return {key: value for key, value in settings.items() if value is not None}


def _refuse_dropped(name: str, info: Any, factory: Any, given: dict[str, Any]) -> None:
    """Raise for settings that timm would drop or that the class does not have."""
    taken = inspect.signature(factory).parameters
    flags = {"betas": info.has_betas, "eps": info.has_eps, "momentum": info.has_momentum}
    dropped = [key for key in given if not flags[key] or key not in taken]
    if dropped:
        mend = ", ".join(f"{key}: null" for key in dropped)
        raise RecipeError(f"optimizer {name!r} takes no {' and no '.join(dropped)}; set {mend}")
    if "betas" in given and info.num_betas != len(given["betas"]):
        raise RecipeError(
            f"optimizer {name!r} takes {info.num_betas} betas, got {len(given['betas'])}; set betas: null"
        )


def _keep_aligned(optimizer: Optimizer) -> None:
    """Guard against torch's fused CPU kernel, which walks memory without looking at strides.

    A gradient, or a moment loaded from a checkpoint, that lies in memory in another order than a channels-last weight
    would be paired with the wrong elements, silently (torch 2.15). Autograd lays gradients out like their weights and
    loading does not, so this costs a comparison of strides per step.
    """

    def gradients(held: Optimizer, args: object, kwargs: object) -> None:
        for group in held.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.grad.stride() != parameter.stride():
                    parameter.grad = _laid_out_like(parameter, parameter.grad)

    def state(held: Optimizer) -> None:
        for parameter, values in held.state.items():
            for key, value in values.items():
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    values[key] = _laid_out_like(parameter, value)

    optimizer.register_step_pre_hook(gradients)
    optimizer.register_load_state_dict_post_hook(state)


def _laid_out_like(parameter: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    if value.stride() == parameter.stride():
        return value
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value.detach())


def _fusible(network: nn.Module) -> bool:
    return all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in network.parameters())
