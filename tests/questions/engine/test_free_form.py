"""Every free-form family on scenes that can be solved with paper and pencil.

Nine moments, four of 33 frames apart, span the whole clip. The camera stands at the origin and looks along x unless
said otherwise; left of it is +y.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dsr.cues.schema import ClipCues
from dsr.params import QA, Ensemble
from dsr.questions.engine.conditions import all_hold
from dsr.questions.engine.free_form import NO_ANSWER, RULES, Moments, apply_rule, decide
from dsr.questions.engine.scene import build_scene
from dsr.questions.engine.signals import Members, QuestionBatch, signal_states
from dsr.questions.language.families import FAMILIES, ORDERS, Family
from tests.scenes import heading, looking, make_cues

FRAMES = 33
T = np.arange(FRAMES)
MOMENTS = np.arange(9) * 4
EXACT = Ensemble(members=1, margin=0, angle=0, camera=0)
AHEAD = looking([0, 0, 0], [1, 0, 0])


def at(x: np.ndarray | float, y: np.ndarray | float, z: float = 0.0, yaw: np.ndarray | float | None = None) -> tuple:
    position = np.stack([np.broadcast_to(np.asarray(v, float), FRAMES) for v in (x, y, z)], axis=-1)
    return position, None if yaw is None else heading(np.deg2rad(yaw), FRAMES)


def world(*tracks: tuple, camera: np.ndarray = AHEAD) -> ClipCues:
    named = {f"track {i}": track for i, track in enumerate(tracks, 1)}
    return make_cues(np.broadcast_to(camera, (FRAMES, 4, 4)).copy(), named, seconds=3.2)


def ask(clip: ClipCues, name: str, targets: list[int], viewer: int = 0) -> str | None:
    """The family's answer; targets are 1, 2, … in the order of the tracks, viewer 0 is the camera."""
    family = next(f for f in FAMILIES if f.signal == name)
    scene = build_scene(clip, EXACT, np.random.default_rng(0))
    assert scene is not None
    batch = QuestionBatch(
        np.array([viewer if family.viewer != "none" else -1]), np.array([[*targets, -1, -1][:3]]), MOMENTS[None]
    )
    _, states, valid = signal_states(scene, family, batch, QA(), Members(scene, slice(None)))
    code = int(states[0, 0, 0, 0])
    assert (code == NO_ANSWER) == (not valid[0, 0])
    return None if code == NO_ANSWER else family.answers[code]


def spelled(*order: int) -> str:
    first, second, third = (("first", "second", "third")[i - 1] for i in order)
    return f"The {first}, then the {second}, then the {third}."


def random_moments(num_targets: int) -> Moments:
    """Questions about smooth paths, some of which hardly move, and a viewer that turns about its own up, or not."""
    rng, count, members, along = np.random.default_rng(0), 5000, 2, np.linspace(-1, 1, 9)[:, None, None]
    start, way, bend = rng.normal(0, 2, (3, 4, count, 1, 3, members))
    paths = start + (way * along + bend * along**2) * rng.random((4, count, 1, 1, 1)) ** 4
    speed = rng.uniform(-1.8, 1.8, (count, 1, members)) * rng.choice([0, 1], (count, 1, members))
    yaw = rng.uniform(0, 2 * np.pi, (count, 1, members)) + speed * along[:, 0]
    turn = Rotation.from_euler("z", yaw.reshape(-1, 1)).as_matrix().reshape(count, 9, members, 3, 3)
    axes = np.moveaxis(Rotation.random(count, rng=rng).as_matrix()[:, None, None] @ turn, 2, -1)
    up = axes[:, :1, :, 2]
    seconds = np.tile(np.arange(9.0), (count, 1))
    return Moments(list(paths[:num_targets]), axes[:, :, :, 0], paths[3], axes, up, up, seconds)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.signal)
def test_an_answer_is_given_where_all_conditions_of_one_case_hold_and_never_of_two(family: Family) -> None:
    moments = random_moments(family.num_targets)
    cases = apply_rule(family.signal, moments, QA()).cases
    answers = np.array([case.answer for case in cases])
    assert sorted(set(answers.tolist())) == list(range(len(family.answers)))
    holds = np.array([all_hold(case.conditions) for case in cases])
    assert holds.sum(axis=0).max() == 1
    assert len(set(answers[holds.any(axis=(1, 2))].tolist())) >= 2
    expected = np.where(holds.any(axis=0), answers[holds.argmax(axis=0)], NO_ANSWER)
    np.testing.assert_array_equal(decide(family.signal, moments, QA()), expected)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.signal)
