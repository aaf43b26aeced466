"""Reads exports of tools in which people judge and correct answers."""

from flywheel_assets.formats.annotations.argilla import ARGILLA
from flywheel_assets.formats.annotations.label_studio import LABEL_STUDIO, LABEL_STUDIO_MIN
from flywheel_assets.formats.format import Format

FORMATS: tuple[Format, ...] = (ARGILLA, LABEL_STUDIO, LABEL_STUDIO_MIN)
