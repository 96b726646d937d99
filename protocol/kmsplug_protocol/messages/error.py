"""What an error carries on the wire."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from kmsplug_protocol import jsonrpc
from kmsplug_protocol.errors import Outcome

from .base import Vendor


class ErrorData(BaseModel):
    """The `data` member of an error response."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True, hide_input_in_errors=True)

    code: str = Field(
        description="An error code of section 7. A host treats one that it does not know as UNCLASSIFIED."
    )
    outcome: Outcome | None = Field(
        default=None, description="What is known about the effect; default by section 7."
    )
    retry_after_ms: int | None = Field(
        default=None, ge=0, description="The provider's own hint, in milliseconds."
    )
    credential_renewed: bool | None = Field(
        default=None,
        description="With AUTHENTICATION_FAILED: the driver holds another credential by now; try once more.",
    )
    hint: str | None = Field(default=None, description="What to do about it, one sentence.")
    path: str | None = Field(default=None, description="The wrong member of settings or params, as `a.b.0`.")
    vendor: Vendor | None = Field(default=None, description="The provider's own words.")
    causes: tuple[Annotated[str, StringConstraints(max_length=128)], ...] = Field(
        default=(),
        max_length=8,
        description="Types of the exceptions behind it, the nearest first; never their texts.",
    )
    correlation_id: str | None = Field(default=None, description="Finds the details in the driver's log.")


def error_response(request_id: jsonrpc.Id | None, message: str, data: ErrorData) -> dict[str, Any]:
    """Return the response for a typed failure."""
    return jsonrpc.failure(
        request_id, jsonrpc.KEYSTORE_ERROR, message, data.model_dump(mode="json", exclude_defaults=True)
    )
