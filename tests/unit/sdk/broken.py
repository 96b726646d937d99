"""A module that cannot be imported, as one whose vendor library is not installed."""

import a_vendor_library_that_nobody_has  # type: ignore[import-not-found]

__all__ = ["a_vendor_library_that_nobody_has"]
