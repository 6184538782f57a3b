"""Loops to object files: numba makes LLVM's code of them, LLVM machine code that any processor of the kind runs.

In go names of modules in which loops stand, out come an object file for each module, and the names of the sources that
had a part in it. Only the build of the package runs this; it alone needs numba.
"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, Final

import llvmlite.binding as llvm
import numba.extending
import numpy as np
from numba import _dynfunc
from numba.core import codegen, cpu

from replay.engine.native import BUILT_FROM, ROOT, Loop, digest_of

CPU: Final = {"x86_64": "x86-64-v2", "aarch64": "generic"}.get(platform.machine(), "")
"""The processor that machine code is for: all since 2009, all of 64 bits."""

LIKELY_CPU: Final = {"x86_64": "x86-64-v3"}.get(platform.machine(), CPU)
"""The processor that it most likely runs on: what LLVM thinks worthwhile for this one is a tenth faster. Measured."""

CHECKED: Final = "--checked"
"""Asks for code that stops the process where an index lies outside of its array."""

ORIGIN: Final = "--origin"
"""Asks for an object file that says from which sources a library is built."""


def main() -> None:
    """Write the object file that `sys.argv` asks for: of the loops of a module, or of the names of sources."""
    file, what, *names = sys.argv[1:]
    if what == ORIGIN:
        made = [_origin(names)]
    else:
        numba.config.BOUNDSCHECK = 1 if CHECKED in names else None
        _have_nothing_run()
        made = [_code_of(value) for value in vars(import_module(what)).values() if isinstance(value, Loop)]
        print("\n".join(_sources()))
    Path(file).write_bytes(_object_of(made))


def _sources() -> Sequence[str]:
    """Return the files of all modules of the package that were imported for the loops, and of those that build them.

    Constants come from any; `build_hook` names the modules in which loops stand.
    """
    files = {sys.modules[name].__file__ for name in sys.modules if name.partition(".")[0] == "replay"}
    files |= {__file__, str(Path(__file__).with_name("build_hook.py"))}
    return sorted(str(Path(file).relative_to(ROOT)) for file in files if file)


def _origin(names: Sequence[str]) -> Any:
    """Return a module of LLVM with the text `BUILT_FROM`."""
    text = "\n".join([digest_of(names), *names]).encode() + b"\0"
    code = "".join(f"\\{byte:02x}" for byte in text)
    return llvm.parse_assembly(f'@{BUILT_FROM} = constant [{len(text)} x i8] c"{code}"')


# --- from Python to LLVM ---------------------------------------------------------------------------------------------


class _Parts(codegen.JITCodeLibrary):  # type: ignore[misc]
    """What numba makes of one function and those it calls: put together once, and neither optimized nor run.

    numba has LLVM optimize each function by itself, then with all that it calls, then make machine code of it: half of
    the time. `_optimize` does the first of these once, of all of a loop.
    """

    inlined: ClassVar[frozenset[str]] = frozenset()
    """The names of functions that become part of their callers. numba could be told so of each, but then compiles what
    they call once for them and once more for others."""

    def __init__(self, owner: Any, name: str) -> None:
        super().__init__(owner, name)
        self.modules: list[Any] = []

    def add_ir_module(self, ir_module: Any) -> None:
        """Keep numba's code of the function."""
        for function in ir_module.functions if self.name in self.inlined else ():
            if not function.is_declaration:
                function.attributes.add("alwaysinline")
        self.modules.append(ir_module)

    def add_linking_library(self, library: Any) -> None:
        """Keep the function as one that is called."""
        self._linking_libraries.append(library)

    def finalize(self) -> None:
        """Do nothing yet."""
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """Return that there is no machine code."""
        return 0

    def get_llvm_str(self) -> str:
        """Return LLVM's code of the function and of all that it calls, each once."""
        together, parts = llvm.parse_assembly(""), [self]
        for part in parts:
            for module in map(llvm.parse_assembly, map(str, part.modules)):
                for function in module.functions if part is not self else ():
                    if function.linkage == llvm.Linkage.external and not function.is_declaration:
                        function.linkage = "linkonce_odr"
                together.link_in(module)
            parts += [called for called in dict.fromkeys(part._linking_libraries) if called not in parts]
        return str(together)


