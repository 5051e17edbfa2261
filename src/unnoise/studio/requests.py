"""Reading requests: bodies of a bounded size, JSON objects field by field, nothing unknown in them."""

import math
from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from unnoise.studio.errors import Refusal
from unnoise.utils import atomic
from unnoise.utils.errors import nearest

if TYPE_CHECKING:
    from unnoise.studio.api import Api

MAX_JSON = 2**20  # bytes
DRAIN = 2**25  # bytes of a body too large that are read and dropped, so that its sender gets to read the answer
MISSING: Any = object()


def api_of(request: Request) -> "Api":
    """What the handlers share."""
    api: Api = request.app.state.studio.api
    return api


async def read_body(request: Request, limit: int, what: str) -> bytes:
    """The whole body. Raises Refusal (413) where it has more than `limit` bytes; `what` names it in the sentence."""
    parts, size = [], 0
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > DRAIN:
        raise _too_large(what, limit)
    async for part in request.stream():
        size += len(part)
        if size <= limit:
            parts.append(part)
        elif size > DRAIN:
            break
    if size > limit:
        raise _too_large(what, limit)
    return b"".join(parts)


def _too_large(what: str, limit: int) -> Refusal:
    return Refusal(413, f"{what} is larger than {limit / 2**20:g} MiB: give a smaller one")


async def read_fields(request: Request) -> "Fields":
    """The JSON object in a request, or an empty one where there is no body. Raises Refusal for anything else."""
    raw = await read_body(request, MAX_JSON, "this request")
    try:
        found = atomic.parse_json(raw.decode()) if raw else {}
    except ValueError as e:
        raise Refusal(400, f"this request is no JSON ({e}): reload the page") from e
    if not isinstance(found, dict):
        raise Refusal(400, "a request is a JSON object with fields: reload the page")
    return Fields(found)


class Fields:
    """The fields of an object, each read once with its bounds; `end` refuses those that nobody read."""

    def __init__(self, found: dict[str, Any], where: str = "") -> None:
        self._found, self._where, self._read = found, where, set[str]()

    def __contains__(self, name: str) -> bool:
        return self._found.get(name) is not None

    def end(self) -> None:
        """Raises Refusal for a field that is unknown."""
        for name in self._found.keys() - self._read:
            raise Refusal(400, f"unknown field '{self._where}{name[:40]}': {nearest(name[:40], self._read)}")

    def text(self, name: str, default: Any = MISSING, longest: int = 4096) -> Any:
        value = self._take(name, default)
        if value is default:
            return value
        if not isinstance(value, str) or not 0 < len(value) <= longest or "\0" in value:
            raise self._wrong(name, f"a text of 1 to {longest} characters")
        return value

    def choice(self, name: str, valid: Any, default: Any = MISSING) -> Any:
        value = self.text(name, default)
        if value is not default and value not in valid:
            raise Refusal(400, f"unknown {self._where}{name} '{value[:40]}': {nearest(value[:40], valid)}")
        return value

    def whole(self, name: str, low: int, high: int, default: Any = MISSING) -> Any:
        value = self._take(name, default)
        if value is default:
            return value
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is not int or not low <= value <= high:
            raise self._wrong(name, f"a whole number from {low} to {high}")
        return value

    def number(self, name: str, low: float, high: float, default: Any = MISSING) -> Any:
        value = self._take(name, default)
        if value is default:
            return value
        if type(value) not in (int, float) or not low <= value <= high or not math.isfinite(value):
            raise self._wrong(name, f"a number from {low:g} to {high:g}")
        return float(value)

    def flag(self, name: str) -> bool:
        value = self._take(name, False)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def object(self, name: str, default: Any = MISSING) -> Any:
        """The fields of an object within."""
        value = self._take(name, default)
        if value is default:
            return value
        if not isinstance(value, dict):
            raise self._wrong(name, "an object with fields")
        return Fields(value, f"{self._where}{name}.")

    def text_or_object(self, name: str, field: str, default: Any = MISSING) -> Any:
        """An object, or a text, which is its `field`."""
        value = self._take(name, default)
        return Fields({field: value}, f"{self._where}{name}.") if isinstance(value, str) else self.object(name, default)

    def _take(self, name: str, default: Any) -> Any:
        self._read.add(name)
        value = self._found.get(name)
        if value is None and default is MISSING:
            raise self._wrong(name, "given")
        return default if value is None else value

    def _wrong(self, name: str, wanted: str) -> Refusal:
        value = self._found.get(name)
        shown = f", not {str(value)[:40]!r}" if value is not None else ""
        return Refusal(400, f"'{self._where}{name}' must be {wanted}{shown}")
