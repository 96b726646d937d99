"""The tables of the catalog, as the newest migration leaves them."""

from typing import Final

from sqlalchemy import BigInteger, Column, Index, LargeBinary, MetaData, String, Table, Text

HEAD: Final = "0001"
"""The newest migration."""

VERSION_TABLE: Final = "kmsplug_catalog_version"

METADATA: Final = MetaData()

ENTRIES: Final = Table(
    "kmsplug_catalog",
    METADATA,
    # Digests, because names may be longer than what an index takes.
    Column("id", String(64), primary_key=True),
    Column("owner_id", String(64), nullable=False),
    Column("keystore", Text, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("name", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("rev", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Column("mac", LargeBinary, nullable=False),
    Index("kmsplug_catalog_owner", "owner_id"),
)
