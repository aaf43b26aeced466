"""An S3 client that dies in the middle of its work, as a killed process does."""

from typing import Any


class Killed(BaseException):
    """The process ends here; nothing catches it."""


class FailsAt:
    """S3's client; the process is killed before the change of this number."""

    def __init__(self, client: Any, left: int) -> None:
        self._client, self._left, self.changes = client, left, 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._client, name)
        if name not in ("put_object", "delete_object"):
            return real

        def change(**arguments: Any) -> Any:
            self.changes += 1
            if self.changes == self._left:
                raise Killed
            return real(**arguments)

        return change
