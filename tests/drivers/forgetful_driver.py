"""A driver that promises to authenticate associated data and ignores them: the mock, but for that."""

from typing import Any, ClassVar

from kmsplug_plugins.mock.driver import MockDriver
from kmsplug_sdk import serve


class ForgetfulDriver(MockDriver):
    """Drops what it should bind."""

    name: ClassVar[str] = "forgetful"

    def _perform(self, operation: str, request: Any, method: Any) -> Any:
        dropped = {name: None for name in ("associated_data", "context") if hasattr(request, name)}
        return super()._perform(operation, request.model_copy(update=dropped), method)


if __name__ == "__main__":
    serve("__main__:ForgetfulDriver")