def _have_nothing_run() -> None:
    """Have numba make LLVM's code of each function only; the names are internal ones, of numba 0.62 to 0.68."""
    codegen.JITCPUCodegen._library_class = _Parts
    cpu.CPUContext.get_executable = lambda _, library, function, environment: _dynfunc.make_function(
        function.lookup_module(), function.qualname, "", 0, environment, (library,)
    )


def _code_of(loop: Loop) -> Any:
    """Return a loop as a module of LLVM, in which it is a function of words (see `native._words`)."""
    # Without numba's counting of references to arrays, which costs more than the work of a small function itself.
    for helper in (*loop.helpers, *loop.inlined):
        numba.extending.register_jitable(_nrt=False, no_cfunc_wrapper=True)(helper)
    _Parts.inlined = frozenset(helper.__qualname__ for helper in loop.inlined)
    arguments = loop.like()
    parameters: list[tuple[str, Any]] = []
    body = f"loop({', '.join(_expressions(arguments, parameters, count()))})"
    parameters.append(("found", numba.types.CPointer(numba.int64)))
    if loop.results:
        body = f"{', '.join(f'found[{place}]' for place in range(loop.results))} = {body}"
    # numba compiles functions, and the parameters of this one depend on the loop's arguments: it is written here.
    namespace = {type(argument).__name__: type(argument) for argument in arguments if isinstance(argument, tuple)}
    namespace |= {"loop": numba.njit(_nrt=False)(loop.function), "carray": numba.carray}
    exec(f"def entry({', '.join(name for name, _ in parameters)}):\n    {body}", namespace)
    entry = numba.cfunc(numba.void(*(type_ for _, type_ in parameters)))(namespace["entry"])
    text = entry.inspect_llvm().replace(entry.native_name, loop.symbol)
    module = llvm.parse_assembly(_DECLARED.sub(r"define internal \1 { call void @llvm.trap() unreachable }", text))
    _optimize(module, loop.symbol)
    return module


_DECLARED: Final = re.compile(r"^declare ((?:(?!@llvm\.).)*)$", re.MULTILINE)
"""Functions of numba and Python: its way out of errors and of memory, on which a loop that has neither never comes."""


def _expressions(arguments: Iterable[Any], parameters: list[tuple[str, Any]], numbers: Iterator[int]) -> list[str]:
    """Return how each argument is made of the `parameters`, which are added with their types in numba."""
    made = []
    for argument in arguments:
        name = f"a{next(numbers)}"
        if isinstance(argument, np.void):
            parameters.append((name, numba.types.CPointer(numba.from_dtype(argument.dtype))))
            made.append(f"carray({name}, (1,))[0]")
        elif isinstance(argument, np.ndarray):
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


# --- from LLVM to machine code ---------------------------------------------------------------------------------------


def _optimize(module: Any, entry: str) -> None:
    """Have LLVM optimize a loop, then see that no one but `entry` is called from outside, and do it again.

    Then the functions that it calls hand over those words of an array alone that are made use of: numba's calls pass on
    for each array of a tuple also its size, its strides and who holds its memory, some fifty words for a `Space`.
    And the library need not have their names, in which numba spells out each record: most of its bytes.
    """
    _run_passes(module, LIKELY_CPU)
    for value in (*module.functions, *module.global_variables):
        if not value.is_declaration and value.name != entry:
            value.linkage = "internal"
    _run_passes(module, CPU)


def _run_passes(module: Any, processor: str) -> None:
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    builder = llvm.create_pass_builder(_target_machine(processor), options)
    builder.getModulePassManager().run(module, builder)


def _object_of(modules: Sequence[Any]) -> bytes:
    """Return modules of LLVM as one object file."""
    first, *others = modules
    for other in others:
        first.link_in(other)
    code: bytes = _target_machine(CPU).emit_object(first)
    return code


@cache
def _target_machine(processor: str) -> Any:
    """Return what LLVM knows of a processor."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(cpu=processor, opt=3, reloc="pic", codemodel="default")


if __name__ == "__main__":
    main()
