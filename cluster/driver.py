"""How intents reach a cluster: the Protocol that Ray, the agent link and the simulator share.

``submit`` returns at once and never raises for what happens in the world: results come back
only as notices in the inbox. Submitting the same intent (by ``id``) again is harmless.
"""

from __future__ import annotations

from typing import Protocol

from cluster.intents import Intent


class ClusterDriver(Protocol):
    """Carries out intents; see the module docstring for the promises."""

    def submit(self, intent: Intent) -> None:
        """Take an intent; idempotent by ``intent.id``; never blocks on the world."""

    def close(self) -> None:
        """Let go of resources; running attempts are left alone."""
