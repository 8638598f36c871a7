"""``python -m scheduler.cli`` is ``lowtide``."""

from __future__ import annotations

from scheduler.cli.app import main

main()
