"""One table: for every option of pytest, who acts on it - the host, the guest, or nobody - and how it is passed on.

The guest is pytest inside a container, perhaps another version. What it needs is rebuilt from the host's parsed
values, not copied from the command line; ``addopts`` has been applied by then and is switched off inside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_ocirun.errors import Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

HOST = "host"
FLAG = "flag"
VALUE = "value"
EACH = "each"
SPECIAL = "special"
REFUSED = "refused"

# dest -> (owner or form, the guest's spelling or the reason). FLAG, VALUE and EACH go to the guest when they differ
# from the default given third. SPECIAL has code of its own in guest_arguments.
TABLE: dict[str, tuple[Any, ...]] = {
    "assertmode": (VALUE, "--assert", "rewrite"),
    "basetemp": (SPECIAL,),
    "cacheclear": (HOST,),
    "cacheshow": (HOST,),
    "capture": (SPECIAL,),
    "code_highlight": (HOST,),
    "collect_in_virtualenv": (FLAG, "--collect-in-virtualenv"),
    "collectonly": (HOST,),
    "color": (HOST,),
    "confcutdir": (SPECIAL,),
    "continue_on_collection_errors": (HOST,),
    "debug": (HOST,),
    "deselect": (HOST,),
    "disable_plugin_autoload": (FLAG, "--disable-plugin-autoload"),
    "disable_warnings": (HOST,),
    "doctest_continue_on_failure": (FLAG, "--doctest-continue-on-failure"),
    "doctest_ignore_import_errors": (FLAG, "--doctest-ignore-import-errors"),
    "doctestglob": (EACH, "--doctest-glob"),
    "doctestmodules": (FLAG, "--doctest-modules"),
    "doctestreport": (VALUE, "--doctest-report", "udiff"),
    "durations": (HOST,),
    "durations_min": (HOST,),
    "failedfirst": (HOST,),
    "file_or_dir": (SPECIAL,),
    "fold_skipped": (HOST,),
    "force_short_summary": (HOST,),
    "fulltrace": (FLAG, "--full-trace"),
    "help": (HOST,),
    "ignore": (EACH, "--ignore"),
    "ignore_glob": (EACH, "--ignore-glob"),
    "importmode": (VALUE, "--import-mode", "prepend"),
    "inifilename": (SPECIAL,),
    "junitprefix": (HOST,),
    "keepduplicates": (FLAG, "--keep-duplicates"),
    "keyword": (HOST,),
    "last_failed_no_failures": (HOST,),
    "lf": (HOST,),
    "log_auto_indent": (VALUE, "--log-auto-indent", None),
    "log_cli_date_format": (REFUSED, "log output is not shown live"),
    "log_cli_format": (REFUSED, "log output is not shown live"),
    "log_cli_level": (REFUSED, "log output is not shown live"),
    "log_date_format": (VALUE, "--log-date-format", None),
    "log_file": (REFUSED, "a log file written inside would be lost"),
    "log_file_date_format": (REFUSED, "a log file written inside would be lost"),
    "log_file_format": (REFUSED, "a log file written inside would be lost"),
    "log_file_level": (REFUSED, "a log file written inside would be lost"),
    "log_file_mode": (REFUSED, "a log file written inside would be lost"),
    "log_format": (VALUE, "--log-format", None),
    "log_level": (VALUE, "--log-level", None),
    "logger_disable": (EACH, "--log-disable"),
    "lsof": (FLAG, "--lsof"),
    "markers": (HOST,),
    "markexpr": (HOST,),
    "max_warnings": (HOST,),
    "maxfail": (HOST,),
    "newfirst": (HOST,),
    "no_header": (HOST,),
    "no_summary": (HOST,),
    "noconftest": (SPECIAL,),
    "override_ini": (SPECIAL,),
    "pastebin": (HOST,),
    "plugins": (SPECIAL,),
    "pyargs": (REFUSED, "give the tests as paths"),
    "pythonwarnings": (EACH, "-W"),
    "reportchars": (HOST,),
    "rootdir": (SPECIAL,),
    "runpytest": (VALUE, "--runpytest", "inprocess"),
    "runxfail": (FLAG, "--runxfail"),
    "setuponly": (REFUSED, "fixtures are not shown from inside"),
    "setupplan": (REFUSED, "fixtures are not shown from inside"),
    "setupshow": (REFUSED, "fixtures are not shown from inside"),
    "show_fixtures_per_test": (REFUSED, "it would import the tests on this host"),
    "showcapture": (HOST,),
    "showfixtures": (REFUSED, "it would import the tests on this host"),
    "showlocals": (FLAG, "--showlocals"),
    "stepwise": (HOST,),
    "stepwise_reset": (HOST,),
    "stepwise_skip": (HOST,),
    "strict": (FLAG, "--strict"),
    "strict_config": (FLAG, "--strict-config"),
    "strict_markers": (FLAG, "--strict-markers"),
    "tbstyle": (VALUE, "--tb", "auto"),
    "trace": (REFUSED, "there is no terminal inside"),
    "traceconfig": (HOST,),
    "usepdb": (REFUSED, "there is no terminal inside"),
    "usepdb_cls": (REFUSED, "there is no terminal inside"),
    "verbose": (SPECIAL,),
    "version": (HOST,),
    "xfail_tb": (HOST,),
    "xmlpath": (HOST,),
}
# The same for options of other plugins that act inside; who gives one needs the plugin in the image as well.
OF_PLUGINS: dict[str, tuple[Any, ...]] = {
    "asyncio_mode": (VALUE, "--asyncio-mode", None),
    "asyncio_debug": (FLAG, "--asyncio-debug"),
    "timeout": (VALUE, "--timeout", None),
    "timeout_method": (VALUE, "--timeout-method", None),
    "timeout_disable_debugger_detection": (FLAG, "--timeout-disable-debugger-detection"),
}
_SPELLED = {
    "setuponly": "--setup-only",
    "setupplan": "--setup-plan",
    "setupshow": "--setup-show",
    "usepdb": "--pdb",
    "usepdb_cls": "--pdbcls",
    "showfixtures": "--fixtures",
    "show_fixtures_per_test": "--fixtures-per-test",
}
# Plugins that act on the host's items; inside they would act a second time (the image may be this very host).
_HOST_PLUGINS = (
    "xdist",
    "xdist.looponfail",
    "rerunfailures",
    "html",
    "reportlog",
    "pytest_reportlog",
    "pytest_cov",
    "randomly",
)
_STRICT = ("strict=", "strict_config=", "strict_markers=")


def refuse(config: pytest.Config) -> None:
    """Refuse options that neither side can honour.

    Raises:
        Unsupported: naming the first one found, and why.
    """
    option = config.option
    if option.capture not in {"fd", "sys"}:
        spelled = "-s" if option.capture == "no" else f"--capture={option.capture}"
        raise Unsupported(f"{spelled} does not work for tests inside containers yet", hint=_REFUSED_HINT)
    for dest, (form, *details) in TABLE.items():
        if form is REFUSED and getattr(option, dest, None):
            spelled = _SPELLED.get(dest, "--" + dest.replace("_", "-"))
            raise Unsupported(f"{spelled} does not work for tests inside containers: {details[0]}", hint=_REFUSED_HINT)


_REFUSED_HINT = "Leave it out, or run the tests on the host (--ocirun-run host)."


def guest_arguments(config: pytest.Config, *, noconftest: bool, extra: Iterable[str]) -> list[str]:
    """Return the options of the pytest inside.

    Args:
        config: the host's configuration.
        noconftest: whether the *user* asked for --noconftest; the host's own value is always true.
        extra: the user's --ocirun-args.
    """
    option = config.option
    arguments = [f"--rootdir={config.rootpath}", f"--confcutdir={_confcutdir(config)}"]
    if config.inipath is not None:
        arguments += ["-c", str(config.inipath)]
    arguments += ["--continue-on-collection-errors", "--color=no", f"--verbosity={option.verbose}"]
    arguments.append(f"--capture={option.capture}")
    if option.basetemp and not hasattr(config, "workerinput"):  # xdist gives its workers one of this host
        arguments.append(f"--basetemp={option.basetemp}")
    if noconftest:
        arguments.append("--noconftest")
    for dest, (form, *details) in (TABLE | OF_PLUGINS).items():
        arguments += _forward(form, getattr(option, dest, None), details)
    arguments += _overrides(option.override_ini or (), cache="no:cacheprovider" not in option.plugins)
    for name in (*_HOST_PLUGINS, "ocirun"):
        arguments += ["-p", f"no:{name}"]
    for name in option.plugins:
        if not name.removeprefix("no:").startswith("pytest_ocirun") and name != "no:terminal":
            arguments += ["-p", name]
    return [*arguments, *extra]


def _forward(form: str, value: Any, details: list[Any]) -> list[str]:
    if form is FLAG and value:
        return [details[0]]
    if form is VALUE and value not in {None, details[1]}:
        return [f"{details[0]}={value}"]
    if form is EACH:
        return [part for one in value or () for part in _pair(details[0], str(one))]
    return []


def _pair(name: str, value: str) -> list[str]:
    return [name, value] if name == "-W" else [f"{name}={value}"]


def _overrides(given: Iterable[str], *, cache: bool) -> list[str]:
    """Ini overrides, but for those that pytest makes of --strict-markers and its kin: inside they are options."""
    kept = [one for one in given if not one.startswith(("addopts=", "cache_dir=", *_STRICT))]
    if cache:
        kept.append("cache_dir=/tmp/.pytest_cache")
    return [part for one in [*kept, "addopts="] for part in ("-o", one)]


def _confcutdir(config: pytest.Config) -> str:
    """Where a plain run would stop looking for conftest files; versions before 8 differ unless they are told."""
    given = config.option.confcutdir
    if given:
        return str(config.invocation_params.dir / given)
    return str(config.inipath.parent if config.inipath is not None else config.rootpath)
