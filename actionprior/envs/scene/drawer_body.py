"""A box with a drawer: its pose, the positions of its parts, and its URDF.

The drawer slides on a prismatic joint towards the middle of the table. The tab at its front has a
flat top, which a suction cup can pull.
"""

from __future__ import annotations

import math
from typing import NamedTuple

TRAVEL = 0.12
"""Largest opening of the drawer [m]."""
FLOOR = 0.006
"""Height of the drawer's floor [m]."""
HANDLE_TOP = 0.045
"""Height of the top of the tab [m]."""
INNER = 0.10
"""Edge of the free square inside the drawer [m]."""

_WALL = 0.008
_TRAY_HEIGHT = 0.045
_BOX_HALF_X, _BOX_HALF_Y, _BOX_HEIGHT = 0.076, 0.065, 0.07
_TRAY_HALF = INNER / 2 + _WALL
_HANDLE_AHEAD = _BOX_HALF_Y + 0.035
"""Distance from the middle of the closed drawer to the middle of the tab [m]."""
_TAB_END = _HANDLE_AHEAD + 0.03
_TAB_WIDTH, _TAB_THICK = 0.06, 0.012
_AWAY = 0.215
"""Distance of the box's middle from the middle of the table, along y [m]."""
_WOOD, _LIGHT, _DARK = "0.45 0.33 0.24 1", "0.80 0.72 0.60 1", "0.20 0.20 0.22 1"

type Box = tuple[float, float, float, float, float, float]
"""Centre (x, y, z) and size (x, y, z) of a part [m]."""


class Drawer(NamedTuple):
    """A drawer at the table's left (``side`` 1) or right (``side`` -1) edge, at ``x`` [m]."""

    x: float
    side: int

    @property
    def base(self) -> tuple[float, float, float]:
        """Position of the middle of the box's bottom [m, table]."""
        return self.x, self.side * _AWAY, 0.0

    @property
    def yaw(self) -> float:
        """Rotation of the box about z [rad]."""
        return 0.0 if self.side > 0 else math.pi

    def middle(self, opening: float) -> tuple[float, float, float]:
        """Compute the middle of the drawer's floor at an opening [m, table]."""
        return self.x, self.side * (_AWAY - opening), FLOOR

    def handle(self, opening: float) -> tuple[float, float, float]:
        """Compute the middle of the top of the tab at an opening [m, table]."""
        return self.x, self.side * (_AWAY - _HANDLE_AHEAD - opening), HANDLE_TOP

    def height(self, x: float, y: float, opening: float, margin: float) -> float:
        """Compute the height of the drawer or box at a place.

        Args:
            x: Place along x [m, table].
            y: Place along y [m, table].
            opening: Opening of the drawer [m].
            margin: Distance around the place to include [m].

        Returns:
            The height [m], or 0 if the drawer is not within ``margin``.
        """
        aside, ahead = abs(x - self.x), _AWAY - self.side * y
        if aside < _BOX_HALF_X + margin and ahead < _BOX_HALF_Y + margin:
            return _BOX_HEIGHT
        if max(aside, abs(ahead - opening)) < INNER / 2 - margin:
            return FLOOR
        if aside < _TRAY_HALF + margin and ahead < opening + _TAB_END + margin:
            return HANDLE_TOP
        return 0.0


def drawer_urdf() -> str:
    """Write a URDF with a fixed box and a drawer (link 0) that opens along -y."""
    top = _BOX_HEIGHT
    side = (_BOX_HALF_X - _WALL / 2, 0.0, top / 2, _WALL, 2 * _BOX_HALF_Y, top)
    box: list[tuple[Box, str]] = [
        (side, _WOOD),
        ((-side[0], *side[1:]), _WOOD),
        ((0.0, _BOX_HALF_Y - _WALL / 2, top / 2, 2 * _BOX_HALF_X, _WALL, top), _WOOD),
        ((0.0, 0.0, top - _WALL / 2, 2 * _BOX_HALF_X, 2 * _BOX_HALF_Y, _WALL), _WOOD),
    ]
    high, wide = _TRAY_HEIGHT, 2 * _TRAY_HALF
    wall = (_TRAY_HALF - _WALL / 2, 0.0, high / 2, _WALL, wide, high)
    long = _TAB_END - _TRAY_HALF
    tab = (0.0, -_TAB_END + long / 2, HANDLE_TOP - _TAB_THICK / 2, _TAB_WIDTH, long, _TAB_THICK)
    tray: list[tuple[Box, str]] = [
        ((0.0, 0.0, FLOOR / 2 + 0.001, wide, wide, FLOOR - 0.002), _LIGHT),
        (wall, _LIGHT),
        ((-wall[0], *wall[1:]), _LIGHT),
        ((0.0, wall[0], high / 2, wide, _WALL, high), _LIGHT),
        ((0.0, -wall[0], high / 2, wide, _WALL, high), _LIGHT),
        (tab, _DARK),
    ]
    return "\n".join(
        [
            "<?xml version='1.0'?>",
            "<robot name='drawer'>",
            _link("box", 1.0, box),
            _link("drawer", 0.3, tray),
            "<joint name='slide' type='prismatic'><parent link='box'/><child link='drawer'/>",
            f"<axis xyz='0 -1 0'/><limit lower='0' upper='{TRAVEL}' effort='50' velocity='1'/>",
            "<dynamics damping='1.0' friction='0.0'/></joint></robot>",
        ]
    )


def _link(name: str, mass: float, parts: list[tuple[Box, str]]) -> str:
    text = [
        f"<link name='{name}'><inertial><mass value='{mass}'/>",
        "<inertia ixx='0.001' iyy='0.001' izz='0.001' ixy='0' ixz='0' iyz='0'/></inertial>",
    ]
    for (x, y, z, *size), color in parts:
        shape = (
            f"<origin xyz='{x:.5f} {y:.5f} {z:.5f}'/>"
            f"<geometry><box size='{' '.join(f'{v:.5f}' for v in size)}'/></geometry>"
        )
        material = f"<material name='{color.replace(' ', '_')}'><color rgba='{color}'/></material>"
        text.append(f"<visual>{shape}{material}</visual><collision>{shape}</collision>")
    return "".join(text) + "</link>"
