"""Result of curating a clip."""

from dataclasses import dataclass, field


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