def test_mirrored_and_backwards_each_answer_becomes_what_its_family_says(family: Family) -> None:
    moments = random_moments(family.num_targets)
    codes = decide(family.signal, moments, QA())
    flip = np.array([1, -1, 1])[:, None]
    mirrored = Moments(
        targets=[flip * target for target in moments.targets],
        facing=flip * moments.facing,
        viewer=flip * moments.viewer,
        # Forward and up are mirrored; left is then on the other side.
        axes=flip[:, None] * moments.axes * flip,
        own_up=flip * moments.own_up,
        up=flip * moments.up,
        seconds=moments.seconds,
    )
    expected = np.array([*family.mirrored[: len(family.answers)], NO_ANSWER])[codes]
    np.testing.assert_array_equal(decide(family.signal, mirrored, QA()), expected)
    if family.backwards is None:
        return
    # About one instant, it is the same one.
    order = slice(-1, None, None) if family.at_end else slice(None, None, -1)
    backwards = replace(
        moments,
        targets=[target[:, order] for target in moments.targets],
        facing=moments.facing[:, order],
        viewer=moments.viewer[:, order],
        axes=moments.axes[:, order],
        seconds=-moments.seconds[:, order],
    )
    expected = np.array([*family.backwards[: len(family.answers)], NO_ANSWER])[codes]
    np.testing.assert_array_equal(decide(family.signal, backwards, QA()), expected)


def test_every_family_has_a_rule() -> None:
    assert {f.signal for f in FAMILIES} == set(RULES)
    assert len({rule.func if isinstance(rule, partial) else rule for rule in RULES.values()}) >= 12


ALL_ORDERS = [tuple(i + 1 for i in order) for order in ORDERS]


@pytest.mark.parametrize("order", ALL_ORDERS)
def test_nearest_at_end(order: tuple[int, int, int]) -> None:
    # Distances 4, 6, 9 at the end, for the track named first, second and third in that order; ratios 1.5.
    distance = dict(zip(order, (4, 6, 9), strict=True))
    clip = world(*(at(distance[i], 0) for i in (1, 2, 3)))
    assert ask(clip, "nearest_at_end", [1, 2, 3]) == spelled(*order)


def test_nearest_at_end_looks_at_the_end_and_refuses_what_is_close() -> None:
    # The first comes from 9 to 3, the others stand at 5 and 7.
    clip = world(at(9 - 6 * T / 32, 0), at(5, 1), at(7, -1))
    assert ask(clip, "nearest_at_end", [1, 2, 3]) == spelled(1, 2, 3)
    # 5.10 and 5.5: ratio 1.08.
    assert ask(world(at(3, 0), at(5, 1), at(5.5, 0)), "nearest_at_end", [1, 2, 3]) is None


def test_nearest_at_end_from_an_agent() -> None:
    # The agent at (9, 0): 5 to the first, 3 to the second, 1 to the third.
    clip = world(at(4, 0), at(6, 0), at(8, 0), at(9, 0, yaw=180))
    assert ask(clip, "nearest_at_end", [1, 2, 3], viewer=4) == spelled(3, 2, 1)


@pytest.mark.parametrize("order", ALL_ORDERS)
def test_order_of_speed(order: tuple[int, int, int]) -> None:
    # They cover 8, 4 and 2.
    covered = dict(zip(order, (8, 4, 2), strict=True))
    clip = world(*(at(5 + i, covered[i] * T / 32) for i in (1, 2, 3)))
    assert ask(clip, "order_of_speed", [1, 2, 3]) == spelled(*order)


def test_order_of_speed_counts_the_ground_covered_not_the_distance_made() -> None:
    # The first goes 6 and back, in all 12; the second 5 straight; the third stands, and only one may.
    there_and_back = 6 - np.abs(T - 16) * 6 / 16
    assert ask(world(at(5, there_and_back), at(6, 5 * T / 32), at(7, 0)), "order_of_speed", [1, 2, 3]) == spelled(
        1, 2, 3
    )
    assert ask(world(at(5, there_and_back), at(6, 0), at(7, 0)), "order_of_speed", [1, 2, 3]) is None
    # 5 and 4 are within 1.5.
    assert ask(world(at(5, 5 * T / 32), at(6, 4 * T / 32), at(7, 0)), "order_of_speed", [1, 2, 3]) is None


@pytest.mark.parametrize("order", ALL_ORDERS)
def test_order_of_approach(order: tuple[int, int, int]) -> None:
    # Each passes the camera at 4, at frame 8, 16 or 24; at the ends at least 8 * 0.5 = 4 to the side: 5.7.
    when = dict(zip(order, (8, 16, 24), strict=True))
    clip = world(*(at(4, (T - when[i]) * 0.5) for i in (1, 2, 3)))
    assert ask(clip, "order_of_approach", [1, 2, 3]) == spelled(*order)


