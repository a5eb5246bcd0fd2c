"""Every question type on scenes that can be solved with paper and pencil, from every viewpoint.

The world has x to the right of the page, y up the page and z towards the reader; yaw is counted from x towards y.
All scenes have 33 frames 0.1 s apart. Who faces along yaw w has forward (cos w, sin w) and left (-sin w, cos w).
Smoothing leaves straight motion, steady turning and the ends of the clip as they are.
"""

from collections.abc import Callable

import numpy as np
import pytest

from dsr.cues.schema import ClipCues
from dsr.params import QA, Ensemble
from dsr.questions.engine.answers import decode_run_lengths, run_lengths
from dsr.questions.engine.scene import Scene, build_scene
from dsr.questions.engine.signals import Members, QuestionBatch, look_between, signal_states
from dsr.questions.language.templates import TEMPLATES, answer_text, num_axes
from tests.questions.reference import states_of
from tests.scenes import heading, looking, make_cues

FRAMES = 33
T = np.arange(FRAMES)
X = np.array([1.0, 0, 0])
QUARTERS = [0, 8, 16, 24, 32]
EXACT = Ensemble(members=1, margin=0, angle=0, camera=0)


def path(x: np.ndarray | float, y: np.ndarray | float, z: np.ndarray | float = 0.0) -> np.ndarray:
    return np.stack([np.broadcast_to(np.asarray(v, float), FRAMES) for v in (x, y, z)], axis=-1)


def facing(degrees: np.ndarray | float) -> np.ndarray:
    return heading(np.deg2rad(degrees), FRAMES)


def cues(camera: np.ndarray, **tracks: tuple[np.ndarray, np.ndarray | None]) -> ClipCues:
    return make_cues(np.broadcast_to(camera, (FRAMES, 4, 4)).copy(), tracks, seconds=3.2)


