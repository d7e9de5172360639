"""Edits of source code by pattern, for the deliberate faults of `test_mutations`.

A pattern is Python code in which a capital letter stands for any expression, the same
one wherever the letter comes again: `A - M * ops.cast(O, T)`. So it is found whatever
the variables are called and however the code is laid out.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

Functions = dict[str, list[tuple[Path, ast.AST]]]


def find_functions(folder: Path) -> Functions:
    """All functions and classes below a folder by name: `grow`, `LaBSE.encode`."""
    found: Functions = {}

    def visit(path: Path, node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                name = prefix + child.name
                found.setdefault(name, []).append((path, child))
                visit(path, child, f"{name}.")

    for path in sorted(folder.rglob("*.py")):
        visit(path, ast.parse(path.read_text(encoding="utf-8")), "")
    return found


def edited(
    functions: Functions, name: str, pattern: str, replacement: str
) -> tuple[Path, bytes]:
    """Replaces what a pattern matches in a function.

    Args:
        functions: Of the package.
        name: The function's.
        pattern: An expression or a statement; see above.
        replacement: The same with the letters of the pattern.

    Returns:
        The function's file and its new content.

    Raises:
        LookupError: If there is not exactly one such function, or the pattern does
            not match exactly once in it.
    """
    known = functions.get(name, [])
    if len(known) != 1:
        files = [str(path) for path, _ in known]
        raise LookupError(f"expected one function {name}. Received: {files}")
    path, scope = known[0]
    wanted = _parse(pattern)
    matches = [
        (node, letters)
        for node in ast.walk(scope)
        if (letters := _match(wanted, node)) is not None
    ]
    if len(matches) != 1:
        places = [f"{path}:{node.lineno}" for node, _ in matches]
        raise LookupError(
            f"{path}: expected one {pattern!r} in {name}. Received: {places}"
        )
    node, letters = matches[0]
    text = ast.unparse(_Substitution(letters).visit(_parse(replacement)))
    if isinstance(node, ast.expr):
        text = f"({text})"
    lines = path.read_bytes().splitlines(keepends=True)
    before = lines[: node.lineno - 1] + [lines[node.lineno - 1][: node.col_offset]]
    after = [lines[node.end_lineno - 1][node.end_col_offset :]]
    code = b"".join([*before, text.encode(), *after, *lines[node.end_lineno :]])
    ast.parse(code)
    return path, code


def _parse(code: str) -> ast.AST:
    [statement] = ast.parse(code).body
    return statement.value if isinstance(statement, ast.Expr) else statement


def _is_letter(node: object) -> bool:
    return isinstance(node, ast.Name) and len(node.id) == 1 and node.id.isupper()


def _match(pattern: ast.AST, node: ast.AST) -> dict[str, ast.expr] | None:
    """What each letter stands for, or None where the node is something else."""
    letters: dict[str, ast.expr] = {}
    for one, other in _pairs(pattern, node):
        if (
            isinstance(one, ast.Name)
            and _is_letter(one)
            and isinstance(other, ast.expr)
        ):
            known = letters.setdefault(one.id, other)
            if ast.unparse(known) != ast.unparse(other):
                return None
        elif one != other:
            return None
    return letters


def _pairs(pattern: object, node: object) -> Iterator[tuple[object, object]]:
    """The leaves of both trees side by side; a difference in shape as one of values."""
    if _is_letter(pattern):
        yield pattern, node
    elif isinstance(pattern, ast.AST):
        yield type(pattern), type(node)
        if type(pattern) is type(node):
            for field in pattern._fields:
                if field not in ("ctx", "kind", "type_comment"):
                    yield from _pairs(
                        getattr(pattern, field, None), getattr(node, field, None)
                    )
    elif isinstance(pattern, list) and isinstance(node, list):
        yield len(pattern), len(node)
        for one, other in zip(pattern, node, strict=False):
            yield from _pairs(one, other)
    else:
        yield pattern, node


class _Substitution(ast.NodeTransformer):
    """Puts in what the letters stand for."""

    def __init__(self, letters: dict[str, ast.expr]) -> None:
        self._letters = letters

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._letters[node.id] if _is_letter(node) else node
