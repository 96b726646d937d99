"""IAM Roles Anywhere: credentials for an X.509 certificate, by a request that its private key signs.

The SDK has no such login. The signature is that of AWS Signature Version 4 with an asymmetric key, as of the
IAM Roles Anywhere User Guide, "The signing process for authenticated requests to the CreateSession API".
Tried against a server of our own that checks the signature, never against AWS.
"""

import base64
import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import Certificate, load_pem_x509_certificates
from kmsplug_protocol import ErrorCode, Outcome, Vendor
from kmsplug_sdk import DriverError

from ._client import post
from .config import AwsConfig

_SERVICE: Final = "rolesanywhere"
_CREATED: Final = 201
_SUFFIXES: Final = {"aws-cn": "amazonaws.com.cn"}
_MAX_FILE_BYTES: Final = 256 * 1024


def create_session(config: AwsConfig, duration_s: int) -> Mapping[str, Any]:
    """Return temporary credentials, as the service writes them.

    Raises:
        DriverError: The files are not what they should be, or the service refused.
    """
    login = config.login
    certificates, key = _load(login.certificate_file, login.private_key_file)
    suffix = _SUFFIXES.get(config.partition, "amazonaws.com")
    url = login.url or f"https://{_SERVICE}.{config.region}.{suffix}"
    query = "&".join(
        f"{name}={quote(value or '', safe='-_.~')}"
        for name, value in (
            ("profileArn", login.profile_arn),
            ("roleArn", login.role_arn),
            ("trustAnchorArn", login.trust_anchor_arn),
        )
    )
    body = json.dumps({"durationSeconds": duration_s}).encode()
    now = dt.datetime.now(dt.UTC)
    headers = signed_headers(
        certificates, key, host=urlsplit(url).netloc, query=query, body=body, region=config.region, now=now
    )
    status, answer = post(config, f"{url}/sessions?{query}", headers, body)
    try:
        document = json.loads(answer)
        if status == _CREATED:
            found: Mapping[str, Any] = document["credentialSet"][0]["credentials"]
            return found
        code = str(document.get("__type") or document.get("code") or status)
    except (ValueError, LookupError, AttributeError, TypeError):
        code = str(status)
    raise DriverError(
        ErrorCode.AUTHENTICATION_FAILED,
        "Roles Anywhere refused the certificate: see its trust anchor, profile and role",
        outcome=Outcome.NOT_APPLIED,
        vendor=Vendor(service=_SERVICE, code=code[:128], http_status=status, withheld=True),
    )


def signed_headers(
    certificates: list[Certificate],
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
    *,
    host: str,
    query: str,
    body: bytes,
    region: str,
    now: dt.datetime,
) -> dict[str, str]:
    """Return the headers of a request for a session.

    Args:
        certificates: The one to log in with, then those between it and the trust anchor.
        key: Its private key.
        host: Of the service.
        query: The request's, its names in order.
        body: The request's.
        region: The service's.
        now: The moment, in UTC.
    """
    leaf, *chain = (base64.b64encode(one.public_bytes(Encoding.DER)).decode() for one in certificates)
    moment = now.strftime("%Y%m%dT%H%M%SZ")
    headers = {
        "content-type": "application/json",
        "host": host,
        "x-amz-date": moment,
        "x-amz-x509": leaf,
        **({"x-amz-x509-chain": ",".join(chain)} if chain else {}),
    }
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    request = f"POST\n/sessions\n{query}\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"
    scope = f"{moment[:8]}/{region}/{_SERVICE}/aws4_request"
    algorithm = f"AWS4-X509-{'RSA' if isinstance(key, rsa.RSAPrivateKey) else 'ECDSA'}-SHA256"
    text = f"{algorithm}\n{moment}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}".encode()
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(text, padding.PKCS1v15(), hashes.SHA256())
    else:
        signature = key.sign(text, ec.ECDSA(hashes.SHA256()))
    serial = certificates[0].serial_number
    headers["authorization"] = (
        f"{algorithm} Credential={serial}/{scope}, SignedHeaders={names}, Signature={signature.hex()}"
    )
    return headers


def _load(
    certificate_file: str | None, key_file: str | None
) -> tuple[list[Certificate], rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey]:
    try:
        certificates = load_pem_x509_certificates(_read(certificate_file))
    except (OSError, ValueError):
        raise _unreadable("login.certificate_file", "PEM certificates") from None
    try:
        key = load_pem_private_key(_read(key_file), None)
    except (OSError, ValueError, TypeError):
        raise _unreadable("login.private_key_file", "a PEM private key without a passphrase") from None
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise _unreadable("login.private_key_file", "an RSA or EC key")
    if certificates[0].public_key() != key.public_key():
        raise DriverError(
            ErrorCode.CONFIGURATION_ERROR,
            "the private key is not that of the first certificate",
            path="login.private_key_file",
        )
    return certificates, key


def _read(path: str | None) -> bytes:
    with Path(path or "").open("rb") as file:
        return file.read(_MAX_FILE_BYTES)


def _unreadable(path: str, wanted: str) -> DriverError:
    return DriverError(ErrorCode.CONFIGURATION_ERROR, f"the file cannot be read as {wanted}", path=path)
