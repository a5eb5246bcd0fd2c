"""A backend whose clips fail in the way that their id says."""

import os
import signal
import time
from typing import Any

from dsr.cues.backends import ClipFailure, simulated
from dsr.cues.clips import Clip
from dsr.cues.schema import ClipCues


class Backend(simulated.Backend):
    def identity(self, clip: Clip) -> dict[str, Any]:
        return {"version": 1}

    def extract(self, clip: Clip) -> ClipCues:
        kind = clip.clip_id.split("-")[0]
        if kind == "refused":
            raise ClipFailure(f"{clip.truth}: nothing to see")
        if kind == "bug":
            raise KeyError("depth")
        if kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if kind == "exit":
            os._exit(3)
        if kind == "slow":
            time.sleep(0.05)
        return super().extract(clip)
