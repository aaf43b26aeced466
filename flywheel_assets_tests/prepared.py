"""What takes long to prepare is prepared once a module, and every test finds it untouched."""

import shutil
from pathlib import Path


class PreparedFolder:
    """A folder that comes back as it was when this was made, at the same path: Iceberg's metadata names absolute paths.

    Nothing that a test opened in it may be used by the next one: make lakes and stores anew from the path.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._original = path.with_name(f"{path.name}.original")
        shutil.copytree(path, self._original)

    def restored(self) -> Path:
        """The folder, without whatever happened to it since."""
        shutil.rmtree(self._path, ignore_errors=True)
        shutil.copytree(self._original, self._path)
        return self._path
