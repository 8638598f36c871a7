"""Alembic's entry: it migrates over the connection, and inside the transaction, it is handed."""

from __future__ import annotations

from alembic import context

from jobs.sql_tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot alter a table; Alembic copies it
)
with context.begin_transaction():
    context.run_migrations()
