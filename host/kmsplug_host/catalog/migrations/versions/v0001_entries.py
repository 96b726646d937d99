"""The one table that all shims share."""

from alembic import op
from sqlalchemy import BigInteger, Column, LargeBinary, String, Text

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "kmsplug_catalog",
        Column("id", String(64), primary_key=True),
        Column("owner_id", String(64), nullable=False),
        Column("keystore", Text, nullable=False),
        Column("kind", String(32), nullable=False),
        Column("name", Text, nullable=False),
        Column("owner", Text, nullable=False),
        Column("rev", BigInteger, nullable=False),
        Column("body", Text, nullable=False),
        Column("mac", LargeBinary, nullable=False),
    )
    op.create_index("kmsplug_catalog_owner", "kmsplug_catalog", ["owner_id"])


def downgrade() -> None:
    """Drop the table, and with it all that the shims know."""
    op.drop_index("kmsplug_catalog_owner", "kmsplug_catalog")
    op.drop_table("kmsplug_catalog")
