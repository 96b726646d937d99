"""The catalog: what shims must remember, in SQLite or, for several hosts, in PostgreSQL.

It chooses keys, so it is inside the trust boundary: every row carries a MAC under the catalog's key. Every
change is a compare-and-set, so that hosts that share a catalog lose nothing of each other.

Only this package imports SQLAlchemy, and only `open_catalog` loads it.
"""

from .entries import Catalog, Entry, Put
from .opening import CatalogHandle

__all__ = ["Catalog", "CatalogHandle", "Entry", "Put"]
