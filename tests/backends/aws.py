"""Settings of the AWS KMS driver for servers on this machine."""

from typing import Any, Final

REGION: Final = "eu-west-1"
ACCOUNT: Final = "000000000000"  # LocalStack's for any access key that is not a number
SECRET: Final = "canary-secret-access-key"
STATIC: Final = {"method": "static", "access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": SECRET}

# Not in LocalStack: described by AWS's documents only.
NOT_THERE: Final = (
    "ED25519", "ML_DSA_44", "ML_DSA_65", "ML_DSA_87", "ML_KEM_512", "ML_KEM_768", "ML_KEM_1024",
)  # fmt: skip
# Of a kind one is enough, and making RSA keys takes long.
SPARED: Final = ("RSA_3072", "RSA_4096", "EC_P384", "EC_P521", "HMAC_SHA_384", "HMAC_SHA_512")


def settings(url: str, **changes: Any) -> dict[str, Any]:
    """Return settings for a server at *url*."""
    return {
        "region": REGION,
        "account": ACCOUNT,
        "endpoint": url,
        "login": STATIC,
        "without": [*NOT_THERE],
        **changes,
    }
