"""The scripted Entra: tokens for applications, against secrets, certificates and tokens of other issuers.

Made from Microsoft's descriptions of the client credentials flow and of federated identity credentials. It
really checks what is presented to it: a federated assertion by the issuer's published keys, then its issuer,
subject, audience and times; and the vault really checks what this issues.
"""

import base64
import hashlib
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

LOGIN_HOST: Final = "login.microsoftonline.com"
TENANT: Final = "11111111-2222-3333-4444-555555555555"
CLIENT: Final = "66666666-7777-8888-9999-aaaaaaaaaaaa"
SUBJECT: Final = "system:serviceaccount:payments:api"
AUDIENCE: Final = "api://AzureADTokenExchange"

_ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class TokenError(Exception):
    """A token that is not good; ``code`` says why, as Entra numbers it."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def b64(data: bytes) -> str:
    """Return bytes as tokens and the vault write them."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    """Return what `b64` wrote."""
    return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)


class Issuer:
    """Somebody who signs tokens and publishes the keys to check them by, as a cluster does.

    Args:
        url: What stands in ``iss``.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.rotate()

    def rotate(self) -> None:
        """Sign with another key from now on, and publish that one alone."""
        self.kid = uuid.uuid4().hex
        self._key = rsa.generate_private_key(65537, 2048)

    def jwks(self) -> dict[str, Any]:
        """Return the published keys (RFC 7517)."""
        public = self._key.public_key().public_numbers()
        members = {"n": b64(public.n.to_bytes(256)), "e": b64(public.e.to_bytes(3))}
        return {"keys": [{"kty": "RSA", "use": "sig", "kid": self.kid, "alg": "RS256", **members}]}

    def token(self, *, lifetime_s: float = 600, **claims: Any) -> str:
        """Return a signed token (RFC 7519)."""
        now = int(time.time())
        whole = {"iss": self.url, "iat": now, "nbf": now - 5, "exp": int(now + lifetime_s), **claims}
        signed = f"{_part({'alg': 'RS256', 'typ': 'JWT', 'kid': self.kid})}.{_part(whole)}"
        return f"{signed}.{b64(self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def _part(members: Mapping[str, Any]) -> str:
    return b64(json.dumps(members).encode())


def claims_of(token: str, jwks: Mapping[str, Any]) -> dict[str, Any]:
    """Return the claims of a token that one of these keys signed and whose time is now.

    Raises:
        TokenError: It is not so.
    """
    try:
        header_part, claims_part, signature = token.split(".")
        header, claims = json.loads(unb64(header_part)), json.loads(unb64(claims_part))
        (jwk,) = (one for one in jwks["keys"] if one["kid"] == header["kid"])
        assert header["alg"] == "RS256"
        number = {name: int.from_bytes(unb64(jwk[name])) for name in ("n", "e")}
        public = rsa.RSAPublicNumbers(number["e"], number["n"]).public_key()
        public.verify(
            unb64(signature), f"{header_part}.{claims_part}".encode(), padding.PKCS1v15(), hashes.SHA256()
        )
    except (AssertionError, ValueError, KeyError, InvalidSignature):
        raise TokenError("AADSTS50013") from None
    if not claims.get("nbf", claims["iat"]) <= time.time() < claims["exp"]:
        raise TokenError("AADSTS700024")
    return dict(claims)


@dataclass
class Application:
    """An application of the tenant, and what it may log in with.

    Attributes:
        secret: Its password.
        certificate: Its certificate, PEM.
        federated: Issuer, subject and audience of tokens that stand for it, with the issuer's published keys.
    """

    secret: str = "an-application-secret"
    certificate: bytes | None = None
    federated: list[tuple[Issuer, str, str]] = field(default_factory=list)


