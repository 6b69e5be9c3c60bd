"""docs/conformance.md, made from the marks of the tests: which test proves which field and which option.

``python -m tests.conformance_page`` writes it anew; with ``--print`` it only prints it, for ``tests/unit/test_docs.py``
to compare. Wrong claims, and what no test proves, are told on stderr and by the exit status. A claim is a field,
``config: $.process.user.uid``, or an option, ``cli: exec --cwd``; ``config: $.mounts[].options ro`` names one of a
field's values. A claim of an object or an array stands for all within.
"""

import contextlib
import io
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from pytest_ocirun.cli import app, settings
from pytest_ocirun.cli.options import HELP
from pytest_ocirun.oci.codec import Document
from pytest_ocirun.oci.runtime import Config
from pytest_ocirun.runtime import features

_ROOT = Path(__file__).parents[1]
PAGE = _ROOT / "docs/conformance.md"

_HEAD = """\
# Conformance

What of the OCI runtime-spec's `config.json` and of runc's command line is carried out, and which tests show it.

This page is made from the tests' own marks by `python -m tests.conformance_page`; a test compares them. Of several
tests of one claim the first two are named. A field without a test of its own says within which other it is tested.
The values are those that `ocirun features` names, and others that a test is about.
"""
_SHOWN = 2
_NONE = "none"

EXCUSED: dict[str, str] = {}
"""Claims that no test makes, and why not; the page says it."""


class _Claims:
    """A plugin that reads the marks of whatever is collected, in whichever lane."""

    def __init__(self) -> None:
        self.tests: defaultdict[str, list[str]] = defaultdict(list)
        self.failed: list[str] = []

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A module that cannot be read makes no claims, but it may have some."""
        if not report.passed:
            self.failed.append(f"{report.nodeid}: {report.longrepr}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Before any is left out."""
        for item in items:
            name = item.nodeid.split("[", 1)[0]
            for mark in item.iter_markers("conforms"):
                for claim in mark.args:
                    if name not in self.tests[claim]:
                        self.tests[claim].append(name)


def claims() -> dict[str, list[str]]:
    """Every claim, and the tests that make it, in the order of their files."""
    found = _Claims()
    wanted = [
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(_ROOT),
        str(_ROOT / "tests"),
    ]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        pytest.main(["-c", str(_ROOT / "pyproject.toml"), *wanted], plugins=[found])
    if found.failed or not found.tests:
        raise SystemExit("\n".join(["the tests cannot be collected:", *(found.failed or [said.getvalue()])]))
    return {claim: sorted(tests) for claim, tests in sorted(found.tests.items())}


def fields() -> list[str]:
    """Every field of config.json that is known, as ``$.process.user.uid``; ``[]`` is an element, ``.*`` a member."""
    return sorted(_fields(Config, "$"))


def _fields(cls: type[Document], path: str) -> list[str]:
    found: list[str] = []
    for name, annotation in cls.__annotations__.items():
        key = cls._names.get(name) or name.split("_")[0] + "".join(part.capitalize() for part in name.split("_")[1:])
        inner, suffix = _inner(annotation)
        place = f"{path}.{key}"
        found.append(place)
        if isinstance(inner, type) and issubclass(inner, Document):
            found += _fields(inner, place + suffix)
    return found


def _inner(annotation: Any) -> tuple[Any, str]:
    for part in getattr(annotation, "__args__", ()) if not hasattr(annotation, "__origin__") else ():
        if part is not type(None):
            annotation = part
            break
    origin = getattr(annotation, "__origin__", None)
    if origin is list:
        return annotation.__args__[0], "[]"
    if origin is dict:
        return annotation.__args__[1], ".*"
    return annotation, ""


def options() -> list[str]:
    """Every verb, and every option, as ``exec --cwd``; those before the verb as ``--root``."""
    found = [f"--{option.name}" for option in settings.OPTIONS if option.name != HELP.name]
    for name in app.VERBS:
        verb = app.find_command(name).VERB
        found.append(verb.name)
        found += [f"{verb.name} --{option.name}" for option in verb.options if option.name != HELP.name]
    return found


