"""The method contract, and one file per sparsity method. All that a method's author imports is here."""

from __future__ import annotations

from gancompress.methods.base import Measure, Method, MethodConfig, NetView, Plan, Round, Start
from gancompress.sparsity.state import Budget, Role, SparseState

__all__ = [
    "Budget",
    "Measure",
    "Method",
    "MethodConfig",
    "NetView",
    "Plan",
    "Role",
    "Round",
    "SparseState",
    "Start",
]
