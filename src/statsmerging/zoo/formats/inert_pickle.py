"""A pickle read as data: what it would build is described, nothing is imported or called.

A pickle is a program for a stack machine. Its usual interpreter looks names up and calls them;
this one turns every name into a `Name` and every call into a `Built`, so the program has no means
to do anything. `torch.load(weights_only=True)` is not used: before torch 2.10 a file could corrupt
memory through it (GHSA-63cw-57p8-fm3p), it calls the allowed functions with the arguments of the
file, and its list of allowed classes is shared by the whole process.

The instructions are those of protocol 2, in which `torch.save` writes
(https://github.com/python/cpython/blob/main/Lib/pickletools.py documents each).
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from statsmerging.errors import shown


class PickleError(ValueError):
    """The program is broken, or does what no checkpoint needs; the message is one line."""


@dataclass(frozen=True)
class Name:
    """A class or function the pickle names, ``module.attribute``; it is never looked up."""

    text: str


@dataclass(frozen=True)
class Persistent:
    """A reference to an object outside the pickle, such as a tensor's storage."""

    identity: Any


@dataclass(eq=False, repr=False)
class Built:
    """What a call would have made.

    Attributes:
        maker: the class or function.
        arguments: of the call.
        state: what would have been set on the object afterwards.
        items: what would have been put into it, if it is a mapping.
    """

    maker: str
    arguments: tuple[Any, ...]
    state: Any = None
    items: dict[str | int, Any] = field(default_factory=dict)


def read_pickle(program: bytes, allowed: Callable[[str], bool]) -> Any:
    """The object the program describes, of plain values, `Name`, `Built` and `Persistent`.

    Args:
        program: a pickle of protocol 2.
        allowed: whether a name may occur.

    Raises:
        PickleError: a broken program, a name that is not allowed, or another instruction.
    """
    machine = _Machine(allowed)
    try:
        for instruction, argument, _ in pickletools.genops(program):
            machine.step(instruction.name, argument)
        (result,) = machine.stack
    except PickleError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        # A stack or a memory that does not hold what the next instruction takes.
        raise PickleError("its pickle is broken") from error
    return result


class _Mark:
    """Where on the stack a group of values begins."""


class _Machine:
    """Stack and memory of the program."""

    def __init__(self, allowed: Callable[[str], bool]) -> None:
        self.allowed = allowed
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}

    def step(self, instruction: str, argument: Any) -> None:
        """Carry out one instruction."""
        match instruction:
            case "PROTO" | "STOP":
                pass
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                self.stack.append(argument)
            case "NONE":
                self.stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                self.stack.append(instruction == "NEWTRUE")
            case "EMPTY_LIST":
                self.stack.append([])
            case "EMPTY_DICT":
                self.stack.append({})
            case "EMPTY_TUPLE":
                self.stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self.stack.append(tuple(self._pop(int(instruction[-1]))))
            case "TUPLE":
                self.stack.append(tuple(self._pop_to_mark()))
            case "MARK":
                self.stack.append(_Mark())
            case "BINPUT" | "LONG_BINPUT":
                self.memory[argument] = self.stack[-1]
            case "BINGET" | "LONG_BINGET":
                self.stack.append(self.memory[argument])
            case "APPEND":
                self._extend(self._pop(1))
            case "APPENDS":
                self._extend(self._pop_to_mark())
            case "SETITEM":
                self._update(self._pop(2))
            case "SETITEMS":
                self._update(self._pop_to_mark())
            case "GLOBAL":
                self._name(argument.replace(" ", ".", 1))
            case "REDUCE" | "NEWOBJ":
                self._call(*self._pop(2))
            case "BUILD":
                self._set_state(*self._pop(2))
            case "BINPERSID":
                self.stack.append(Persistent(self.stack.pop()))
            case _:
                raise PickleError(f"its pickle has {instruction}, which torch.save never writes")

    def _name(self, name: str) -> None:
        if not self.allowed(name):
            raise PickleError(f"its pickle names {shown(name)}, which no known checkpoint needs")
        self.stack.append(Name(name))

    def _call(self, maker: Any, arguments: Any) -> None:
        if not isinstance(maker, Name) or not isinstance(arguments, tuple):
            raise PickleError("its pickle calls what is no class or function")
        self.stack.append(Built(maker.text, arguments))

    def _set_state(self, target: Any, state: Any) -> None:
        if not isinstance(target, Built):
            raise PickleError("its pickle sets the state of what is no object")
        target.state = state
        self.stack.append(target)

    def _extend(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise PickleError("its pickle appends to what is no list")
        self.stack[-1].extend(values)

    def _update(self, pairs: list[Any]) -> None:
        target = self.stack[-1]
        items = target.items if isinstance(target, Built) else target
        if not isinstance(items, dict):
            raise PickleError("its pickle puts items into what is no mapping")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # Other keys are never needed, and hashing a deep tuple can crash the interpreter.
            if not isinstance(key, str | int):
                raise PickleError("its pickle has a mapping with keys that are no names")
            items[key] = value

    def _pop(self, count: int) -> list[Any]:
        values = [self.stack.pop() for _ in range(count)]
        return values[::-1]

    def _pop_to_mark(self) -> list[Any]:
        values: list[Any] = []
        while not isinstance(value := self.stack.pop(), _Mark):
            values.append(value)
        return values[::-1]
