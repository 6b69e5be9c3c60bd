"""``ocirun ps``: the processes of a container, through the host's ps(1)."""

from __future__ import annotations

from pytest_ocirun.cli.options import Option, Usage, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_ocirun.cli.options import Given
    from pytest_ocirun.cli.report import Journal
    from pytest_ocirun.cli.settings import Settings

VERB = Verb(
    "ps",
    "CONTAINER-ID [PS-OPTION...]",
    "show the processes of a container",
    Option(
        "format", "table (default), or json: an array of pids", short="f", value="FORMAT", choices=("table", "json")
    ),
    most=None,
    ends_at_argument=True,
)


def run(given: Given, settings: Settings, _journal: Journal) -> int:
    """Print the processes."""
    from pytest_ocirun.runtime import members

    container_id, *words = given.arguments
    pids = members.pids(settings.root, container_id)
    if given.text("format") == "json":
        from pytest_ocirun.oci.json_text import dumps

        print(dumps(pids))
        return 0
    from pytest_ocirun.cli.programs import output_of

    header, *rows = output_of(["ps", *(words or ["-ef"])]).splitlines()
    print("\n".join([header, *_of(pids, header, rows)]))
    return 0


def _of(pids: list[int], header: str, rows: list[str]) -> Iterator[str]:
    """The rows of ps whose column PID has one of ``pids``."""
    titles = header.split()
    if "PID" not in titles:
        raise Usage(f"ps shows no column PID to tell the container's processes by: {header!r}", hint="Add -o pid.")
    column = titles.index("PID")
    wanted = {str(pid) for pid in pids}
    for row in rows:
        fields = row.split()
        if column < len(fields) and fields[column] in wanted:
            yield row