def values() -> list[str]:
    """The claims of all values that ``ocirun features`` names."""
    document = features.document()
    linux = document["linux"]
    seccomp, memory = linux["seccomp"], linux["memoryPolicy"]
    known = {
        "$.mounts[].options": document["mountOptions"],
        "$.linux.namespaces[].type": linux["namespaces"],
        "$.linux.seccomp.architectures": seccomp["archs"],
        "$.linux.seccomp.flags": seccomp["knownFlags"],
        "$.linux.seccomp.syscalls[].action": seccomp["actions"],
        "$.linux.seccomp.syscalls[].args[].op": seccomp["operators"],
        "$.linux.memoryPolicy.mode": memory["modes"],
        "$.linux.memoryPolicy.flags": memory["flags"],
    }
    return [f"config: {field} {value}" for field, found in known.items() for value in found]


def unknown(made: dict[str, list[str]]) -> list[str]:
    """Claims of what there is not."""
    known = {f"config: {field}" for field in fields()} | {f"cli: {option}" for option in options()}
    return [
        claim
        for claim in made
        if claim not in known and not (claim.startswith("config: ") and claim.rsplit(" ", 1)[0] in known)
    ]


def unproved(made: dict[str, list[str]]) -> list[str]:
    """What no test claims, and nobody excuses."""
    missing = [f"config: {field}" for field in fields() if _field(made, field) == _NONE]
    others = [*values(), *(f"cli: {option}" for option in options())]
    return missing + [claim for claim in others if _proof(made, claim) == _NONE]


def page(made: dict[str, list[str]]) -> str:
    """The whole page."""
    config = "".join(f"| `{field}` | {_field(made, field)} |\n" for field in fields())
    claimed = {claim for claim in made if claim.startswith("config: ") and " " in claim.removeprefix("config: ")}
    some = "".join(
        f"| `{claim.removeprefix('config: ').replace(' ', '` `', 1)}` | {_proof(made, claim)} |\n"
        for claim in sorted(claimed | {*values()})
    )
    cli = "".join(f"| `{option}` | {_proof(made, f'cli: {option}')} |\n" for option in options())
    return (
        f"{_HEAD}\n## config.json\n\n| field | tests |\n|---|---|\n{config}"
        f"\n### Values\n\n| field, value | tests |\n|---|---|\n{some}"
        f"\n## Command line\n\n| verb, option | tests |\n|---|---|\n{cli}"
    )


def _field(made: dict[str, list[str]], field: str) -> str:
    claim = f"config: {field}"
    tests = made.get(claim) or sorted({test for each in made if each.startswith(f"{claim} ") for test in made[each]})
    if tests:
        return _tests(tests)
    if any(each.startswith((f"{claim}.", f"{claim}[")) for each in made):
        return "by its fields"
    above = field
    while "." in above:
        above = above.rpartition(".")[0].removesuffix("[]").removesuffix(".*")
        if made.get(f"config: {above}"):
            return f"within `{above}`"
    return EXCUSED.get(claim, _NONE)


def _proof(made: dict[str, list[str]], claim: str) -> str:
    return _tests(made[claim]) if claim in made else EXCUSED.get(claim, _NONE)


def _tests(tests: list[str]) -> str:
    shown = ", ".join(f"`{test.removeprefix('tests/')}`" for test in tests[:_SHOWN])
    return shown + (f" and {len(tests) - _SHOWN} more" if len(tests) > _SHOWN else "")


def main() -> int:
    """Write the page, or print it; 1 if a claim is wrong or missing."""
    made = claims()
    wrong = [f"there is no {claim}: {', '.join(made[claim])}" for claim in unknown(made)]
    wrong += [f"no test claims {claim}" for claim in unproved(made)]
    wrong += [f"not to be excused: {claim}" for claim in EXCUSED if claim in made]
    print(*wrong, sep="\n", end="\n" if wrong else "", file=sys.stderr)
    if sys.argv[1:] == ["--print"]:
        sys.stdout.write(page(made))
    else:
        PAGE.write_text(page(made), encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
