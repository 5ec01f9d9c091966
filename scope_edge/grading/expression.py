"""Expressions a model wrote, worked out by hand: a walk over a few kinds of syntax nodes. Nothing is compiled or executed.

Everything is bounded: the length of the source, its depth, the steps taken, the size of every number, text and list made
on the way. What is not on the lists below is refused, not guessed.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any, cast

MAX_SOURCE = 400
MAX_DEPTH = 40
MAX_STEPS = 400
MAX_ITEMS = 500
MAX_BITS = 256
_MAX_DIGITS = 15

Value = Any


class ExpressionError(ValueError):
    """The expression is refused or has no value: not allowed, too large, or an error such as division by zero."""


_NUMERIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Sub: operator.sub,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.RShift: operator.rshift,
}
_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}


def _range(*bounds: int) -> list[int]:
    span = range(*bounds)
    # The length of a huge range is itself out of range for len().
    if (span[-1] - span[0]) // span.step >= MAX_ITEMS if span else False:
        raise ExpressionError("a range is too long")
    return list(span)


def _round(value: float, digits: int = 0) -> float:
    if not -_MAX_DIGITS <= digits <= _MAX_DIGITS:
        raise ExpressionError("too many digits to round to")
    rounded: float = round(value, digits) if digits else round(value)
    return rounded


def _sum(values: list[float]) -> float:
    total: float = sum(_number(value) for value in values)
    return total


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "abs": abs,
    "all": all,
    "any": any,
    "bool": bool,
    "chr": chr,
    "divmod": divmod,
    "float": float,
    "int": int,
    "len": len,
    "list": list,
    "max": max,
    "min": min,
    "ord": ord,
    "range": _range,
    "reversed": lambda values: list(reversed(values)),
    "round": _round,
    "sorted": sorted,
    "str": str,
    "sum": _sum,
    "tuple": tuple,
}
_ERRORS = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)


def evaluate(source: str, names: Mapping[str, Value]) -> Value:
    """The value of one expression, with `names` known. Raises ExpressionError, and never anything else."""
    source = source.strip()
    if not 0 < len(source) <= MAX_SOURCE:
        raise ExpressionError(f"{len(source)} characters; 1 to {MAX_SOURCE} are read")
    if "\\" in source or "\0" in source:
        raise ExpressionError("a backslash or NUL is not read")
    try:
        tree = ast.parse(source, mode="eval")
    except (SyntaxError, MemoryError, RecursionError, ValueError) as error:
        raise ExpressionError("not an expression") from error
    try:
        return _Walk(names).value(tree.body, 0)
    except ExpressionError:
        raise
    except _ERRORS as error:
        raise ExpressionError(f"has no value: {type(error).__name__}") from error


class _Walk:
    """One evaluation: what is known by name, and the steps taken so far."""

    def __init__(self, names: Mapping[str, Value]) -> None:
        self._names = names
        self._steps = 0

    def value(self, node: ast.AST, depth: int) -> Value:
        """The value of one node, its size checked."""
        self._steps += 1
        if depth > MAX_DEPTH or self._steps > MAX_STEPS:
            raise ExpressionError("too deep or too long")
        visit = _VISITS.get(type(node))
        if visit is None:
            raise ExpressionError(f"{type(node).__name__} is not allowed")
        return _bounded(visit(self, node, depth + 1))

    def constant(self, node: ast.Constant, depth: int) -> Value:
        return node.value

    def name(self, node: ast.Name, depth: int) -> Value:
        if node.id not in self._names:
            raise ExpressionError(f"the name {node.id!r} is not known")
        return self._names[node.id]

    def binary(self, node: ast.BinOp, depth: int) -> Value:
        left, right = self.value(node.left, depth), self.value(node.right, depth)
        kind = type(node.op)
        if kind is ast.Add:
            return _add(left, right)
        if kind is ast.Mult:
            return _multiply(left, right)
        if kind in (ast.Pow, ast.LShift):
            return _power(left, right) if kind is ast.Pow else _shift(left, right)
        apply = _NUMERIC.get(kind)
        if apply is None:
            raise ExpressionError(f"{kind.__name__} is not allowed")
        # Numbers only: % on a text would be formatting, with a width of any size.
        return apply(_number(left), _number(right))

    def unary(self, node: ast.UnaryOp, depth: int) -> Value:
        value = self.value(node.operand, depth)
        if isinstance(node.op, ast.Not):
            return not value
        if isinstance(node.op, ast.Invert):
            raise ExpressionError("Invert is not allowed")
        return -_number(value) if isinstance(node.op, ast.USub) else +_number(value)

    def boolean(self, node: ast.BoolOp, depth: int) -> Value:
        stop = isinstance(node.op, ast.Or)
        value: Value = None
        for part in node.values:
            value = self.value(part, depth)
            if bool(value) is stop:
                break
        return value

    def compare(self, node: ast.Compare, depth: int) -> Value:
        left = self.value(node.left, depth)
        for op, part in zip(node.ops, node.comparators, strict=True):
            apply = _COMPARE.get(type(op))
            if apply is None:
                raise ExpressionError(f"{type(op).__name__} is not allowed")
            right = self.value(part, depth)
            if not apply(left, right):
                return False
            left = right
        return True

    def choose(self, node: ast.IfExp, depth: int) -> Value:
        return self.value(node.body if self.value(node.test, depth) else node.orelse, depth)

    def several(self, node: ast.List | ast.Tuple, depth: int) -> Value:
        values = [self.value(part, depth) for part in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)

    def subscript(self, node: ast.Subscript, depth: int) -> Value:
        whole = self.value(node.value, depth)
        if not isinstance(whole, (str, list, tuple)):
            raise ExpressionError("only a text, list or tuple has parts")
        if not isinstance(node.slice, ast.Slice):
            return whole[self.value(node.slice, depth)]
        bounds = (node.slice.lower, node.slice.upper, node.slice.step)
        return whole[slice(*(None if bound is None else self.value(bound, depth) for bound in bounds))]

    def call(self, node: ast.Call, depth: int) -> Value:
        if not isinstance(node.func, ast.Name) or node.func.id not in _FUNCTIONS or node.func.id in self._names:
            raise ExpressionError("only a few functions may be called")
        if node.keywords:
            raise ExpressionError("arguments by name are not allowed")
        return _FUNCTIONS[node.func.id](*(self.value(part, depth) for part in node.args))


_VISITS = cast(
    "Mapping[type[ast.AST], Callable[[_Walk, Any, int], Value]]",
    {
        ast.Constant: _Walk.constant,
        ast.Name: _Walk.name,
        ast.BinOp: _Walk.binary,
        ast.UnaryOp: _Walk.unary,
        ast.BoolOp: _Walk.boolean,
        ast.Compare: _Walk.compare,
        ast.IfExp: _Walk.choose,
        ast.List: _Walk.several,
        ast.Tuple: _Walk.several,
        ast.Subscript: _Walk.subscript,
        ast.Call: _Walk.call,
    },
)


def _bounded(value: Value) -> Value:
    """The value itself. Raises ExpressionError when it is of a type that is not allowed or too large."""
    left, waiting = MAX_ITEMS, [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, (list, tuple)):
            left -= len(one)
            if left >= 0:
                waiting.extend(one)
        elif isinstance(one, str):
            left -= len(one)
        elif isinstance(one, int):
            left -= MAX_ITEMS + 1 if one.bit_length() > MAX_BITS else 0
        elif one is not None and not isinstance(one, float):
            raise ExpressionError(f"{type(one).__name__} is not allowed")
        if left < 0:
            raise ExpressionError("a value is too large")
    return value


def _number(value: Value) -> Any:
    if not isinstance(value, (int, float)):
        raise ExpressionError("not a number")
    return value


def _add(left: Value, right: Value) -> Value:
    if type(left) is type(right) and isinstance(left, (str, list, tuple)):
        return left + right
    return _number(left) + _number(right)


def _multiply(left: Value, right: Value) -> Value:
    if isinstance(right, (str, list, tuple)):
        left, right = right, left
    if isinstance(left, (str, list, tuple)):
        if not isinstance(right, int) or len(left) * right > MAX_ITEMS:
            raise ExpressionError("repeated too often")
        return left * right
    return _number(left) * _number(right)


def _power(base: Value, exponent: Value) -> Value:
    base, exponent = _number(base), _number(exponent)
    whole = isinstance(base, int) and isinstance(exponent, int)
    if whole and abs(exponent) * max(base.bit_length(), 1) > MAX_BITS:
        raise ExpressionError("a power is too large")
    return base**exponent


def _shift(value: Value, places: Value) -> Value:
    if not isinstance(value, int) or not isinstance(places, int) or not 0 <= places <= MAX_BITS:
        raise ExpressionError("a shift is too large")
    return value << places
