"""What a driver raises to refuse a request; anything else is a defect and is answered as one."""

from kmsplug_protocol import ErrorCode, ErrorData, Outcome, Vendor


class DriverError(Exception):
    """A typed refusal or failure, sent to the host as it is.

    Args:
        code: Why, from the closed set of the protocol.
        message: Lower case, no full stop, what to do. Never plaintext, key bytes, tokens or an SDK's text.
        outcome: What is known about the effect; None: what the code implies.
        retry_after_ms: The provider's own hint.
        credential_renewed: With AUTHENTICATION_FAILED: the driver has another credential by now, so that the
            host may try once more. Never for one that was typed in, as a PIN: a token locks.
        hint: What an operator could do about it.
        path: The configuration member that is wrong.
        vendor: The provider's own code, message and request id.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        outcome: Outcome | None = None,
        retry_after_ms: int | None = None,
        credential_renewed: bool = False,
        hint: str | None = None,
        path: str | None = None,
        vendor: Vendor | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = ErrorData(
            code=code,
            outcome=outcome,
            retry_after_ms=retry_after_ms,
            credential_renewed=credential_renewed or None,
            hint=hint,
            path=path,
            vendor=vendor,
        )
