"""What the studio refuses, as a sentence with a status of HTTP."""

from unnoise.utils.errors import UserError


class Refusal(UserError):
    """A request that is answered with this status and one sentence; a plain `UserError` is answered with 400."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
