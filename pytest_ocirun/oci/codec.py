"""Turns plain JSON values into typed documents and back, and says where a value is wrong.

Responsible for: the ``Document`` base class, ``decode``, ``encode``, ``load`` and ``walk``, all driven by
class annotations. Must not know: any particular document, nor what one is used for.

A class body declares the document; its annotations are real run-time types, so its module must not postpone
their evaluation::

    class Root(Document):
        path: str  # required
        readonly: bool = False  # optional
        options: list[str] = field(factory=list)  # optional, a fresh list for each document

Go's rules hold where they are harmless: unknown properties are ignored, ``null`` means absent, of equal keys
the last one wins. Absent strings are ``""``, absent lists and maps are empty, absent numbers and objects are
``None`` (or an empty object, where the class says so).

Deliberately neither ``dataclasses`` nor ``typing`` nor a library: each costs a container runtime that is
started anew for each command more than all the rest of its decoding (2 to 47 ms; this package takes 2).
"""

from __future__ import annotations

from pytest_ocirun.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

    T = TypeVar("T")
    D = TypeVar("D", bound="Document")
    Reader = Callable[[object, str], object]
else:

    def dataclass_transform(**_options):  # noqa: ANN003, ANN201, D103 - what a type checker sees is in the branch above
        return lambda cls: cls


SIZE_CAP = 16 * 1024 * 1024
"""The largest text, in bytes, that ``load`` reads: far above any honest document."""

_MISSING = object()
_UNION: Any = type(int | str)
_SHOWN = 60


class _Default:
    """What ``field()`` leaves in a class body until the class is complete."""

    __slots__ = ("factory",)

    def __init__(self, factory: Callable[[], object]) -> None:
        self.factory = factory


def field(*, factory: Callable[[], T]) -> T:
    """Declare an optional property whose absence means a fresh ``factory()``.

    Args:
        factory: makes the value; a list, dict or Document type.
    """
    return _Default(factory)  # type: ignore[return-value]  # _compile() takes it out of the class


class _Field:
    """One property: its Python name, its JSON key, and how to read and when to write it."""

    __slots__ = ("default", "factory", "key", "name", "read", "required")

    def __init__(self, name: str, key: str, read: Reader, default: object) -> None:
        self.name = name
        self.key = key
        self.read = read
        self.factory = default.factory if isinstance(default, _Default) else None
        self.required = default is _MISSING
        self.default = None if self.required or self.factory else default


@dataclass_transform(kw_only_default=True, field_specifiers=(field,))
class Document:
    """A JSON object with known properties.

    Args:
        names: JSON keys of those properties whose key is not the camelCase form of the attribute's name.
    """

    _names: ClassVar[dict[str, str]]
    _fields: ClassVar[tuple[_Field, ...] | None]

    def __init_subclass__(cls, names: dict[str, str] | None = None) -> None:
        cls._names = names or {}
        cls._fields = None

    def __init__(self, **values: object) -> None:
        own = self.__dict__
        for each in fields(type(self)):
            if each.name in values:
                own[each.name] = values.pop(each.name)
            elif each.factory is not None:
                own[each.name] = each.factory()
            elif each.required:
                raise TypeError(f"{type(self).__name__}() needs {each.name}=")
            else:
                own[each.name] = each.default
        if values:
            raise TypeError(f"{type(self).__name__}() has no {', '.join(values)}")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]  # documents are mutable

    def __repr__(self) -> str:
        present = {
            name: value for name, value in vars(self).items() if value is not False and value not in (None, "", [], {})
        }
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in present.items())})"

    def copy(self) -> Self:
        """Return a deep copy, which shares nothing with the original."""
        return decode(type(self), encode(self))


def fields(cls: type[Document]) -> tuple[_Field, ...]:
    """Return the properties of a document class; worked out at the first call, as most are never used."""
    if cls._fields is None:
        cls._fields = tuple(_compile(cls))
    return cls._fields


def _compile(cls: type[Document]) -> Iterator[_Field]:
    for name, annotation in cls.__annotations__.items():
        yield _Field(name, cls._names.get(name) or _camel(name), _reader(annotation), vars(cls).get(name, _MISSING))


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def _reader(annotation: Any) -> Reader:
    if isinstance(annotation, _UNION):
        (annotation,) = (part for part in annotation.__args__ if part is not type(None))
    origin = getattr(annotation, "__origin__", annotation)
    if origin is list:
        return _list_reader(_reader(annotation.__args__[0]))
    if origin is dict:
        return _map_reader(_reader(annotation.__args__[1]))
    if isinstance(annotation, type) and issubclass(annotation, Document):
        return lambda value, path: decode(annotation, value, path)
    return _SCALARS[annotation]


def _list_reader(read: Reader) -> Reader:
    def read_list(value: object, path: str) -> list[object]:
        if not isinstance(value, list):
            raise _wrong(path, "array", value)
        return [read(item, f"{path}[{index}]") for index, item in enumerate(value)]

    return read_list


def _map_reader(read: Reader) -> Reader:
    def read_map(value: object, path: str) -> dict[str, object]:
        if not isinstance(value, dict):
            raise _wrong(path, "object", value)
        return {_read_str(key, f"{path} key"): read(item, member(path, key)) for key, item in value.items()}

    return read_map


