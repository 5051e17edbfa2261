"""Writing that a training can do without."""

from collections.abc import Callable

from unnoise.utils.errors import UserError


class Attempts:
    """Writes; where that fails training goes on, which is said once of each thing."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self._failed = say, set[str]()

    def __call__(self, what: str, write: Callable[[], object]) -> None:
        try:
            write()
        except (OSError, UserError) as e:
            if what not in self._failed:
                self.say(f"{what} can't be written ({getattr(e, 'strerror', None) or e}): training goes on without")
            self._failed.add(what)
