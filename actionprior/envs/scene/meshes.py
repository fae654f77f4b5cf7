"""The suite's only mesh: an upright prism that is drawn for every cylinder.

PyBullet needs milliseconds to build each cylinder primitive. A twelve-sided prism looks nearly the
same, loads in microseconds, and is cached by file name.
"""

from __future__ import annotations

import math

SIDES = 12


def prism_obj() -> str:
    """Write a prism of radius 1 and height 1 along z, centred, as Wavefront OBJ (44 triangles)."""
    n = SIDES
    turns = [2 * math.pi * i / n for i in range(n)]
    lines = [
        f"v {math.cos(turn):.6f} {math.sin(turn):.6f} {z}" for z in (-0.5, 0.5) for turn in turns
    ]
    lines += [f"vn {math.cos(turn):.6f} {math.sin(turn):.6f} 0" for turn in turns]
    lines += ["vn 0 0 -1", "vn 0 0 1"]
    for i in range(1, n + 1):
        j = i % n + 1
        lines.append(f"f {i}//{i} {j}//{j} {n + j}//{j}")
        lines.append(f"f {i}//{i} {n + j}//{j} {n + i}//{i}")
    for i in range(2, n):
        lines.append(f"f 1//{n + 1} {i + 1}//{n + 1} {i}//{n + 1}")
        lines.append(f"f {n + 1}//{n + 2} {n + i}//{n + 2} {n + i + 1}//{n + 2}")
    return "\n".join(lines) + "\n"
