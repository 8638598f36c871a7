"""Triggers that make a table append-only, in both databases."""

from __future__ import annotations

from alembic import op

_POSTGRES_FUNCTION = """
CREATE OR REPLACE FUNCTION lowtide_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END
$$
"""


def refuse_changes(table: str, *, key: tuple[str, ...]) -> None:
    """Let a table only grow: UPDATE, DELETE and their disguises fail from now on.

    Args:
        table: a table of ours.
        key: its primary key.
    """
    if op.get_bind().dialect.name == "sqlite":
        _refuse_in_sqlite(table, key=key)
    else:
        op.execute(_POSTGRES_FUNCTION)
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION lowtide_append_only()"
        )


def _refuse_in_sqlite(table: str, *, key: tuple[str, ...]) -> None:
    refuse = f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} {refuse}"
        )
    # INSERT OR REPLACE deletes the old row without telling the triggers of DELETE.
    same = " AND ".join(f"{column} = NEW.{column}" for column in key)
    there = f"EXISTS (SELECT 1 FROM {table} WHERE {same})"  # noqa: S608 - our own names
    op.execute(f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} WHEN {there} {refuse}")