def test_pairs_that_approach() -> None:
    # The first goes from y = -4 to -1, the others stand at 0 and 4: 4 to 1, 8 to 5, 4 to 4.
    clip = world(at(5, -4 + 3 * T / 32), at(5, 0), at(5, 4))
    assert ask(clip, "pairs_that_approach", [1, 2, 3]) == "The first and the second; the first and the third."
    assert ask(clip, "pairs_that_approach", [2, 3, 1]) == "The first and the third; the second and the third."
    standing = world(at(5, -4), at(5, 0), at(5, 4))
    assert ask(standing, "pairs_that_approach", [1, 2, 3]) == "No two of them."
    closing = world(at(5, -4 * (1 - T / 64)), at(5, 0), at(5, 4 * (1 - T / 64)))
    assert ask(closing, "pairs_that_approach", [1, 2, 3]) == "Every two of them."


def test_count_approaching() -> None:
    come, go, stand = at(8 - 4 * T / 32, 0), at(4 + 4 * T / 32, 1), at(6, -1)
    assert ask(world(come, go, stand), "count_approaching", [1, 2, 3]) == "One."
    assert ask(world(go, go, stand), "count_approaching", [1, 2, 3]) == "None."
    assert ask(world(come, come, go), "count_approaching", [1, 2, 3]) == "Two."
    assert ask(world(come, come, come), "count_approaching", [1, 2, 3]) == "All three."
    # From 6 to 5.3, a ratio of 1.13: neither clearly nearer nor clearly not.
    assert ask(world(come, go, at(6 - 0.7 * T / 32, 0)), "count_approaching", [1, 2, 3]) is None


def test_passing_behind_and_in_front() -> None:
    across = -4 + T / 4
    cube = at(4, 0)
    assert ask(world(at(6, across), cube), "passing", [1, 2]) == "It passes behind."
    assert ask(world(at(2.5, across), cube), "passing", [1, 2]) == "It passes in front."
    assert ask(world(at(6, 1 + T / 16), cube), "passing", [1, 2]) == "It does not pass."
    # From y = 4 to -4 and back to 4.
    assert ask(world(at(6, 4 * np.cos(2 * np.pi * T / 32)), cube), "passing", [1, 2]) == "It passes and comes back."
    # At 4.4 and 4 nobody can say which is in front.
    assert ask(world(at(4.4, across), cube), "passing", [1, 2]) is None


def test_passing_as_an_agent_sees_it() -> None:
    # The agent at (10, 0) faces the camera: for it the ball at x = 6 is in front of the cube at x = 4.
    clip = world(at(6, -4 + T / 4), at(4, 0), at(10, 0, yaw=180))
    assert ask(clip, "passing", [1, 2], viewer=3) == "It passes in front."
    # With its back to them it sees neither.
    assert ask(world(at(6, -4 + T / 4), at(4, 0), at(10, 0, yaw=0)), "passing", [1, 2], viewer=3) is None


@pytest.mark.parametrize(("half_turns", "answer"), [(0, "Not once."), (1, "Once."), (2, "Twice."), (3, "Three times.")])
def test_count_swaps(half_turns: int, answer: str) -> None:
    clip = world(at(6, 3 * np.cos(np.pi * half_turns * T / 32)), at(5, 0))
    assert ask(clip, "count_swaps", [1, 2]) == answer


@pytest.mark.parametrize(("turns", "answer"), [(0, "Not once."), (1, "Once."), (2, "Twice."), (3, "Three times.")])
def test_count_reversals(turns: int, answer: str) -> None:
    # y = 4 cos(pi (n + 1) t / 32) turns back n times between the ends; 9 moments see a period of at least 16 frames.
    clip = world(at(6, 4 * np.cos(np.pi * (turns + 1) * T / 32 * 0.999 + 0.0005)))
    assert ask(clip, "count_reversals", [1]) == answer


@pytest.mark.parametrize(
    ("frame", "answer"),
    [(-4, "At its start."), (8, "In its first half."), (24, "In its second half."), (36, "At its end."), (16, None)],
)
def test_when_nearest(frame: int, answer: str | None) -> None:
    assert ask(world(at(3, (T - frame) * 0.4)), "when_nearest", [1]) == answer


@pytest.mark.parametrize("quarter", range(4))
def test_when_fastest(quarter: int) -> None:
    lengths = np.where(np.arange(4) == quarter, 4, 1)
    y = np.interp(T, np.arange(5) * 8, np.cumsum([0, *lengths]))
    answer = f"In the {('first', 'second', 'third', 'last')[quarter]} quarter."
    assert ask(world(at(6, y - 3)), "when_fastest", [1]) == answer


def test_when_fastest_needs_a_clear_winner() -> None:
    y = np.interp(T, np.arange(5) * 8, np.cumsum([0, 3, 2.8, 1, 1]))
    assert ask(world(at(6, y - 3)), "when_fastest", [1]) is None
    assert ask(world(at(6, 0)), "when_fastest", [1]) is None


