"""`replay whatif`: the recorded requests served again by real allocators under other policies."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from replay.commands.options import AsJson, Force, Format, PageSize, Pid, Quiet, Strict, Traces
from replay.commands.reading import Dialect, read_run
from replay.console.progress_bar import progress

if TYPE_CHECKING:
    from replay.whatif.player import Policy


def whatif(
    traces: Traces,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            show_default=False,
            help="A tunable of glibc, such as glibc.malloc.top_pad=16777216; each is a policy of its own, several in "
            "one with a colon between them.",
        ),
    ] = None,
    allocators: Annotated[
        list[str] | None,
        typer.Option(
            "--allocator",
            metavar="NAME|PATH",
            show_default=False,
            help="jemalloc, mimalloc, tcmalloc, musl, or the path of a library that is preloaded.",
        ),
    ] = None,
    unblock: Annotated[bool, typer.Option("--unblock", help="Without what stood in the way of the break.")] = False,
    limit_as: Annotated[
        int, typer.Option("--limit-as", metavar="BYTES", show_default=False, help="Under this RLIMIT_AS.")
    ] = 0,
    limit_data: Annotated[
        int, typer.Option("--limit-data", metavar="BYTES", show_default=False, help="Under this RLIMIT_DATA.")
    ] = 0,
    touch: Annotated[
        bool, typer.Option("--touch", help="Touch each page that was asked for, and tell what is resident.")
    ] = False,
    pid: Pid = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="DIR", show_default=False, help="Keep a recording of each run there."),
    ] = None,
    as_json: AsJson = False,
    force: Force = False,
    format: Format = Dialect.auto,
    page_size: PageSize = None,
    strict: Strict = False,
    quiet: Quiet = False,
) -> None:
    """Serve the recorded malloc requests again under other policies: a row each, the recorded one first.

    Without --set, --allocator, --unblock and --limit-…, a sensible dozen is tried. The first line says how much of the
    recording came out the same with the recorded settings. The log must show malloc calls (`replay record`, ltrace).
    """
    policies = _policies(settings or [], allocators or [], unblock, limit_as, limit_data)
    place = _place(output, force)
    from replay.whatif.policies import default_policies, what_if

    with progress(quiet) as watch:
        run = read_run(traces, format.value, None, page_size, strict, watch)
        found = what_if(run, policies or default_policies(run), pid=pid, touch=touch, keep=place, watch=watch)
    if as_json:
        from replay.report.as_json import write_json
        from replay.whatif.as_text import whatif_document

        write_json(whatif_document(found), sys.stdout)
        return
    from replay.console.screen import print_lines
    from replay.whatif.as_text import whatif_lines

    print_lines(whatif_lines(found))


def _policies(
    settings: list[str], allocators: list[str], unblock: bool, limit_as: int, limit_data: int
) -> list[Policy]:
    """Return the policies that were asked for, none if none was; limits hold for each of them."""
    from replay.whatif.player import Policy
    from replay.whatif.policies import policy_of
    from replay.whatif.tunables import parse_setting

    for text in settings:
        try:
            for part in text.split(":"):
                parse_setting(part)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--set") from error
    made = [policy_of(text) for text in (*settings, *allocators, *["unblock"] * unblock)]
    if (limit_as or limit_data) and not made:
        made.append(Policy(" and ".join(
            [f"RLIMIT_AS {limit_as:,}"] * bool(limit_as) + [f"RLIMIT_DATA {limit_data:,}"] * bool(limit_data)
        )))  # fmt: skip
    return [policy._replace(limit_as=limit_as, limit_data=limit_data) for policy in made]


def _place(output: str | None, force: bool) -> Path | None:
    """Return where the recordings are kept, which must be free."""
    if output is None:
        return None
    from replay.errors import OutputExistsError

    place = Path(output)
    if place.exists() and any(place.iterdir()) and not force:
        raise OutputExistsError(f"{place}: is there already (--force overwrites it)")
    return place