def square() -> ClipCues:
    """The robot (1) walks a square around the camera, which stands in its middle and looks along x; a ball (2).

    Corners (3, -3), (3, 3), (-3, 3), (-3, -3), a side in 8 frames, counterclockwise, facing where it goes.
    """
    corners = np.array([[3, -3], [3, 3], [-3, 3], [-3, -3], [3, -3]])
    side, along = np.minimum(T // 8, 3), (T - 8 * np.minimum(T // 8, 3)) / 8
    xy = corners[side] + along[:, None] * (corners[side + 1] - corners[side])
    return cues(looking([0, 0, 0], [1, 0, 0]), robot=(path(*xy.T), facing(90 + 90 * side)), ball=(path(6, 0), None))


def passing() -> ClipCues:
    """The camera looks along x; a cube (1) at (4, 0); behind it a ball (2) passes to the left, x = 6, y -4 to 4."""
    return cues(looking([0, 0, 0], [1, 0, 0]), cube=(path(4, 0), None), ball=(path(6, -4 + T / 4), None))


def chase() -> ClipCues:
    """The camera at (0, -12) looks along y. The robot (1) runs along x at y = 0 from -6 to 6, past the dog (2), which
    walks at y = 3 from -2 to 2; both face along x. A tree (3) at (0, 6)."""
    return cues(
        looking([0, -12, 0], [0, 0, 0]),
        robot=(path(-6 + 0.375 * T, 0), facing(0)),
        dog=(path(-2 + 0.125 * T, 3), facing(0)),
        tree=(path(0, 6), None),
    )


def steps(*lengths: float) -> np.ndarray:
    """y over time with these displacements in 6 frames each, from 0; it goes on at the last speed."""
    return np.interp(T, np.arange(7) * 6, np.cumsum([0, *lengths, lengths[-1]]))


def speeds(camera: np.ndarray | None = None) -> ClipCues:
    """All move along y at their own x: robot (1), dog (2), cat (3), a cube (4) stands. The camera looks along x.

    A corner of the path is cut by (v2 - v1)/4 frames' way, at most 0.25: no displacement changes by more than that.
    """
    return cues(
        looking([0, 0, 0], [1, 0, 0]) if camera is None else camera,
        robot=(path(5, steps(2, 2, 6, 6, 2)), facing(90)),
        dog=(path(6, steps(6, 2, 2, 2, 6)), facing(90)),
        cat=(path(7, steps(-2, -2, 4, 4, -2)), facing(90)),
        cube=(path(6, 0), None),
    )


def speeds_seen_by_a_turning_camera() -> ClipCues:
    yaw = np.deg2rad(10 * np.cos(T / 3))
    return speeds(looking(np.zeros(3), np.stack([np.cos(yaw), np.sin(yaw), 0 * yaw], axis=-1)))


def keeping_pace() -> ClipCues:
    """The camera goes along y with the robot (1), at 0.5 a frame, looking along x; a cube (2) stands."""
    position = path(0, 0.5 * T)
    return cues(
        looking(position, position + X),
        robot=(path(5, 0.5 * T), facing(90)),
        cube=(path(5, 8), None),
    )


def orbit() -> ClipCues:
    """The camera goes half around the robot (1) at the origin, 5 away and always facing it, from (-5, 0) by (0, -5) to
    (5, 0). The robot faces along x; a ball (2) lies at (0, 2)."""
    angle = np.deg2rad(180 + 180 * T / 32)
    position = path(5 * np.cos(angle), 5 * np.sin(angle))
    return cues(looking(position, [0, 0, 0]), robot=(path(0, 0), facing(0)), ball=(path(0, 2), None))


def spin() -> ClipCues:
    """The robot (1) at the origin turns once around to the left. The camera at (-6, 0) looks along x; a ball (2) at
    (4, 0), a cube (3) at (0, 4)."""
    return cues(
        looking([-6, 0, 0], [0, 0, 0]),
        robot=(path(0, 0), facing(360 * T / 32)),
        ball=(path(4, 0), None),
        cube=(path(0, 4), None),
    )


def retreat() -> ClipCues:
    """The camera goes back along x from 0 to -12, looking along x; a ball (1) at (4, 0); the robot (2) stands at (4, 2)
    and faces the camera's way (-x); the dog (3) goes away along y = -1 from x = 2 to 14."""
    position = path(-0.375 * T, 0)
    return cues(
        looking(position, position + X),
        ball=(path(4, 0), None),
        robot=(path(4, 2), facing(180)),
        dog=(path(2 + 0.375 * T, -1), facing(0)),
    )


def pan() -> ClipCues:
    """The camera at the origin turns to the left, 10 degrees in 3 frames, from x; a ball (1) lies at (4, 0)."""
    yaw = np.deg2rad(10 / 3 * T)
    return cues(looking(np.zeros(3), np.stack([np.cos(yaw), np.sin(yaw), 0 * yaw], axis=-1)), ball=(path(4, 0), None))


def rising() -> ClipCues:
    """The camera looks along x; a drone (1) at (5, 0) rises from z = -3 to 3, facing the camera."""
    return cues(looking([0, 0, 0], [1, 0, 0]), drone=(path(5, 0, -3 + 6 * T / 32), facing(180)))


def drifting() -> ClipCues:
    """The camera looks along x; a ball (1) goes away, a factor 1.1 in 8 frames."""
    return cues(looking([0, 0, 0], [1, 0, 0]), ball=(path(5 * 1.1 ** (T / 8), 0), None))


def rebound() -> ClipCues:
    """The camera looks along x; a ball (1) at x = 5 goes left until frame 16 and then back."""
    return cues(looking([0, 0, 0], [1, 0, 0]), ball=(path(5, -np.abs(T - 16) * 0.5), None))


def scene_of(clip: ClipCues) -> Scene:
    scene = build_scene(clip, EXACT, np.random.default_rng(0))
    assert scene is not None
    return scene


def ask(clip: ClipCues, kind: str, viewer: int, targets: list[int], frames: list[int]) -> str | None:
    """The answer's sentence; None where there is none. Entity 0 is the camera, -1 no viewer."""
    scene, qa = scene_of(clip), QA()
    form = next(f for f in TEMPLATES if f.type == kind and f.num_targets == len(targets))
    batch = QuestionBatch(np.array([viewer]), np.array([[*targets, -1][:2]]), np.array([frames]))
    signal, states, valid = signal_states(scene, form, batch, qa, Members(scene, slice(None)))
    assert signal.shape[:2] == states.shape[:2] or form.signal in ("dis", "spd")
    reference = states_of(scene, form, viewer, targets, frames, qa)
    assert valid.all() == valid.any()
    if not valid[0, 0]:
        assert reference is None
        return None
    assert [tuple(s) for s in states[0, :, :, 0]] == reference
    if form.signal == "dir_pred":
        if (states[0, 0] != states[0, 1]).any():
            return None
        states = states[:, 1:]
    code = int(run_lengths(states[..., 0])[0])
    return answer_text(form.signal, decode_run_lengths(code, num_axes(form.signal)))


Case = tuple[Callable[[], ClipCues], str, int, list[int], list[int], str | None]

DISTANCES: list[Case] = [
    # Half a side is 4 frames: 4.24 at a corner (3.98 where smoothing cuts it), 3 in the middle; ratio 1.33.
    (square, "rel_dis", 0, [1], [0, 4, 8, 12, 16], "It shrinks, then grows, then shrinks, then grows."),
    # Robot at (3, 0), (1.5, 3), (-1.5, 3), (-3, 0), (0, -3); ball at (6, 0): 3, 5.41, 8.08, 9, 6.71.
    (square, "rel_dis", 1, [2], [4, 10, 14, 20, 28], "It grows, then stays about the same, then shrinks."),
    # Behind the cube at (2, y) from it, y = -4, -2, 0, 2, 4: 4.47, 2.83, 2, 2.83, 4.47.
    (passing, "rel_dis", -1, [1, 2], QUARTERS, "It shrinks, then grows."),
    # Gap 4 - t/4 along x and 3 across at t = 0, 6, 16, 26, 32: 5, 3.91, 3, 3.91, 5.
    (chase, "rel_dis", -1, [1, 2], [0, 6, 16, 26, 32], "It shrinks, then grows."),
    (chase, "rel_dis", 2, [1], [0, 6, 16, 26, 32], "It shrinks, then grows."),
    # From the dog's first place (-2, 3) to the robot at (-6, 0), (-3, 0), (0, 0), (3, 0), (6, 0): 5, 3.16, 3.61,
    # 5.83, 8.54.
    (chase, "abs_dis", 2, [1], QUARTERS, "It shrinks, then stays about the same, then grows."),
    # From (0, -12) to (+-6, 0), (+-3, 0), (0, 0): 13.4, 12.4, 12.
    (chase, "abs_dis", 0, [1], QUARTERS, "It stays about the same."),
    (orbit, "rel_dis", 0, [1], QUARTERS, "It stays about the same."),
    (orbit, "abs_dis", 1, [0], QUARTERS, "It stays about the same."),
    # The ball: 4, 7, 10, 13, 16 from the camera, always 4 from where the camera was.
    (retreat, "rel_dis", 0, [1], QUARTERS, "It grows."),
    (retreat, "abs_dis", 0, [1], QUARTERS, "It stays about the same."),
    # The dog from where the camera was: (2, -1), (5, -1), (8, -1), ...: 2.24, 5.10, 8.06, 11.05, 14.04.
    (retreat, "abs_dis", 0, [3], QUARTERS, "It grows."),
    # The camera from the robot, which stands: (-4, -2), (-7, -2), ...: 4.47, 7.28, 10.2, 13.2, 16.1.
    (retreat, "abs_dis", 2, [0], QUARTERS, "It grows."),
    (spin, "rel_dis", 1, [2], QUARTERS, "It stays about the same."),
    # 1, 1.1, 1.21, 1.331, 1.464: each step is within 1.2, but not two: nobody can say where it stays.
    (drifting, "rel_dis", 0, [1], QUARTERS, None),
]

DIRECTIONS: list[Case] = [
    # The camera looks along x. Robot at (3, 0) front; (1.5, 3) front and left; (-3, 3) behind and left; (-3, -1.5)
    # behind and right (-0.89, -0.45); (0, -3) right.
    (
        square,
        "rel_dir",
        0,
        [1],
        [4, 10, 16, 22, 28],
        "It is in front, then in front and left, then behind and left, then behind and right, then right.",
    ),
    # The camera seen by the robot: it walks around it counterclockwise, so always left; from (1.5, 3), facing -x, the
    # vector (-1.5, -3) is 1.5 ahead and 3 left; from (-1.5, 3) 1.5 behind.
    (
        square,
        "rel_dir",
        1,
        [0],
        [4, 10, 14, 20, 28],
        "It is left, then in front and left, then behind and left, then left.",
    ),
    # The ball seen by the robot. At (3, 0) facing y: (3, 0) is right. (1.5, 3) facing -x: (4.5, -3) is 4.5 behind and 3
    # left; (-1.5, 3): 7.5 behind, 3 left (0.37). (-3, 0) facing -y: (9, 0) is left. (0, -3) facing x: (6, 3).
    (
        square,
        "rel_dir",
        1,
        [2],
        [4, 10, 14, 20, 28],
        "It is right, then behind and left, then left, then in front and left.",
    ),
    # Nothing turns with the viewpoint of frame 4: facing y at (3, 0), the ball stays 3 to the right.
    (square, "abs_dir", 1, [2], [4, 10, 14, 20, 28], "It is right."),
    # (6, y): unit y -0.55, -0.32, 0, 0.32, 0.55.
    (passing, "rel_dir", 0, [2], QUARTERS, "It is in front and right, then in front, then in front and left."),
    (passing, "abs_dir", 0, [2], QUARTERS, "It is in front and right, then in front, then in front and left."),
    # From the cube to the ball, (2, y): forward of it, and at y = 0 only that. From the ball to the cube, (-2, -y).
    (passing, "rel_dir", 0, [1, 2], QUARTERS, "It is in front and right, then in front, then in front and left."),
    (passing, "rel_dir", 0, [2, 1], QUARTERS, "It is behind and left, then behind, then behind and right."),
    (passing, "abs_dir", 0, [1, 2], QUARTERS, "It is in front and right, then in front, then in front and left."),
    # The robot passes the dog on its left: (4, 3), (2, 3), (0, 3), (-2, 3), (-4, 3) with forward x and left y.
    (chase, "rel_dir", 1, [2], QUARTERS, "It is in front and left, then left, then behind and left."),
    # The dog from where the robot was: (4, 3), (5, 3), (6, 3), (7, 3), (8, 3); unit y at least 0.35.
    (chase, "abs_dir", 1, [2], QUARTERS, "It is in front and left."),
    # The camera faces y, its left is -x: the robot at (-6, 12) .. (6, 12) from it; unit x 0.45, 0.24, 0.
    (chase, "rel_dir", 0, [1], QUARTERS, "It is in front and left, then in front, then in front and right."),
    # From robot to dog, (4, 3) .. (-4, 3), in the camera's axes: forward 3, left -4, -2, 0, 2, 4; in those of the robot
    # as above; in those that the dog had, which faces as the robot does.
    (chase, "rel_dir", 0, [1, 2], QUARTERS, "It is in front and right, then in front, then in front and left."),
    (chase, "abs_dir", 0, [1, 2], QUARTERS, "It is in front and right, then in front, then in front and left."),
    # The camera always faces the robot.
    (orbit, "rel_dir", 0, [1], QUARTERS, "It is in front."),
    (orbit, "abs_dir", 0, [1], QUARTERS, "It is in front."),
    # The robot faces x: the camera comes from (-5, 0) by (-3.5, -3.5), (0, -5), (3.5, -3.5) to (5, 0).
    (
        orbit,
        "rel_dir",
        1,
        [0],
        QUARTERS,
        "It is behind, then behind and right, then right, then in front and right, then in front.",
    ),
    (
        orbit,
        "abs_dir",
        1,
        [0],
        QUARTERS,
        "It is behind, then behind and right, then right, then in front and right, then in front.",
    ),
    # From robot to ball, (0, 2), while the camera faces along 0, 45, 90, 135, 180 degrees.
    (
        orbit,
        "rel_dir",
        0,
        [1, 2],
        QUARTERS,
        "It is left, then in front and left, then in front, then in front and right, then right.",
    ),
    (orbit, "abs_dir", 0, [1, 2], QUARTERS, "It is left."),
    # From the first place (-5, 0): (5, 2), unit (0.93, 0.37).
    (orbit, "abs_dir", 0, [2], QUARTERS, "It is in front and left."),
    # Who turns left sees what stands turn right.
    (spin, "rel_dir", 1, [2], QUARTERS, "It is in front, then right, then behind, then left, then in front."),
    (spin, "abs_dir", 1, [2], QUARTERS, "It is in front."),
    # From ball to cube, (-4, 4): at yaw 0 behind and left; at 90 (forward y, left -x) 4 ahead, 4 left; ...
    (
        spin,
        "rel_dir",
        1,
        [2, 3],
        QUARTERS,
        "It is behind and left, then in front and left, then in front and right, then behind and right, "
        "then behind and left.",
    ),
    (spin, "abs_dir", 1, [2, 3], QUARTERS, "It is behind and left."),
    # From 8 frames on the fixed viewpoint faces y: the ball at (4, 0) is right of it.
    (spin, "abs_dir", 1, [2], [8, 12, 16, 20, 24], "It is right."),
    # (5, 0, z), z = -3, -1.5, 0, 1.5, 3: unit z -0.51, -0.29, 0, 0.29, 0.51 with a dead zone of 0.3.
    (rising, "rel_dir", 0, [1], QUARTERS, "It is in front and below, then in front, then in front and above."),
    # The camera seen by the drone, which faces it.
    (rising, "rel_dir", 1, [0], QUARTERS, "It is in front and above, then in front, then in front and below."),
]

ORIENTATIONS: list[Case] = [
    # The robot faces y, -x, -x, -y, x; the camera faces x.
    (square, "rel_ori", 0, [1], [4, 10, 14, 20, 28], "It faces left, then backward, then right, then forward."),
    (square, "abs_ori", 0, [1], [4, 10, 14, 20, 28], "It faces left, then backward, then right, then forward."),
    # The camera faces x; for one who faces y, -x, -y, x that is right, backward, left, forward.
    (square, "rel_ori", 1, [0], [4, 10, 14, 20, 28], "It faces right, then backward, then left, then forward."),
    (square, "abs_ori", 1, [0], [4, 10, 14, 20, 28], "It faces right."),
    # The robot faces x while the camera faces along 0, 45, 90, 135, 180 degrees.
    (
        orbit,
        "rel_ori",
        0,
        [1],
        QUARTERS,
        "It faces forward, then forward and right, then right, then backward and right, then backward.",
    ),
    (orbit, "abs_ori", 0, [1], QUARTERS, "It faces forward."),
    (
        orbit,
        "abs_ori",
        1,
        [0],
        QUARTERS,
        "It faces forward, then forward and left, then left, then backward and left, then backward.",
    ),
    (spin, "rel_ori", 0, [1], QUARTERS, "It faces forward, then left, then backward, then right, then forward."),
    (spin, "abs_ori", 0, [1], QUARTERS, "It faces forward, then left, then backward, then right, then forward."),
    (spin, "rel_ori", 1, [0], QUARTERS, "It faces forward, then right, then backward, then left, then forward."),
    (spin, "abs_ori", 1, [0], QUARTERS, "It faces forward."),
    # Both face along x, and the camera along y: left of it is -x.
    (chase, "rel_ori", 1, [2], QUARTERS, "It faces forward."),
    (chase, "abs_ori", 0, [2], QUARTERS, "It faces right."),
]

SIXTHS = [0, 6, 12, 18, 24, 30]
SPEEDS: list[Case] = [
    # 2, 2, 6, 6, 2.
    (
        speeds,
        "abs_spd",
        -1,
        [1],
        SIXTHS,
        "It keeps about the same speed, then speeds up, then keeps about the same speed, then slows down.",
    ),
    # 6, 2, 2, 2, 6.
    (speeds, "abs_spd", -1, [2], SIXTHS, "It slows down, then keeps about the same speed, then speeds up."),
    # The camera stands: relative to it as over the ground.
    (speeds, "rel_spd", 0, [2], SIXTHS, "It slows down, then keeps about the same speed, then speeds up."),
    # Robot against cat, 2 + 2, 2 + 2, 6 - 4, 6 - 4, 2 + 2.
    (
        speeds,
        "rel_spd",
        3,
        [1],
        SIXTHS,
        "It keeps about the same speed, then slows down, then keeps about the same speed, then speeds up.",
    ),
    # Robot 2, 2, 6, 6, 2 against dog 6, 2, 2, 2, 6.
    (speeds, "abs_spd_comp", -1, [1, 2], SIXTHS, "It is slower, then about as fast, then faster, then slower."),
    (speeds, "abs_spd_comp", -1, [2, 1], SIXTHS, "It is faster, then about as fast, then slower, then faster."),
    (speeds, "rel_spd_comp", 0, [1, 2], SIXTHS, "It is slower, then about as fast, then faster, then slower."),
    # Measured from the cat: robot 4, 4, 2, 2, 4; the cube, which stands, 2, 2, 4, 4, 2.
    (speeds, "rel_spd_comp", 3, [1, 4], SIXTHS, "It is faster, then slower, then faster."),
    # The robot always has at least 2, the cube 0: a speed below the floor is slower, never a ratio.
    (speeds, "abs_spd_comp", -1, [1, 4], SIXTHS, "It is faster."),
    (speeds, "abs_spd", -1, [4], SIXTHS, None),
    # The viewer's own rotation does not enter.
    (
        speeds_seen_by_a_turning_camera,
        "rel_spd",
        0,
        [2],
        SIXTHS,
        "It slows down, then keeps about the same speed, then speeds up.",
    ),
    (
        speeds_seen_by_a_turning_camera,
        "rel_spd_comp",
        0,
        [1, 2],
        SIXTHS,
        "It is slower, then about as fast, then faster, then slower.",
    ),
    (spin, "rel_spd", 1, [2], SIXTHS, None),
    # Side by side the robot has no speed for the camera, but one over the ground; the cube the other way round.
    (keeping_pace, "rel_spd", 0, [1], SIXTHS, None),
    (keeping_pace, "abs_spd", -1, [1], SIXTHS, "It keeps about the same speed."),
    (keeping_pace, "rel_spd", 0, [2], SIXTHS, "It keeps about the same speed."),
    (keeping_pace, "abs_spd", -1, [2], SIXTHS, None),
    (keeping_pace, "rel_spd_comp", 0, [1, 2], SIXTHS, "It is slower."),
    (keeping_pace, "abs_spd_comp", -1, [1, 2], SIXTHS, "It is faster."),
    # The camera as a target: 5 around the robot, 33.75 degrees a step.
    (orbit, "abs_spd", -1, [0], SIXTHS, "It keeps about the same speed."),
    (orbit, "rel_spd", 0, [1], SIXTHS, "It keeps about the same speed."),
]

PREDICTIONS: list[Case] = [
    # The camera faces x, its left is y.
    (passing, "rel_dir_pred", 0, [2], [8, 16, 24], "It moves left."),
    (passing, "abs_dir_pred", 0, [2], [8, 16, 24], "It moves left."),
    (passing, "abs_dir_pred", 0, [1], [8, 16, 24], None),
    # The camera faces y, its left is -x.
    (chase, "rel_dir_pred", 0, [1], [4, 16, 28], "It moves right."),
    (chase, "abs_dir_pred", 0, [1], [4, 16, 28], "It moves right."),
    # In the moving dog's view the robot gains 3; the tree falls back for the robot and stands for its fixed view.
    (chase, "rel_dir_pred", 2, [1], [4, 16, 28], "It moves forward."),
    (chase, "abs_dir_pred", 2, [1], [4, 16, 28], "It moves forward."),
    (chase, "rel_dir_pred", 1, [3], [4, 16, 28], "It moves backward."),
    (chase, "abs_dir_pred", 1, [3], [4, 16, 28], None),
    # The camera backs off 2.25 a step.
    (retreat, "rel_dir_pred", 0, [1], [10, 16, 22], "It moves forward."),
    (retreat, "abs_dir_pred", 0, [1], [10, 16, 22], None),
    # At the lowest point of the circle the camera moves along x, where the robot faces.
    (orbit, "rel_dir_pred", 1, [0], [12, 16, 20], "It moves forward."),
    (orbit, "abs_dir_pred", 1, [0], [12, 16, 20], "It moves forward."),
    # The robot stays in the middle of the orbiting camera's view; on the ground it stands.
    (orbit, "rel_dir_pred", 0, [1], [12, 16, 20], None),
    # The camera faces the robot along y at the stop, so the ball at (0, 2) ... is a standing one too.
    (orbit, "abs_dir_pred", 0, [2], [12, 16, 20], None),
    # The ball is 4 away at -67.5, -90, -112.5 degrees of the turning robot: it moves by (-1.53, -0.30), (-1.53, 0.30),
    # unit y 0.195.
    (spin, "rel_dir_pred", 1, [2], [6, 8, 10], "It moves backward."),
    (spin, "abs_dir_pred", 1, [2], [6, 8, 10], None),
    # At 0, -10, -20 degrees of the panning camera: (-0.06, -0.69), (-0.18, -0.67), unit x -0.26.
    (pan, "rel_dir_pred", 0, [1], [0, 3, 6], "It moves right."),
    # At -10, -20, -30: then (-0.29, -0.63) has unit x -0.42, backward as well: not what it did before.
    (pan, "rel_dir_pred", 0, [1], [3, 6, 9], None),
    (rising, "rel_dir_pred", 0, [1], [8, 16, 24], "It moves up."),
    (rising, "abs_dir_pred", 0, [1], [8, 16, 24], "It moves up."),
    # Left before the stop, right after it.
    (rebound, "abs_dir_pred", 0, [1], [8, 16, 24], None),
    (rebound, "abs_dir_pred", 0, [1], [4, 9, 14], "It moves left."),
    (rebound, "abs_dir_pred", 0, [1], [18, 23, 28], "It moves right."),
]

ALL = DISTANCES + DIRECTIONS + ORIENTATIONS + SPEEDS + PREDICTIONS


def case_id(case: Case) -> str:
    world, kind, viewer, targets, frames, _ = case
    return f"{world.__name__}-{kind}-{viewer}-{'_'.join(map(str, targets))}-{frames[0]}"


@pytest.mark.parametrize(("world", "kind", "viewer", "targets", "frames", "expected"), ALL, ids=map(case_id, ALL))
def test_answer(
    world: Callable[[], ClipCues], kind: str, viewer: int, targets: list[int], frames: list[int], expected: str | None
) -> None:
    assert ask(world(), kind, viewer, targets, frames) == expected


def test_every_form_is_asked_from_every_kind_of_viewpoint() -> None:
    asked = {(kind, len(targets), min(viewer, 1)) for _, kind, viewer, targets, _, answer in ALL if answer}
    wanted = {
        (form.type, form.num_targets, viewer)
        for form in TEMPLATES
        for viewer in ((-1,) if form.viewer == "none" else (0, 1))
    }
    assert wanted - asked == set()


def test_the_signal_is_what_was_measured() -> None:
    scene = scene_of(passing())
    batch = QuestionBatch(np.array([-1]), np.array([[1, 2]]), np.array([QUARTERS]))
    form = next(f for f in TEMPLATES if f.type == "rel_dis" and f.num_targets == 2)
    signal, _, _ = signal_states(scene, form, batch, QA(), Members(scene, slice(None)))
    # Lengths are in median depths: 4 (cube) and 6 (ball), as many of each, so 5.
    np.testing.assert_allclose(signal[0, :, 0], np.sqrt([20, 8, 4, 8, 20]) / 5, rtol=1e-5)

    form = next(f for f in TEMPLATES if f.type == "rel_dir" and f.num_targets == 1)
    batch = QuestionBatch(np.array([0]), np.array([[2, -1]]), np.array([QUARTERS]))
    signal, _, _ = signal_states(scene, form, batch, QA(), Members(scene, slice(None)))
    # Forward, left, up.
    np.testing.assert_allclose(signal[0], [[6 / 5, y / 5, 0] for y in (-4, -2, 0, 2, 4)], atol=1e-6)


def test_floors_are_shares_of_the_median_depth() -> None:
    # At y = 0 the pair is 2 apart, 0.4 of the median depth 5: a floor just below asks, one just above does not.
    scene = scene_of(passing())
    form = next(f for f in TEMPLATES if f.type == "rel_dis" and f.num_targets == 2)
    batch = QuestionBatch(np.array([-1]), np.array([[1, 2]]), np.array([QUARTERS]))
    for floor, asked in ((0.399, True), (0.401, False)):
        _, _, valid = signal_states(scene, form, batch, QA(min_distance=floor), Members(scene, slice(None)))
        assert valid.all() == asked


def test_a_step_that_is_too_short_to_have_a_speed_is_not_compared_with_another() -> None:
    # The dog stops for two steps: "slows down" into the stop is told, a comparison of both halves of it is not.
    def stopping(*lengths: float) -> ClipCues:
        return cues(looking([0, 0, 0], [1, 0, 0]), dog=(path(6, steps(*lengths)), facing(90)))

    # The floor is 0.15 * 6 = 0.9.
    assert ask(stopping(6, 6, 0, 6, 6), "abs_spd", -1, [1], SIXTHS) == (
        "It keeps about the same speed, then slows down, then speeds up, then keeps about the same speed."
    )
    assert ask(stopping(6, 0, 0, 6, 6), "abs_spd", -1, [1], SIXTHS) is None
    # 1.1 (1.26 with the corners cut) is above the floor of 0.9 but within 1.5 of it: nobody can tell it from a stop.
    assert ask(stopping(6, 1.1, 0, 6, 6), "abs_spd", -1, [1], SIXTHS) is None


def test_a_distance_that_comes_back_between_two_moments_is_not_asked_about() -> None:
    """A ball that swings in and out once between every two key moments has the same distance at each of them."""
    frames = np.arange(FRAMES)
    swing = cues(looking([0, 0, 0], [1, 0, 0]), ball=(path(5 - 1.5 * np.sin(np.pi * frames / 6) ** 2, 0), None))
    scene = scene_of(swing)
    exact = Members(scene, slice(0, 1))
    form = next(f for f in TEMPLATES if f.type == "rel_dis" and f.num_targets == 1)
    batch = QuestionBatch(np.array([0]), np.array([[1, -1, -1]]), np.array([[0, 6, 12, 18, 24]]))
    _, states, valid = signal_states(scene, form, batch, QA(), exact)
    assert valid.all()
    assert not states.any()
    assert not look_between(scene, form, batch, states[..., 0], QA(), exact).holds.any()
    still = scene_of(cues(looking([0, 0, 0], [1, 0, 0]), ball=(path(5 + 0 * frames, 0), None)))
    assert look_between(still, form, batch, states[..., 0], QA(), Members(still, slice(0, 1))).holds.all()
