"""Result of curating a clip."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NOTHING_NAMED = "nothing named: no agent or object recognised in the caption"


@dataclass(frozen=True)
class Curated:
    """A curated caption."""

    agents: list[str] = field(default_factory=list)
    """Things with a meaningful facing direction, as the caption names them, unique."""
    objects: list[str] = field(default_factory=list)
    """Things without one, unique."""
    dynamic: bool = False
    category: str = ""
    reason: str = ""
    """Reason for dropping the clip, `kind: detail`; empty for one that is kept."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """Further columns of a backend: the same for all of its clips."""
