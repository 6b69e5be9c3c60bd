"""``ocirun list``: the containers below the state root, whoever made them."""

from __future__ import annotations

from pytest_ocirun.cli.options import Option, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pytest_ocirun.cli.options import Given
    from pytest_ocirun.cli.report import Journal
    from pytest_ocirun.cli.settings import Settings

VERB = Verb(
    "list",
    "",
    "list the containers",
    Option("format", "table (default) or json", short="f", value="FORMAT", choices=("table", "json")),
    Option("quiet", "print ids only", short="q"),
    least=0,
    most=0,
)
_COLUMNS = ("id", "pid", "status", "bundle", "created", "owner")
_NARROWEST, _GAP = 12, 3


def run(given: Given, settings: Settings, _journal: Journal) -> int:
    """Print the containers."""
    if given.on("quiet"):
        from pytest_ocirun.runtime import state

        print("".join(f"{container_id}\n" for container_id in state.ids(settings.root)), end="")
        return 0
    from pytest_ocirun.runtime import survey

    found = survey.every(settings.root)
    if given.text("format") == "json":
        from pytest_ocirun.oci.json_text import dumps

        print(dumps(found))
    else:
        print(table([[name.upper() for name in _COLUMNS], *(_row(each) for each in found)]), end="")
    return 0


def _row(state: dict[str, Any]) -> list[str]:
    return [str(state[name]) for name in _COLUMNS]


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows with aligned columns, as Go's tabwriter lays them out for runc."""
    widths = [max(_NARROWEST, *(len(row[column]) + _GAP for row in rows)) for column in range(len(rows[0]) - 1)]
    return "".join(
        "".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)) + f"{row[-1]}\n" for row in rows
    )
