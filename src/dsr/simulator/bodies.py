"""The cast: which assets of pybullet_data appear, how large, which way they face, and how they may move.

Asset boxes were measured on silhouettes of the rendered visual meshes (tests/simulator/test_simulator.py measures them
again): collision shapes, which PyBullet reports, can be smaller or larger.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

Vector = tuple[float, float, float]
COLOURS = {
    "red": (0.85, 0.12, 0.1, 1.0),
    "green": (0.1, 0.6, 0.2, 1.0),
    "blue": (0.15, 0.3, 0.9, 1.0),
    "yellow": (0.95, 0.8, 0.1, 1.0),
    "purple": (0.55, 0.2, 0.7, 1.0),
    "white": (0.95, 0.95, 0.95, 1.0),
}
MEASURED_BOXES: dict[str, tuple[Vector, Vector]] = {
    "r2d2.urdf": ((-0.276, -0.203, -0.471), (0.276, 0.517, 0.465)),
    "husky/husky.urdf": ((-0.494, -0.344, 0.005), (0.494, 0.344, 0.39)),
    "racecar/racecar.urdf": ((-0.049, -0.145, 0.0), (0.407, 0.145, 0.163)),
    "a1/a1.urdf": ((-0.329, -0.152, -0.323), (0.281, 0.152, 0.056)),
    "bicycle/bike.urdf": ((-1.25, -0.48, -0.99), (1.52, 0.48, 0.62)),
    "soccerball.urdf": ((-0.5, -0.5, -0.5), (0.5, 0.5, 0.5)),
    "cube.urdf": ((-0.5, -0.5, -0.5), (0.5, 0.5, 0.5)),
    "sphere2red.urdf": ((-0.5, -0.5, -0.5), (0.5, 0.5, 0.5)),
    "duck_vhacd.urdf": ((-0.0484, 0.0057, -0.0266), (0.0339, 0.0814, 0.031)),
    "teddy_vhacd.urdf": ((0.0296, 0.0198, 0.0007), (0.1057, 0.113, 0.0628)),
    "table/table.urdf": ((-0.755, -0.502, 0.0), (0.755, 0.502, 0.637)),
    "lego/lego.urdf": ((-0.0159, -0.0159, -0.0114), (0.0159, 0.0159, 0.0114)),
    "objects/mug.urdf": ((-0.0408, -0.0408, 0.0), (0.0408, 0.0816, 0.1009)),
}
"""Opposite corners of the assets' visual bounding boxes, in the asset's frame at scale 1."""


@dataclass(frozen=True)
class Kind:
    """One kind of body."""

    word: str
    asset: str
    """File of pybullet_data, a key of MEASURED_BOXES."""
    height: float
    """Metres; gives the scale."""
    motions: tuple[str, ...]
    """Motions (motion.py) that it may have; one that stands twice is drawn twice as often."""
    speed: tuple[float, float] = (0.0, 0.0)
    """Slow and fast, metres a second."""
    forward: Vector = (1.0, 0.0, 0.0)
    """The asset's axis that is the body's x; for objects any."""
    up: Vector = (0.0, 0.0, 1.0)
    """The asset's axis that is the body's z."""
    is_agent: bool = False
    colours: tuple[str, ...] = ()
    """Colours it may be painted in; its label says which."""
    joints: tuple[tuple[str, float], ...] = ()
    """Ends of joint names, and the angle in radians at which those joints are held."""

    @cached_property
    def corners(self) -> np.ndarray:
        """[2, 3] of the asset's bounding box."""
        return np.array(MEASURED_BOXES[self.asset])

    @cached_property
    def axes(self) -> np.ndarray:
        """[3, 3] body-from-asset rotation."""
        forward, up = np.array(self.forward), np.array(self.up)
        return np.stack([forward, np.cross(up, forward), up])

    @cached_property
    def scale(self) -> float:
        """Metres a unit of the asset."""
        return float(self.height / np.abs(self.axes @ np.ptp(self.corners, axis=0))[2])

    @cached_property
    def half_extents(self) -> np.ndarray:
        """[3] metres, in the body frame."""
        return 0.5 * self.scale * np.abs(self.axes @ np.ptp(self.corners, axis=0))

    @cached_property
    def radius(self) -> float:
        """Metres from the vertical axis to the farthest corner."""
        return float(np.hypot(*self.half_extents[:2]))

    @cached_property
    def body_from_asset(self) -> tuple[np.ndarray, np.ndarray]:
        """Rotation [3, 3] and translation [3] of the scaled asset, so that its middle is the body's origin."""
        return self.axes, -self.axes @ (0.5 * self.scale * self.corners.sum(axis=0))


_DRIVES = ("wander", "wander", "cross", "cross", "circle", "chase", "stand")
_RIDES = ("wander", "cross", "cross", "circle", "chase")
_SLIDES = ("rest", "slide", "slide")
_LEGS = (("upper_joint", 0.7), ("lower_joint", -1.4))
AGENTS = (
    Kind("robot", "r2d2.urdf", 1.1, _DRIVES, (1.5, 3.6), forward=(0.0, 1.0, 0.0), is_agent=True),
    Kind("buggy", "husky/husky.urdf", 0.75, _DRIVES, (1.6, 4.2), is_agent=True),
    Kind("car", "racecar/racecar.urdf", 0.6, _DRIVES, (1.8, 4.8), is_agent=True),
    Kind("robot dog", "a1/a1.urdf", 0.8, _DRIVES, (1.5, 4.0), is_agent=True, joints=_LEGS),
    Kind("bicycle", "bicycle/bike.urdf", 1.1, _RIDES, (1.6, 4.2), is_agent=True),
)
OBJECTS = (
    Kind("ball", "soccerball.urdf", 0.6, ("roll", "roll", "bounce", "bounce"), (1.6, 4.2)),
    Kind(
        "cube",
        "cube.urdf",
        0.6,
        ("rest", "slide", "slide", "slide"),
        (1.4, 3.4),
        colours=("red", "green", "blue", "yellow", "purple"),
    ),
    Kind(
        "balloon", "sphere2red.urdf", 0.6, ("float",), (0.6, 2.4), colours=("red", "green", "blue", "yellow", "white")
    ),
    Kind("rubber duck", "duck_vhacd.urdf", 0.6, _SLIDES, (1.4, 3.2), up=(0.0, 1.0, 0.0)),
    Kind("teddy bear", "teddy_vhacd.urdf", 0.7, _SLIDES, (1.4, 3.2), up=(0.0, 1.0, 0.0)),
    Kind("table", "table/table.urdf", 0.8, ("rest",)),
    Kind("brick", "lego/lego.urdf", 0.5, _SLIDES, (1.4, 3.4), colours=("red", "green", "blue", "yellow")),
    Kind("mug", "objects/mug.urdf", 0.6, _SLIDES, (1.4, 3.2)),
)
