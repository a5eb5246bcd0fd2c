"""`dsr show`: a clip's cues as text, as a contact sheet and as a rerun recording."""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from dsr.console import summary
from dsr.cues.clips import Clip
from dsr.cues.schema import ClipCues
from dsr.explain.frames import find_clip, find_cues
from dsr.params import Params


def run(
    params: Params,
    root: Path,
    clip_id: str,
    png: Path | None = None,
    recording: Path | None = None,
    show_viewer: bool = False,
) -> None:
    """Print what is known of a clip; draw and record it where asked for.

    Args:
        recording: a rerun recording to write (.rrd).
        show_viewer: open the recording in rerun's viewer.

    Raises:
        StageError: the clip has no cues, and why; rerun is asked for and not installed.
    """
    cues, clip = find_cues(root, clip_id), find_clip(root, clip_id)
    summary(clip_id, facts(cues, clip))
    if png is not None:
        from dsr.explain.contact_sheet import write_contact_sheet

        write_contact_sheet(png, cues, clip)
    if recording is not None or show_viewer:
        from dsr.explain.recording import write_recording

        path = recording or Path(tempfile.mkdtemp(prefix="dsr-")) / f"{clip_id}.rrd"
        write_recording(path, cues, clip)
        if show_viewer:
            subprocess.Popen([sys.executable, "-m", "rerun", str(path)], start_new_session=True)


def facts(cues: ClipCues, clip: Clip | None) -> dict[str, object]:
    """Facts of a clip and its tracks, by name."""
    meta = cues.meta
    identity = meta.get("identity", {})
    known: dict[str, object] = {
        "video": str(clip.video) if clip is not None and clip.video else "none",
        "size": f"{meta['width']} x {meta['height']} pixels",
        "frames": f"{cues.num_frames}, {cues.timestamps[0]:.2f} to {cues.timestamps[-1]:.2f} s",
        "backend": f"{identity.get('backend', '?')}, key {str(meta.get('key', ''))[:12]}",
        "point map": f"{cues.point_map.shape[1]} x {cues.point_map.shape[2]}, "
        f"{np.isfinite(cues.point_map[..., 2]).mean():.0%} valid",
        "masks": f"{int((np.diff(cues.mask_offsets) > 0).sum())} of {int(cues.visible.sum())} detections",
    }
    for track, label in enumerate(cues.labels.tolist()):
        kind = "agent" if cues.is_agent[track] else "object"
        depth = cues.centers[track, cues.visible[track], 2]
        facing = np.isfinite(cues.orientations[track, :, 0, 0]).sum()
        where = f", depth {depth.min():.2f} to {depth.max():.2f}" if len(depth) else ""
        axes = f", oriented in {facing}" if cues.is_agent[track] else ""
        known[f"track {track}: {label}"] = f"{kind}, visible in {int(cues.visible[track].sum())}{axes}{where}"
    return known