class Entra:
    """One tenant.

    Attributes:
        issuer: Signs what it gives out.
        applications: By client id.
        given: The claims of the tokens that it gave, in order.
        lifetime_s: Of the tokens that it gives.
        expires_in: What it tells clients of that; None: the truth.
    """

    def __init__(self) -> None:
        self.issuer = Issuer(f"https://sts.windows.net/{TENANT}/")
        self.applications = {CLIENT: Application()}
        self.given: list[dict[str, Any]] = []
        self.lifetime_s = 3600.0
        self.expires_in: int | None = None

    def discovery(self, path: str) -> dict[str, Any]:
        """Answer what clients ask before they log in."""
        if "/discovery/instance" in path:
            where = f"https://{LOGIN_HOST}/{TENANT}/v2.0/.well-known/openid-configuration"
            return {"tenant_discovery_endpoint": where, "metadata": []}
        base = f"https://{LOGIN_HOST}/{TENANT}"
        return {
            "issuer": f"{base}/v2.0",
            "token_endpoint": f"{base}/oauth2/v2.0/token",
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
        }

    def give(self, tenant: str, form: Mapping[str, str]) -> dict[str, Any]:
        """Answer a request for a token.

        Raises:
            TokenError: It is refused.
        """
        if tenant != TENANT:
            raise TokenError("AADSTS90002")
        application = self.applications.get(form.get("client_id", ""))
        if application is None:
            raise TokenError("AADSTS700016")
        if form.get("grant_type") != "client_credentials":
            raise TokenError("AADSTS70003")
        if form.get("client_assertion_type") == _ASSERTION:
            _check_assertion(application, form["client_assertion"], form["client_id"])
        elif form.get("client_secret") != application.secret:
            raise TokenError("AADSTS7000215")
        return self.token(form["scope"].removesuffix("/.default"), appid=form["client_id"])

    def token(self, audience: str, **claims: Any) -> dict[str, Any]:
        """Return a token, as the endpoint does."""
        self.given.append({"aud": audience, "tid": TENANT, **claims})
        token = self.issuer.token(lifetime_s=self.lifetime_s, **self.given[-1])
        seconds = int(self.lifetime_s) if self.expires_in is None else self.expires_in
        return {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": seconds,
            "ext_expires_in": seconds,
        }

    def check(self, token: str, audience: str) -> None:
        """Check a token that was presented to a service.

        Raises:
            TokenError: It is none of ours, for another service, or its time is over.
        """
        claims = claims_of(token, self.issuer.jwks())
        if (claims["aud"], claims["tid"]) != (audience, TENANT):
            raise TokenError("AKV10022")


def _check_assertion(application: Application, assertion: str, client_id: str) -> None:
    header = json.loads(unb64(assertion.partition(".")[0]))
    if "x5t" in header or "x5t#S256" in header:
        _check_by_certificate(application, assertion, header, client_id)
        return
    unchecked = json.loads(unb64(assertion.split(".")[1]))
    for issuer, subject, audience in application.federated:
        if (unchecked["iss"], unchecked["sub"], unchecked["aud"]) == (issuer.url, subject, audience):
            claims_of(assertion, issuer.jwks())
            return
    raise TokenError("AADSTS70021")


def _check_by_certificate(
    application: Application, assertion: str, header: Mapping[str, Any], client_id: str
) -> None:
    """Check an assertion that the application signed itself, by the certificate that is registered for it."""
    assert application.certificate is not None
    certificate = x509.load_pem_x509_certificate(application.certificate)
    der = certificate.public_bytes(Encoding.DER)
    thumbprints = {b64(hashlib.sha256(der).digest()), b64(hashlib.sha1(der, usedforsecurity=False).digest())}
    signed, _, signature = assertion.rpartition(".")
    public = certificate.public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256().digest_size)
    scheme = pss if header["alg"] == "PS256" else padding.PKCS1v15()
    try:
        public.verify(unb64(signature), signed.encode(), scheme, hashes.SHA256())
    except InvalidSignature:
        raise TokenError("AADSTS700027") from None
    claims = json.loads(unb64(assertion.split(".")[1]))
    good = {str(header.get(name)).rstrip("=") for name in ("x5t", "x5t#S256")} & thumbprints
    if not good or claims["sub"] != client_id or claims["exp"] <= time.time():
        raise TokenError("AADSTS700027")
