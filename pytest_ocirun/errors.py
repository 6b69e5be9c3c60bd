"""Every error that pytest-ocirun raises on purpose.

::

    OcirunError                 what was attempted, on what, why; ``hint`` says what to do
    +-- ConfigError             a document or setting is wrong (also a ValueError)
    +-- ContainerNotFound       no container of that id (also a LookupError)
    +-- ContainerExists         the id is taken
    +-- WrongStatus             the container is not in a status that allows the operation
    +-- KernelRefused           a system call of a plan failed (also an OSError)
    +-- HookFailed              a hook of the config could not be run, failed, or took too long
    +-- Unsupported             this host or this version cannot do what was asked
    +-- ImageError              an image cannot be found, read or unpacked
    +-- ProtocolError           the other side of a channel broke the rules
    +-- CommandFailed           a program run with check=True failed; carries the result

The faces turn them into their own kind of failure: the plugin into ``pytest.UsageError`` or an
errored test, the command line into a message and ``exit_code``. Nothing here imports anything.
"""


class OcirunError(Exception):
    """The root. ``str()`` is the message, followed by the hint on a line of its own.

    Args:
        message: what was attempted, on what, and why it failed.
        hint: what the user can do about it, if anything is known.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class ConfigError(OcirunError, ValueError):
    """A document or a setting has the wrong type, value or combination."""


class ContainerNotFound(OcirunError, LookupError):
    """No container of that id exists under the state root."""


class ContainerExists(OcirunError):
    """A container of that id exists already; it is left unharmed."""


class WrongStatus(OcirunError):
    """The container's status does not allow the operation."""


class KernelRefused(OcirunError, OSError):
    """A system call of a plan failed.

    Args:
        message: the step that failed, as its ``describe()`` puts it, and the kernel's answer.
        errno: the kernel's error number.
        hint: what the user can do about it.
    """

    def __init__(self, message: str, *, errno: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.errno = errno


class HookFailed(OcirunError):
    """A hook of the config could not be run, failed, or took longer than its timeout."""


class Unsupported(OcirunError):
    """This kernel, host or version of ocirun cannot do what was asked, and will not pretend to."""


class ImageError(OcirunError):
    """An image cannot be found, read, verified or unpacked."""


class ProtocolError(OcirunError):
    """A message on a channel was malformed, unexpected, too large or late."""


class CommandFailed(OcirunError):
    """A program run with ``check=True`` failed.

    Args:
        message: what was run, and how it ended.
        result: the engine's ``ExecResult``, with the output; its end is shown as the hint.
    """

    def __init__(self, message: str, result: object) -> None:
        output = str(getattr(result, "stderr", "")).strip() or str(getattr(result, "stdout", "")).strip()
        super().__init__(message, hint=output[-2000:] or None)
        self.result = result
