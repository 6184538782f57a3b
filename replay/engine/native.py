"""Loops as machine code, for logs that are long enough to pay for it.

In goes a loop written in plain Python over arrays, out comes the same as machine code. numba compiles it, once on a
machine; the object file is kept, and from then on LLVM alone, through numba's own binding of it, links that: importing
numba takes longer than replaying three hundred thousand calls. What the loops do is written where they stand.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from replay.engine.cache import cache_directory

Function: TypeAlias = Callable[..., Any]

_MOST_RESULTS: Final = 4
"""So many numbers a loop may return."""

_WORDS_OF_RESULTS: Final = 2
"""Where the machine code writes them: an address and a length."""


def pays(function: Function, amount: int, *, loading: int, compiling: int) -> bool:
    """Tell whether a loop over so much is served faster by its machine code than by the interpreter.

    From the amount `loading` on it pays to link what was compiled on this machine before, from `compiling` on to
    compile it first.
    """
    return amount >= compiling or (amount >= loading and any(cache_directory().glob(f"{_name_of(function)}-*.o")))


@cache
def compiled(
    function: Function, helpers: Iterable[Function] = (), inlined: Iterable[Function] = (), results: int = 0
) -> Function:
    """Return `function` compiled, with the `helpers` that it calls, to be called with the same arguments.

    The arguments are numbers, arrays in C order and tuples of them; the function allocates nothing, raises nothing, and
    returns as many numbers as `results` says. While it runs, other threads do too. The helpers that are `inlined`
    become part of their callers: a call hands over every array of a tuple with its shape and strides, some fifty words
    for `address_space.Space`, which costs more than a small function does.
    """
    return _Loop(function, tuple(helpers), tuple(inlined), results)


@dataclass(slots=True)
class _Loop:
    """A loop, and its machine code for each layout of arguments that it was called with."""

    function: Function
    helpers: Sequence[Function]
    inlined: Sequence[Function]
    results: int
    linked: dict[tuple[Any, ...], Function] = field(default_factory=dict)

    def __call__(self, *arguments: Any) -> Any:
        """Run the loop."""
        layout = _layout(arguments)
        run = self.linked.get(layout)
        if run is None:
            run = self.linked[layout] = self._link(arguments, layout)
        found = np.zeros(_MOST_RESULTS, np.int64)
        run(*_words((*arguments, found)))
        return tuple(found[: self.results].tolist()) if self.results else None

    def _link(self, arguments: Sequence[Any], layout: tuple[Any, ...]) -> Function:
        """Return the machine code for such arguments, compiled if that was never done on this machine."""
        digest = hashlib.sha256(repr(layout).encode()).hexdigest()[:16]
        path = cache_directory() / f"{_name_of(self.function)}-{digest}.o"
        code = _kept(path)
        if code is None:
            print(f"replay: compiling {self.function.__module__}, once on this machine ...", file=sys.stderr)
            code = _machine_code(self, arguments)
            _keep(path, code)
        return _linked(code, len([*_words(arguments)]) + _WORDS_OF_RESULTS)


# --- arguments -------------------------------------------------------------------------------------------------------


def _layout(arguments: Iterable[Any]) -> tuple[Any, ...]:
    """Return what the machine code depends on: the types of numbers, and the dimensions of arrays.

    Raises:
        ValueError: an array is not in C order.
    """
    layout: list[Any] = []
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            if not argument.flags.c_contiguous:
                raise ValueError("a loop takes arrays in C order only")
            layout.append((argument.dtype.str, argument.ndim))
        elif isinstance(argument, tuple):
            layout.append((type(argument).__name__, _layout(argument)))
        else:
            layout.append("number")
    return tuple(layout)


def _words(arguments: Iterable[Any]) -> Iterator[int]:
    """Yield what the machine code is called with: for an array its address and its shape."""
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            yield argument.ctypes.data
            yield from argument.shape
        elif isinstance(argument, tuple):
            yield from _words(argument)
        else:
            yield int(argument)


def _expressions(arguments: Iterable[Any], parameters: list[tuple[str, Any]], numbers: Iterator[int]) -> list[str]:
    """Return how each argument is made of the `parameters`, which are added with their types in numba."""
    numba = _numba()
    made = []
    for argument in arguments:
        name = f"a{next(numbers)}"
        if isinstance(argument, np.ndarray):
            shape = [f"{name}_{axis}" for axis in range(argument.ndim)]
            parameters.append((name, numba.types.CPointer(numba.from_dtype(argument.dtype))))
            parameters += [(axis, numba.int64) for axis in shape]
            made.append(f"carray({name}, ({', '.join(shape)},))")
        elif isinstance(argument, tuple):
            parts = ", ".join(_expressions(argument, parameters, numbers))
            made.append(f"({parts},)" if type(argument) is tuple else f"{type(argument).__name__}({parts})")
        else:
            parameters.append((name, numba.int64))
            made.append(name)
    return made


# --- compiling -------------------------------------------------------------------------------------------------------


class _Code(NamedTuple):
    """An object file and the name of the function in it."""

    object: bytes
    entry: str


def _machine_code(loop: _Loop, arguments: Sequence[Any]) -> _Code:
    """Return a loop compiled by numba for arguments like these, as a function of words (see `_words`)."""
    numba, llvm = _numba(), _llvm()
    # Without numba's counting of references to arrays, which costs more than the work of a small function itself.
    for helper in loop.helpers:
        numba.extending.register_jitable(_nrt=False)(helper)
    for helper in loop.inlined:
        numba.extending.register_jitable(_nrt=False, forceinline=True)(helper)
    parameters: list[tuple[str, Any]] = []
    body = f"loop({', '.join(_expressions(arguments, parameters, count()))})"
    parameters += [("found", numba.types.CPointer(numba.int64)), ("found_0", numba.int64)]
    if loop.results:
        body = f"{', '.join(f'found[{place}]' for place in range(loop.results))} = {body}"
    # numba compiles functions, and the parameters of this one depend on the loop's arguments: it is written here.
    namespace = {type(argument).__name__: type(argument) for argument in arguments if isinstance(argument, tuple)}
    namespace |= {"loop": numba.njit(_nrt=False)(loop.function), "carray": numba.carray}
    exec(f"def entry({', '.join(name for name, _ in parameters)}):\n    {body}", namespace)
    entry = numba.cfunc(numba.void(*(type_ for _, type_ in parameters)))(namespace["entry"])
    module = llvm.parse_assembly(_DECLARED.sub(r"define internal \1 { unreachable }", entry.inspect_llvm()))
    _optimize(module, entry.native_name)
    return _Code(_target_machine().emit_object(module), entry.native_name)


def _optimize(module: Any, entry: str) -> None:
    """Have LLVM see that no one but `entry` is called from outside.

    Then the functions that it calls hand over those words of an array alone that are made use of: numba's calls pass on
    for each array of a tuple also its size, its strides and who holds its memory, some fifty words for a
    `address_space.Space`.
    """
    llvm = _llvm()
    for function in module.functions:
        if not function.is_declaration and function.name != entry:
            function.linkage = "internal"
    builder = llvm.create_pass_builder(_target_machine(), llvm.create_pipeline_tuning_options(speed_level=3))
    builder.getModulePassManager().run(module, builder)


_DECLARED: Final = re.compile(r"^declare ((?:(?!@llvm\.).)*)$", re.MULTILINE)
"""Functions of numba and Python: its way out of errors and of memory, on which a loop that has neither never comes."""


def _numba() -> Any:
    """Return numba, whose import takes longer than most logs."""
    import numba.extending

    return numba


def _llvm() -> Any:
    """Return numba's binding of LLVM, which a small log does not need."""
    import llvmlite.binding

    return llvmlite.binding


