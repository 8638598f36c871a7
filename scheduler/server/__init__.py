"""The HTTP API under ``/v1``: one router file per subject, made into an app by ``create_app``."""