def quarter_circle(side: int) -> tuple:
    """From (8, 0) along -x, bending to the left (side 1, so towards -y) or right, a quarter of a circle of radius 4."""
    angle = np.pi / 2 * T / 32
    return at(8 - 4 * np.sin(angle), -side * 4 * (1 - np.cos(angle)))


BYSTANDER = at(9, 6, yaw=0)
"""An agent whose upright stance tells what is above."""


def test_path_shape() -> None:
    assert ask(world(at(5, -4 + T / 4), BYSTANDER), "path_shape", [1]) == "It is straight."
    assert ask(world(quarter_circle(1), BYSTANDER), "path_shape", [1]) == "It bends to the left."
    assert ask(world(quarter_circle(-1), BYSTANDER), "path_shape", [1]) == "It bends to the right."
    assert ask(world(at(6, 4 - np.abs(T - 16) / 4), BYSTANDER), "path_shape", [1]) == "It comes back."
    assert ask(world(at(6, 0), BYSTANDER), "path_shape", [1]) is None


def test_without_an_agent_nobody_knows_what_is_above_a_path() -> None:
    assert ask(world(at(5, -4 + T / 4)), "path_shape", [1]) is None


def pitched(degrees: int) -> np.ndarray:
    """A camera 10 from (6, 0, 0), looking down on it."""
    pitch = np.deg2rad(degrees)
    return looking(np.array([6, 0, 0]) - 10 * np.array([np.cos(pitch), 0, -np.sin(pitch)]), [6, 0, 0])


@pytest.mark.parametrize("degrees", [20, 45, 60, 80])
def test_a_camera_that_looks_down_makes_no_path_and_no_turn_another(degrees: int) -> None:
    camera, angle = pitched(degrees), np.pi / 2 * T / 32
    for side, answer in ((1, "It bends to the left."), (-1, "It bends to the right.")):
        x, y = 4 * np.sin(angle) - 2, side * (4 - 4 * np.cos(angle) - 2)
        for heading_ in np.deg2rad(np.arange(0, 360, 30)):
            c, s = np.cos(heading_), np.sin(heading_)
            told = ask(world(at(6 + c * x - s * y, s * x + c * y), at(6, 0, yaw=0), camera=camera), "path_shape", [1])
            assert told in (answer, None)
    for start in range(0, 360, 30):
        for turn, answer in ((90, "About a quarter turn to the left."), (-90, "About a quarter turn to the right.")):
            clip = world(at(6, 0, yaw=start + turn * T / 32), camera=camera)
            assert ask(clip, "turn_of_heading", [1]) in (answer, None)


@pytest.mark.parametrize(
    ("turn", "answer"),
    [
        (0, "Hardly at all."),
        (90, "About a quarter turn to the left."),
        (-90, "About a quarter turn to the right."),
        (180, "Half round."),
        (-180, "Half round."),
        (45, None),
        (270, None),
    ],
)
def test_turn_of_heading(turn: int, answer: str | None) -> None:
    assert ask(world(at(5, 0, yaw=30 + turn * T / 32)), "turn_of_heading", [1]) == answer


@pytest.mark.parametrize(
    ("place", "left", "right", "round_"),
    [
        ((4, 0), "To its right.", "To its left.", "Behind it."),
        ((0, 4), "In front of it.", "Behind it.", "To its right."),
        ((-4, 0), "To its left.", "To its right.", "In front of it."),
        ((0, -4), "Behind it.", "In front of it.", "To its left."),
    ],
)
def test_side_after_turn(place: tuple[int, int], left: str, right: str, round_: str) -> None:
    # The viewer stands at (10, 0) facing x at the end; the target 4 from it.
    clip = world(at(10 + place[0], place[1]), at(10, 0, yaw=90 - 90 * T / 32))
    for name, answer in (("left", left), ("right", right), ("round", round_)):
        assert ask(clip, f"side_after_turn_{name}", [1], viewer=2) == answer


def test_side_after_turn_refuses_a_diagonal() -> None:
    clip = world(at(14, 4), at(10, 0, yaw=0))
    assert ask(clip, "side_after_turn_left", [1], viewer=2) is None


def test_faced_target() -> None:
    # Around the robot at (10, 0): first at 90 degrees, second at 180, third at 270.
    around = at(10, 4), at(6, 0), at(10, -4)
    for yaw, answer in (
        (90, "The first."),
        (180, "The second."),
        (270, "The third."),
        (0, "None of them."),
        (135, None),
    ):
        clip = world(*around, at(10, 0, yaw=yaw + 20 * (1 - T / 32)))
        assert ask(clip, "faced_target", [1, 2, 3], viewer=4) == answer
