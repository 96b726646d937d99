"""Run by alembic: the connection is the one that `kmsplug_host.catalog` has opened and locked."""

from alembic import context

from kmsplug_host.catalog._tables import METADATA, VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=VERSION_TABLE,
)
context.run_migrations()
