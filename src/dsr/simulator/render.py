"""Pixels of a world: PyBullet's CPU renderer (DIRECT mode), which also gives depth and instance masks."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
import pybullet
import pybullet_data
from pybullet_utils.bullet_client import BulletClient
from scipy.spatial.transform import Rotation

from dsr.files import whole_file
from dsr.simulator.bodies import COLOURS, Kind
from dsr.simulator.truth import Truth
from dsr.simulator.world import World

NEAR, FAR = 0.1, 60.0
_GROUND_COLOURS = ((1.0, 1.0, 1.0, 1.0), (0.8, 0.9, 0.75, 1.0), (0.9, 0.82, 0.72, 1.0), (0.75, 0.8, 0.9, 1.0))
_SKY_COLOURS = ((178, 208, 235), (222, 226, 230), (240, 214, 190), (96, 108, 130))
# x264's lookahead decides on frame types and rates from memory that it does not initialise: with it the same
# images were seen to become other bytes from one call to the next, whatever the number of threads.
_NO_LOOKAHEAD = "rc-lookahead=0:mbtree=0:bframes=0:scenecut=0:weightp=0"
_OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])


@contextmanager
def _silence() -> Iterator[None]:
    """Send what native code prints nowhere: PyBullet remarks on every asset. Its errors are exceptions."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        yield
    finally:
        for descriptor, original in zip((1, 2), kept, strict=True):
            os.dup2(original, descriptor)
            os.close(original)
        os.close(nowhere)


@dataclass(frozen=True, eq=False)
class Frame:
    """Pixels of one frame."""

    image: np.ndarray
    """[H, W, 3] uint8, RGB."""
    depth: np.ndarray
    """[H, W] float32, as Truth's."""
    instance: np.ndarray
    """[H, W] uint8, as Truth's."""
    unoccluded: np.ndarray
    """[B] int64, pixels that a body would cover if it were alone; 0 where nothing of it is seen."""