@cache
def _target_machine() -> Any:
    """Return what LLVM knows of this processor."""
    llvm = _llvm()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=_cpu_features(), opt=3, jit=True, codemodel="jitdefault"
    )


def _cpu_features() -> str:
    return str(_llvm().get_host_cpu_features().flatten())


def _linked(code: _Code, words: int) -> Function:
    """Return the function of an object file, which takes so many words."""
    llvm = _llvm()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code.object))
    engine.finalize_object()
    run = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * words)(engine.get_function_address(code.entry))
    _ENGINES.append(engine)
    return run


_ENGINES: Final[list[Any]] = []
"""What holds the machine code, to the end of the process."""


# --- keeping ---------------------------------------------------------------------------------------------------------


@cache
def _name_of(function: Function) -> str:
    """Return how the files of a loop are named: what it is made of, and for which processor and LLVM it is."""
    import llvmlite

    llvm = _llvm()
    source = Path(function.__code__.co_filename)
    digest = hashlib.sha256()
    for file in sorted({str(source), *_sources_of(function)}):
        digest.update(Path(file).read_bytes())
    for name, value in sorted(function.__globals__.items()):
        if isinstance(value, int | np.ndarray):  # numba takes them for constants, wherever they come from
            digest.update(f"{name}={value if isinstance(value, int) else value.tobytes()!r}\n".encode())
    for part in (llvmlite.__version__, llvm.get_default_triple(), llvm.get_host_cpu_name(), _cpu_features()):
        digest.update(f"{part}\n".encode())
    return f"{source.stem}.{function.__name__}-{digest.hexdigest()[:32]}"


def _sources_of(function: Function) -> Iterator[str]:
    """Yield the files of this package in which functions stand that the module of `function` names."""
    package = __name__.partition(".")[0] + "."
    for value in function.__globals__.values():
        if callable(value) and (getattr(value, "__module__", None) or "").startswith(package):
            code = getattr(value, "__code__", None)
            if code is not None:
                yield code.co_filename


def _kept(path: Path) -> _Code | None:
    """Return what is kept in a file, None if there is none or it is damaged."""
    import json

    try:
        head, _, code = path.read_bytes().partition(b"\n")
        about = json.loads(head)
        if about["sha256"] == hashlib.sha256(code).hexdigest():
            return _Code(code, about["entry"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _keep(path: Path, code: _Code) -> None:
    """Keep machine code for the next run, unless the file system does not let us."""
    import json

    about = {"sha256": hashlib.sha256(code.object).hexdigest(), "entry": code.entry}
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
            file.write(json.dumps(about).encode() + b"\n" + code.object)
        Path(file.name).replace(path)
    except OSError:
        pass
