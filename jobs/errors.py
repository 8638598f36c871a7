"""Errors that a user can mend: each says the cause, the remedy and a stable code.

Our own bugs are ``AssertionError``; everything here is the ``ValueError`` family, is shown as
two lines by the CLI (exit code 2) and as ``application/problem+json`` by the API.
"""

from __future__ import annotations

from typing import ClassVar


class LowtideError(ValueError):
    """A problem that the reader can mend.

    Args:
        cause: one sentence, what is wrong and where.
        remedy: one sentence, what to do about it.
    """

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 400

    def __init__(self, cause: str, *, remedy: str) -> None:
        """Keep both sentences; ``str(error)`` is ``cause remedy``."""
        super().__init__(f"{cause} {remedy}".strip())
        self.cause = cause
        self.remedy = remedy


class SpecError(LowtideError):
    """The job specification is not usable; the cause names the field."""

    code = "spec-invalid"
    http_status = 422


class DependencyError(SpecError):
    """Jobs wait for each other in a circle."""

    code = "dependency-cycle"


class InfeasibleError(LowtideError):
    """No cluster could ever hold the job, or its deadline cannot be met."""

    code = "infeasible"
    http_status = 422


class UnknownSubjectError(LowtideError):
    """No job, node, flavor or cluster of that name exists."""

    code = "not-found"
    http_status = 404


class ConflictError(LowtideError):
    """The subject is in a state in which the request makes no sense."""

    code = "conflict"
    http_status = 409


class FencedError(LowtideError):
    """A newer leader (or attempt) has taken over; this write was refused."""

    code = "fenced"
    http_status = 409


class NewerDatabaseError(LowtideError):
    """The database was written by a newer version of Lowtide."""

    code = "database-newer"


class UnreachableError(LowtideError):
    """A server, object store or cluster did not answer."""

    code = "unreachable"
    http_status = 503


class AuthError(LowtideError):
    """The token or the credentials were refused."""

    code = "auth"
    http_status = 401


class FileFormatError(LowtideError):
    """A scenario or configuration file is corrupt; the cause names line and field."""

    code = "file-format"
    http_status = 422
