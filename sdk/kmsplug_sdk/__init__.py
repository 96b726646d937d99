"""What a driver author imports: the base class, the declaration of capabilities, and `serve`."""

from .call import Call, current_call
from .driver import Driver, NoConfig, provides
from .errors import DriverError
from .serve import serve

__all__ = ["Call", "Driver", "DriverError", "NoConfig", "current_call", "provides", "serve"]
