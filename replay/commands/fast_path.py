"""Commands that convert the words of the command line only where they need it.

Typer sends each value, even a default, through a library that takes longer to import than a small log to replay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_type_hints

from typer.core import TyperCommand

if TYPE_CHECKING:
    from collections.abc import Callable

TEXT: Final = (str, str | None, list[str], list[str] | None)
"""The types of parameters that take words as they are."""


class FastValue(NamedTuple):
    """Stands before a parameter's own `process_value`: what is of its type already is not converted."""

    command: Any
    parameter: Any
    convert: Callable[[Any, Any], Any]

    def __call__(self, context: Any, value: Any) -> Any:
        """Return the value that the command gets."""
        if not self._is_ready(context, value):
            return self.convert(context, value)
        if value is None and (self.parameter.multiple or self.parameter.nargs != 1):
            value = ()
        react = self.parameter.callback
        return react(context, self.parameter, value) if react else value

    def _is_ready(self, context: Any, value: Any) -> bool:
        """Tell whether a value is one of the parameter's type: a default, or words where text is asked for."""
        source = context.get_parameter_source(self.parameter.name)
        if source is None or source.name == "DEFAULT":
            return not self.parameter.required and (value is None or isinstance(value, str | int))
        words = value if isinstance(value, list | tuple) else [value]
        return bool(words) and all(isinstance(word, str) for word in words) and self._takes_text()

    def _takes_text(self) -> bool:
        return get_type_hints(self.command.callback).get(self.parameter.name) in TEXT


class SkipConversion:
    """What makes a group or a command of Typer pass values on without conversion."""

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters, --help among them."""
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if not isinstance(parameter.process_value, FastValue):
                parameter.process_value = FastValue(self, parameter, parameter.process_value)
                _name_plainly(parameter)
        return parameters


def _name_plainly(parameter: Any) -> None:
    """Let help and usage call an argument as its metavar says, without Python's types."""
    name = parameter.metavar
    if parameter.param_type_name == "argument" and name:
        parameter.get_usage_pieces = lambda ctx: [name]
        parameter.get_help_record = lambda ctx: (name, parameter.help or "")


class DirectCommand(SkipConversion, TyperCommand):
    """A command that uses the short way."""
