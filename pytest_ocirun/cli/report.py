"""What the command line says when something goes wrong, and the exit status that goes with it.

Responsible for: one line and a hint on stderr, the same as one entry of the log that clients such as podman
read (``--log``), never a traceback unless ``--debug`` asks. Must not know: verbs.
"""

from __future__ import annotations

import os

from pytest_ocirun.errors import OcirunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.cli.settings import Settings

INTERRUPTED = 128


class Interrupted(BaseException):
    """A signal asked us to end; not an Exception, so that only clean-up sees it on its way.

    Args:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Journal:
    """Where messages go.

    Args:
        settings: the global options.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def debug(self, text: str) -> None:
        """What is about to be done; shown only with ``--debug``."""
        if self._settings.debug:
            self._say("debug", text)

    def warning(self, text: str) -> None:
        """Something odd that is carried on with; for the log, or for who asked for ``--debug``."""
        if self._settings.log or self._settings.debug:
            self._say("warning", text)

    def _say(self, level: str, text: str) -> None:
        if self._settings.log:
            self._append(level, text)
        else:
            write_error(f"ocirun: {text}\n")

    def failure(self, error: BaseException, code: int | None = None) -> int:
        """Report an error.

        Args:
            error: what was raised.
            code: the verb's own exit status for errors; the error's own when None.

        Returns:
            The exit status.
        """
        if isinstance(error, Interrupted):
            return INTERRUPTED + error.number
        if isinstance(error, KeyboardInterrupt):
            return INTERRUPTED + 2
        if isinstance(error, BrokenPipeError) and not self._settings.debug:
            _drop_stdout()
            return 1
        message, hint = _words(error)
        if self._settings.debug and not isinstance(error, OcirunError):
            import traceback

            write_error("".join(traceback.format_exception(error)))
        for note in getattr(error, "__notes__", ()):
            message = f"{message}; {note}"
        write_error(f"ocirun: {message}\n" + (f"{hint}\n" if hint else ""))
        if self._settings.log:
            self._append("error", f"{message} ({hint})" if hint else message)
        return code or (error.exit_code if isinstance(error, OcirunError) else 1)

    def _append(self, level: str, text: str) -> None:
        import time

        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._settings.log_format == "json":
            import json

            line = json.dumps({"level": level, "msg": text, "time": now})
        else:
            quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            line = f'time="{now}" level={level} msg="{quoted}"'
        try:
            fd = os.open(self._settings.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            write_error(f"ocirun: write the log {self._settings.log}: {error.strerror}\n")
            return
        with os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{line}\n")


def _words(error: BaseException) -> tuple[str, str | None]:
    if isinstance(error, OcirunError):
        return _one_line(error.message), error.hint
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename is not None else ""
        return _one_line(f"{error.strerror}{where}"), "Run it with --debug to see where this happened."
    text = _one_line(f"unexpected {type(error).__name__}: {error}")
    return text, "This is a bug of ocirun. Run it with --debug to see where it happened."


def _one_line(text: str) -> str:
    """Keep control characters of a config or an image off the terminal and out of the log's lines."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def write_error(text: str) -> None:
    """Write to stderr whatever the encoding; nobody to read it is no error."""
    try:
        os.write(2, text.encode("utf-8", "backslashreplace"))
    except OSError:
        pass


def _drop_stdout() -> None:
    """Let the interpreter's last flush go nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
