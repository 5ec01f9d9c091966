"""A decision carried out: its models called in order, until one answers."""

from scope_edge.execution.executor import Execution, Executor
from scope_edge.execution.request import Request

__all__ = ["Execution", "Executor", "Request"]
