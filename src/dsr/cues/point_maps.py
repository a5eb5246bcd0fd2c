"""Reduced point maps: which pixels they sample, back-projection of depth, and a ray caster of simple worlds.

Letters: T frames, B bodies, h x w the reduced map, H x W the video. A pixel (row r, column c) covers
[c, c + 1) x [r, r + 1); its centre is at (c + 0.5, r + 0.5).
"""

import numpy as np

_NEAR = 1e-3
"""Least distance in front of the camera of a ray's hit, in the scene's units."""


def sampled_pixels(full: tuple[int, int], reduced: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows [h] and columns [w] of the pixels nearest to the centres of a reduced map's cells.

    One pixel a cell, not a mean: the mean of a near and a far surface is a point where there is nothing.

    >>> rows, columns = sampled_pixels((4, 9), (2, 3))
    >>> rows.tolist(), columns.tolist()
    ([1, 3], [1, 4, 7])
    """
    rows, columns = (
        np.minimum((np.arange(n) + 0.5) * size / n, size - 1).astype(np.int64)
        for n, size in zip(reduced, full, strict=True)
    )
    return rows, columns


def pixel_rays(intrinsics: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Points at depth 1 behind the centres of pixels.

    Args:
        intrinsics: [..., 3, 3] in the pixels that `rows` [h] and `columns` [w] count.

    Returns:
        [..., h, w, 3] float64, camera frame, z = 1.

    A camera of focal length 2 whose principal point is the middle of 4 x 4 pixels:

    >>> intrinsics = np.array([[2.0, 0.0, 2.0], [0.0, 2.0, 2.0], [0.0, 0.0, 1.0]])
    >>> pixel_rays(intrinsics, np.array([0]), np.array([0, 3])).tolist()
    [[[-0.75, -0.75, 1.0], [0.75, -0.75, 1.0]]]
    """
    u, v = np.meshgrid(columns + 0.5, rows + 0.5)
    pixels = np.stack([u, v, np.ones_like(u)], axis=-1)
    return (np.linalg.inv(intrinsics)[..., None, None, :, :] @ pixels[..., None])[..., 0]


def back_project(depth: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Camera-frame points [T, h, w, 3] float32 of z-depths [T, h, w]; NaN where the depth is.

    >>> back_project(np.array([[[2.0]]]), np.array([[[0.5, -0.25, 1.0]]])).tolist()
    [[[[1.0, -0.5, 2.0]]]]
    """
    return (depth[..., None] * rays).astype(np.float32)


def focal_lengths(points: np.ndarray, valid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Intrinsics [T, 3, 3] float64 of the pinhole camera that sees points where they are seen, fitted a frame.

    The principal point is taken to be the middle of the image; NaN where a frame has no valid point off its axis.

    Args:
        points: [T, h, w, 3], camera frame, in the pixels of a picture resized from the video.
        valid: [T, h, w] bool.
        size: height and width of the video in pixels.
    """
    intrinsics = np.full((len(points), 3, 3), np.nan)
    for t, (frame, known) in enumerate(zip(points, valid, strict=True)):
        rows, columns = np.nonzero(known)
        seen = frame[rows, columns].astype(np.float64)
        focal = []
        for axis, place in ((0, columns), (1, rows)):
            pixels = (place + 0.5) * size[1 - axis] / known.shape[1 - axis] - size[1 - axis] / 2
            slope = seen[:, axis] / seen[:, 2]
            focal.append(float(pixels @ slope / (slope @ slope)) if slope.any() else np.nan)
        if np.isfinite(focal).all() and min(focal) > 0:
            intrinsics[t] = [[focal[0], 0, size[1] / 2], [0, focal[1], size[0] / 2], [0, 0, 1]]
    return intrinsics


def cast_rays(
    rays: np.ndarray,
    camera_poses: np.ndarray,
    body_poses: np.ndarray,
    half_extents: np.ndarray,
    reached: np.ndarray,
    far: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Depth of a world that is a ground plane (z = 0) and boxes, as its camera sees it.

    Args:
        rays: [h, w, 3] points at depth 1, camera frame.
        camera_poses: [T, 4, 4] camera-to-world.
        body_poses: [T, B, 4, 4] world-from-body.
        half_extents: [B, 3].
        reached: [T, B, h, w] bool, the rays that may meet a body; the others are taken to miss it.
        far: greatest depth; beyond it there is no surface.

    Returns:
        depth [T, h, w] float64 (NaN where there is no surface) and body [T, h, w] int64 (-1: ground or nothing).

    A camera 3 above the ground that looks down, with a box of height 2 below it:

    >>> pose, box = np.diag([1.0, -1.0, -1.0, 1.0]), np.eye(4)
    >>> pose[2, 3], box[2, 3] = 3.0, 1.0
    >>> rays, reached = np.array([[[0.0, 0.0, 1.0], [2.0, 0.0, 1.0]]]), np.ones((1, 1, 1, 2), bool)
    >>> depth, body = cast_rays(rays, pose[None], box[None, None], np.ones((1, 3)), reached, far=60.0)
    >>> depth.tolist(), body.tolist()
    ([[[1.0, 3.0]]], [[[0, -1]]])
    """
    h, w = rays.shape[:2]
    world_from_camera = camera_poses[:, :3, :3]
    rays = rays.reshape(-1, 3)
    with np.errstate(divide="ignore", invalid="ignore"):
        ground = -camera_poses[:, None, 2, 3] / (world_from_camera[:, 2] @ rays.T)
    depth = np.where((ground > _NEAR) & (ground <= far), ground, np.inf)
    body = np.full(depth.shape, -1)

    # K (frame, body, ray) triples.
    t, b, k = np.nonzero(reached.reshape(*reached.shape[:2], -1))
    from_world = np.swapaxes(body_poses[..., :3, :3], -1, -2)
    offsets = camera_poses[:, None, :3, 3, None] - body_poses[..., :3, 3, None]
    origins = (from_world @ offsets)[..., 0][t, b]
    columns = np.moveaxis((from_world @ world_from_camera[:, None])[t, b], -1, 0)
    x, y, z = rays[k].T[..., None]
    hit = _meet_boxes(origins, columns[0] * x + columns[1] * y + columns[2] * z, half_extents[b])
    # Farthest first, so that the nearest hit of a pixel is what remains.
    met = np.flatnonzero(hit <= np.minimum(depth[t, k], far))
    order = met[np.argsort(-hit[met], kind="stable")]
    depth[t[order], k[order]], body[t[order], k[order]] = hit[order], b[order]
    return np.where(np.isfinite(depth), depth, np.nan).reshape(-1, h, w), body.reshape(-1, h, w)


def _meet_boxes(origins: np.ndarray, directions: np.ndarray, half_extents: np.ndarray) -> np.ndarray:
    """Ray parameter [K] of the first hit with axis-aligned boxes about 0 (the slab test); inf where none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1.0 / directions
        one, other = (-half_extents - origins) * inverse, (half_extents - origins) * inverse
    # fmin/fmax: a ray in a slab's plane gives 0 * inf = NaN, which bounds nothing. Axis by axis: a reduction over
    # a last axis of 3 is several times slower.
    near, far = np.fmin(one, other).T, np.fmax(one, other).T
    first = np.fmax(np.fmax(near[0], near[1]), near[2])
    last = np.fmin(np.fmin(far[0], far[1]), far[2])
    return np.where((first <= last) & (first > _NEAR), first, np.inf)
