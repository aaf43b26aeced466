"""Draw docs/rooms.svg: the floors and rooms of `flywheel_assets`, from the contracts that `make check` holds.

    python docs/draw_rooms.py            # writes the picture
    python docs/draw_rooms.py --check    # exit code 1 where the picture is out of date

The floors are the layers of the import-linter contracts in `pyproject.toml`, the sentence of a room is the first one
of its docstring, so the picture cannot show a room that is not there.
"""

import ast
import sys
import textwrap
import tomllib
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "rooms.svg"
PACKAGE = "flywheel_assets"
WIDTH, MARGIN, GAP = 1240, 14, 10
LINE, TITLE, PAD = 15, 18, 9
CHARACTER = 6.35


@dataclass(frozen=True)
class Room:
    """One package or module: its name, its sentence, how many modules it holds and its own floors."""

    name: str
    sentence: str
    modules: int
    floors: list[list["Room"]]


def read_floors(package: str, contracts: dict[str, list[str]]) -> list[list[Room]]:
    """The floors of a package, highest first; empty where no contract names any."""
    return [
        [read_room(f"{package}.{name.strip(' ()')}", contracts) for name in layer.split("|")]
        for layer in contracts.get(package, [])
    ]


def read_room(module: str, contracts: dict[str, list[str]]) -> Room:
    """A room from its docstring and its files."""
    path = ROOT.joinpath(*module.split("."))
    is_package = path.is_dir()
    source = path / "__init__.py" if is_package else path.with_suffix(".py")
    words = " ".join((ast.get_docstring(ast.parse(source.read_text())) or "").split())
    sentence = words.split(". ")[0].rstrip(".") + "."
    modules = sum(each.name != "__init__.py" for each in path.rglob("*.py")) if is_package else 1
    return Room(
        module.rpartition(".")[2] + ("" if is_package else ".py"), sentence, modules, read_floors(module, contracts)
    )


def wrap(room: Room, width: float) -> list[str]:
    """The room's sentence in lines that fit into `width` pixels."""
    return textwrap.wrap(room.sentence, max(12, int((width - 2 * PAD) / CHARACTER)))


def height_of(room: Room, width: float) -> float:
    """Pixels that a room of this width needs."""
    inner = sum(GAP / 2 + height_of_floor(floor, width - 2 * PAD) for floor in room.floors)
    return PAD + TITLE + LINE * len(wrap(room, width)) + inner + PAD


def height_of_floor(floor: list[Room], width: float) -> float:
    """Pixels that the highest room of a floor needs."""
    return max(height_of(room, each) for room, each in zip(floor, share(floor, width), strict=True))


def share(floor: list[Room], width: float) -> list[float]:
    """Widths of the rooms of a floor: one with floors of its own gets three parts, another one."""
    parts = [3 if room.floors else 1 for room in floor]
    free = width - GAP * (len(floor) - 1)
    return [free * part / sum(parts) for part in parts]


def draw_floor(floor: list[Room], x: float, y: float, width: float, depth: int) -> list[str]:
    """The rooms of a floor, left to right."""
    height, shapes = height_of_floor(floor, width), []
    for room, each in zip(floor, share(floor, width), strict=True):
        shapes += draw_room(room, x, y, each, height, depth)
        x += each + GAP
    return shapes


def draw_room(room: Room, x: float, y: float, width: float, height: float, depth: int) -> list[str]:
    """One room: its frame, name, number of modules and sentence, and the floors in it."""
    count = f"  ({room.modules})" if room.modules > 1 else ""
    shapes = [
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" rx="4" class="d{depth}"/>',
        f'<text x="{x + PAD:.0f}" y="{y + PAD + 11:.0f}" class="name">{escape(room.name + count)}</text>',
    ]
    top = y + PAD + TITLE
    for line in wrap(room, width):
        shapes.append(f'<text x="{x + PAD:.0f}" y="{top + 10:.0f}">{escape(line)}</text>')
        top += LINE
    for floor in room.floors:
        shapes += draw_floor(floor, x + PAD, top + GAP / 2, width - 2 * PAD, depth + 1)
        top += GAP / 2 + height_of_floor(floor, width - 2 * PAD)
    return shapes


def draw() -> str:
    """The whole picture as SVG."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = {
        contract["containers"][0]: contract["layers"]
        for contract in project["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    }
    shapes, y, inner = [], MARGIN + 24.0, WIDTH - 2 * MARGIN
    for floor in read_floors(PACKAGE, contracts):
        shapes += draw_floor(floor, MARGIN, y, inner, 0)
        y += height_of_floor(floor, inner) + GAP
    style = (
        "text{font:11.5px Helvetica,Arial,sans-serif;fill:#333}.name{font-weight:bold;font-size:12.5px;fill:#111}"
        "rect{stroke:#8a8f98;stroke-width:1}.d0{fill:#f4f6f8}.d1{fill:#ffffff}.d2{fill:#f4f6f8}"
    )
    title = "Rooms of flywheel_assets. A room may import what lies below it, never what lies above or in its own row."
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y:.0f}" viewBox="0 0 {WIDTH} {y:.0f}">',
            f"<style>{style}</style>",
            '<rect width="100%" height="100%" style="fill:#fff;stroke:none"/>',
            f'<text x="{MARGIN}" y="{MARGIN + 8}" class="name">{title}</text>',
            *shapes,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    picture = draw()
    if "--check" in sys.argv:
        sys.exit(PICTURE.read_text() != picture)
    PICTURE.write_text(picture)
    print(f"wrote {PICTURE.relative_to(ROOT)}")