class Studio:
    """A PyBullet world with a world's bodies in it; a context manager, since it holds native memory."""

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self._world, self._truth = world, world.truth
        self.height, self.width = (int(s) for s in world.truth.size)
        self._client = _connect()
        ground = self._client.loadURDF("plane.urdf", useFixedBase=True)
        colour = _GROUND_COLOURS[int(rng.integers(len(_GROUND_COLOURS)))]
        self._client.changeVisualShape(ground, -1, rgbaColor=colour)
        self._sky = _SKY_COLOURS[int(rng.integers(len(_SKY_COLOURS)))]
        angle = rng.uniform(0, 2 * np.pi)
        self._light = [float(np.cos(angle)), float(np.sin(angle)), float(rng.uniform(1.0, 2.0))]
        self._bodies = [_load(self._client, *cast) for cast in zip(world.kinds, world.colours, strict=True)]
        self._asset_poses = [self._poses_of_asset(body, number) for number, body in enumerate(self._bodies)]
        self._alone: dict[int, tuple[BulletClient, int]] = {}

    def __enter__(self) -> "Studio":
        return self

    def __exit__(self, *_: object) -> None:
        for client in (self._client, *(client for client, _ in self._alone.values())):
            client.disconnect()

    def frames(self) -> Iterator[Frame]:
        """Draw the frames one after another."""
        whole = (0, 0, self.width, self.height)
        for frame in range(len(self._truth.timestamps)):
            for body, (position, quaternion) in zip(self._bodies, self._asset_poses, strict=True):
                self._client.resetBasePositionAndOrientation(body, position[frame], quaternion[frame])
            image, depth, segments = self._draw(self._client, frame, whole)
            instance = np.zeros(segments.shape, np.uint8)
            for number, body in enumerate(self._bodies):
                instance[segments == body] = number + 1
            unoccluded = [self._unoccluded(frame, number, depth, instance) for number in range(len(self._bodies))]
            yield Frame(image, depth, instance, np.array(unoccluded))

    def _draw(
        self, client: BulletClient, frame: int, window: tuple[int, int, int, int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Image, depth and PyBullet's body ids (-1: none) of a window (left, top, width, height) of a frame."""
        view = _OPENGL_FROM_OPENCV @ np.linalg.inv(self._truth.camera_poses[frame])
        _, _, image, buffer, segments = client.getCameraImage(
            *window[2:],
            view.T.ravel().tolist(),
            self._projection(window).T.ravel().tolist(),
            lightDirection=self._light,
            # The CPU renderer's shadow pass doubles the time, and on this ground it draws no shadows.
            shadow=0,
            renderer=pybullet.ER_TINY_RENDERER,
        )
        shape = window[3], window[2]
        segments = np.asarray(segments).reshape(shape)
        depth = FAR * NEAR / (FAR - (FAR - NEAR) * np.asarray(buffer, np.float64).reshape(shape))
        depth[segments < 0] = np.nan
        image = np.array(image, np.uint8).reshape(*shape, 4)[..., :3]
        image[segments < 0] = self._sky
        return image, depth.astype(np.float32), segments

    def _unoccluded(self, frame: int, number: int, depth: np.ndarray, instance: np.ndarray) -> int:
        """Pixels that a body would cover if it were alone; 0 where nothing of it is seen.

        It is drawn alone only where something nearer is in its box, and then no more than its box.
        """
        mask = instance == number + 1
        count = int(mask.sum())
        if count == 0:
            return 0
        left, top, width, height = window = self._window(self._truth.boxes[frame, number])
        part = np.s_[top : top + height, left : left + width]
        others = (instance[part] > 0) & ~mask[part]
        if not (depth[part][others] < depth[mask].max()).any():
            return count
        if number not in self._alone:
            client = _connect()
            self._alone[number] = client, _load(client, self._world.kinds[number], self._world.colours[number])
        client, body = self._alone[number]
        position, quaternion = self._asset_poses[number]
        client.resetBasePositionAndOrientation(body, position[frame], quaternion[frame])
        return int((self._draw(client, frame, window)[2] == body).sum())

    def _window(self, box: np.ndarray) -> tuple[int, int, int, int]:
        """Left, top, width, height in whole pixels of a box and a margin; the whole image where there is no box."""
        if np.isnan(box).any():
            return 0, 0, self.width, self.height
        left, top = np.maximum(np.floor(box[:2]).astype(int) - 2, 0).tolist()
        right, bottom = np.minimum(np.ceil(box[2:]).astype(int) + 2, [self.width, self.height]).tolist()
        return left, top, right - left, bottom - top

    def _poses_of_asset(self, body: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions [F, 3] and quaternions [F, 4] (xyzw) that PyBullet wants: of the asset's inertial frame."""
        rotation, translation = self._world.kinds[number].body_from_asset
        body_from_asset = np.eye(4)
        body_from_asset[:3, :3], body_from_asset[:3, 3] = rotation, translation
        dynamics = self._client.getDynamicsInfo(body, -1)
        asset_from_inertial = np.eye(4)
        asset_from_inertial[:3, :3] = Rotation.from_quat(dynamics[4]).as_matrix()
        asset_from_inertial[:3, 3] = dynamics[3]
        poses = self._truth.body_poses[:, number] @ body_from_asset @ asset_from_inertial
        return poses[:, :3, 3], Rotation.from_matrix(poses[:, :3, :3]).as_quat()

    def _projection(self, window: tuple[int, int, int, int]) -> np.ndarray:
        """OpenGL projection [4, 4] of the truth's pinhole camera onto a window of its image.

        The renderer samples pixel (column, row) at (column, row + 1), not in its middle; moving the image by half
        a pixel puts the samples where the pinhole camera has them, at (column + 0.5, row + 0.5).
        """
        left, top, width, height = window
        fx, fy = self._truth.intrinsics[[0, 1], [0, 1]]
        cx, cy = self._truth.intrinsics[:2, 2] - [left, top]
        matrix = np.zeros((4, 4))
        matrix[0, 0], matrix[0, 2] = 2 * fx / width, 1 - 2 * cx / width + 1 / width
        matrix[1, 1], matrix[1, 2] = 2 * fy / height, 2 * cy / height - 1 + 1 / height
        matrix[2, 2] = -(FAR + NEAR) / (FAR - NEAR)
        matrix[2, 3] = -2 * FAR * NEAR / (FAR - NEAR)
        matrix[3, 2] = -1
        return matrix


def _connect() -> BulletClient:
    with _silence():
        client = BulletClient(connection_mode=pybullet.DIRECT)
    client.setAdditionalSearchPath(pybullet_data.getDataPath())
    return client


def _load(client: BulletClient, kind: Kind, colour: str) -> int:
    with _silence():
        body: int = client.loadURDF(kind.asset, useFixedBase=True, globalScaling=kind.scale)
    if colour:
        client.changeVisualShape(body, -1, rgbaColor=COLOURS[colour])
    for joint in range(client.getNumJoints(body)):
        name = client.getJointInfo(body, joint)[1].decode()
        for ending, angle in kind.joints:
            if name.endswith(ending):
                client.resetJointState(body, joint, angle)
    return body


def render(world: World, rng: np.random.Generator, video: Path, fps: int) -> Truth:
    """Write the world's video (H.264, yuv420p) and return its truth with depth, instances and what is seen of them.

    The same world and generator give the same bytes: the encoder runs in one thread, without lookahead, and writes
    no dates.
    """
    frames = []
    with (
        Studio(world, rng) as studio,
        whole_file(video) as partial,
        av.open(str(partial), "w", format="mp4") as container,
    ):
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = studio.width, studio.height, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.options = {"crf": "20", "preset": "veryfast", "x264-params": _NO_LOOKAHEAD}
        for frame in studio.frames():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.image, format="rgb24")))
            frames.append(frame)
        container.mux(stream.encode(None))
    return truth_with_pixels(world, frames)


def truth_with_pixels(world: World, frames: list[Frame]) -> Truth:
    """The world's truth with depth, instances and what is seen of the bodies in them."""
    instance = np.stack([frame.instance for frame in frames])
    boxes, visible_fraction = _seen(instance, np.stack([frame.unoccluded for frame in frames]))
    return replace(
        world.truth,
        boxes=boxes,
        visible_fraction=visible_fraction,
        rendered=np.array(True),
        depth=np.stack([frame.depth for frame in frames]),
        instance=instance,
    )


def _seen(instance: np.ndarray, unoccluded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Truth's boxes [F, B, 4] and visible_fraction [F, B], from instances [F, H, W] and pixel counts [F, B]."""
    boxes = np.full((*unoccluded.shape, 4), np.nan, np.float32)
    visible = np.zeros(unoccluded.shape, np.float32)
    for frame, body in np.argwhere(unoccluded > 0):
        mask = instance[frame] == body + 1
        columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
        boxes[frame, body] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        visible[frame, body] = min(mask.sum() / unoccluded[frame, body], 1.0)
    return boxes, visible
