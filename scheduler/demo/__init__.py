"""`lowtide demo`: the whole path on this machine, with real parts, in a few minutes."""

from __future__ import annotations


def run_demo(*, json_output: bool, keep: bool) -> int:
    """Run the demo and print its table and proofs; see ``scheduler.demo.story``.

    Returns:
        0 when every job ended as it should and every proof holds, else 1.
    """
    from scheduler.demo.story import tell  # noqa: PLC0415 - heavy, and only for this command

    return tell(json_output=json_output, keep=keep)