def _read_str(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise _wrong(path, "string", value)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise _wrong(path, "string of valid Unicode", value) from error
    return value


def _read_int(value: object, path: str) -> int:
    if type(value) is not int:
        raise _wrong(path, "integer", value)
    return value


def _read_bool(value: object, path: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(path, "boolean", value)
    return value


_SCALARS: dict[type, Reader] = {str: _read_str, int: _read_int, bool: _read_bool}


def decode(cls: type[D], value: object, path: str = "$") -> D:
    """Make a document of a plain JSON value.

    Args:
        cls: the document's class.
        value: what ``json.loads`` returned.
        path: where the value lies, for messages.

    Raises:
        ConfigError: a property is missing or has another type; the message begins with its path.
    """
    if not isinstance(value, dict):
        raise _wrong(path, "object", value)
    given = {}
    for each in fields(cls):
        item = value.get(each.key)
        if item is not None:
            given[each.name] = each.read(item, f"{path}.{each.key}")
        elif each.required:
            raise ConfigError(f"{path}.{each.key}: required, but missing")
    return cls(**given)


def encode(document: Document) -> dict[str, object]:
    """Make plain JSON values of a document, without its absent properties.

    Required properties and numbers are always written; ``None``, and empty values of properties for which
    empty means absent, are not.
    """
    plain: dict[str, object] = {}
    for each in fields(type(document)):
        value = getattr(document, each.name)
        if value is None:
            continue
        written = _plain(value)
        may_drop = not each.required and (each.factory is not None or each.default is not None)
        if written or not may_drop or type(written) is int:
            plain[each.key] = written
    return plain


def _plain(value: object) -> object:
    if isinstance(value, Document):
        return encode(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def load(cls: type[D], text: bytes, name: str) -> D:
    """Decode a document from the bytes of a JSON file.

    Args:
        cls: the document's class.
        text: the file's content.
        name: what to call the file in messages.

    Raises:
        ConfigError: the text is no JSON object of this kind; the message names the file and the place.
    """
    try:
        return decode(cls, parse(text))
    except ConfigError as error:
        message = f"cannot read {name}: {error.message}"
        raise ConfigError(message, hint=error.hint) from error


def parse(text: bytes) -> object:
    """Return the plain value of a JSON text, more strictly than ``json.loads``: UTF-8 only, no NaN, bounded.

    Raises:
        ConfigError: the text is no JSON; the message says where it goes wrong.
    """
    from pytest_ocirun.oci import json_text

    if len(text) > SIZE_CAP:
        raise ConfigError(f"{len(text)} bytes are more than the {SIZE_CAP} that any honest document needs")
    try:
        return json_text.loads(text, _refuse_constant)
    except UnicodeDecodeError as error:
        raise ConfigError(f"not UTF-8 at byte {error.start}: {error.reason}") from error
    except RecursionError as error:
        raise ConfigError("arrays or objects are nested too deeply") from error
    except ConfigError:
        raise
    except ValueError as error:
        import json

        if isinstance(error, json.JSONDecodeError):
            raise ConfigError(f"not JSON at line {error.lineno}, column {error.colno}: {error.msg}") from error
        raise ConfigError(f"a number is too long: {error}") from error


def _refuse_constant(name: str) -> object:
    raise ConfigError(f"not JSON: {name} is no number")


def dump(document: Document) -> bytes:
    """Return a document as the bytes of a JSON file, indented for people, with a final newline."""
    import json

    return json.dumps(encode(document), indent=2, ensure_ascii=False).encode() + b"\n"


def walk(value: object, path: str = "$") -> Iterator[tuple[str, object]]:
    """Yield every string, number and boolean of a document with its path; keys of maps count as strings."""
    if isinstance(value, Document):
        for each in fields(type(value)):
            yield from walk(getattr(value, each.name), f"{path}.{each.key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from walk(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield member(path, key), key
            yield from walk(item, member(path, key))
    elif value is not None:
        yield path, value


def member(path: str, key: str) -> str:
    """Return the path of a map's member: ``$.sysctl["net.ipv4.ip_forward"]``."""
    return f"{path}[{_quote(key)}]"


def _wrong(path: str, expected: str, value: object) -> ConfigError:
    return ConfigError(f"{path}: expected {expected}, got {show(value)}")


def show(value: object) -> str:
    """Return a plain JSON value as a message shows it: its kind, and a scalar's value in printable ASCII."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"boolean {str(value).lower()}"
    if isinstance(value, str):
        return f"string {_quote(value)}"
    if isinstance(value, int | float):
        return f"{'integer' if isinstance(value, int) else 'number'} {_number(value)}"
    return "array" if isinstance(value, list) else "object"


def _number(value: float) -> str:
    try:
        digits = str(value)
    except ValueError:
        return "of thousands of digits"
    return digits if len(digits) <= _SHOWN else digits[:_SHOWN] + "..."


def _quote(text: str) -> str:
    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return '"' + ascii(shown)[1:-1].replace('"', '\\"') + '"'
