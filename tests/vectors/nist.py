"""Vectors of NIST and of RFCs as the package `cryptography_vectors` holds them, file by file."""

import re
from collections.abc import Iterator
from importlib.resources import files
from itertools import pairwise

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from vectors import keys
from vectors.vector import Vector

# The shortest HMAC key that the local driver takes in; RFC 4231 has one of 4 bytes ("Jefe").
SHORTEST_HMAC_KEY = 14

_INVALID = "INVALID_CIPHERTEXT"
_ECDSA = {"P-256,SHA-256": "EC_P256", "P-384,SHA-384": "EC_P384", "P-521,SHA-512": "EC_P521"}
_ECDH = {"EC - SHA256": "EC_P256", "ED - SHA384": "EC_P384", "EE - SHA512": "EC_P521"}
_E_CHANGED = "Public Key e changed"  # no private key goes with it, and a key is imported as a private one
_PEER_IS_BAD = "CAVS's Static public key"

Record = dict[str, str]
Params = dict[str, bytes | str]


def lines(path: str) -> Iterator[str]:
    with (files("cryptography_vectors") / path).open(encoding="ascii") as stream:
        for line in stream:
            yield line.strip()


def records(path: str) -> Iterator[tuple[str, Record]]:
    """Yield each record of a response file, with the last heading in brackets above it.

    A record ends at an empty line, or where its first name comes again.
    """
    heading, record = "", Record()
    for line in (*lines(path), ""):
        if line.startswith("#"):
            continue
        name, _, value = line.partition("=")
        if record and (not line or line.startswith("[") or name.strip() == next(iter(record))):
            yield heading, record
            record = Record()
        if line.startswith("["):
            heading = line.strip("[]")
        elif line:
            record[name.strip()] = value.strip()


def aes_gcm(bits: int) -> Iterator[Vector]:
    path = f"ciphers/AES/GCM/gcmDecrypt{bits}.rsp"
    for number, (_, record) in enumerate(records(path)):
        if len(record["IV"]) != 24 or len(record["Tag"]) != 32:
            continue  # the driver's ciphertexts have an IV of 96 bits and a tag of 128
        yield Vector(
            f"{path}, record {number}",
            f"AES_{bits}_GCM",
            "ENCRYPT_DECRYPT",
            bytes.fromhex(record["Key"]),
            "crypto.decrypt",
            {
                "ciphertext": bytes.fromhex(record["IV"] + record["CT"] + record["Tag"]),
                "associated_data": bytes.fromhex(record["AAD"]),
                "mechanism": f"AES_{bits}_GCM",
            },
            _INVALID if "FAIL" in record else {"plaintext": bytes.fromhex(record["PT"])},
        )


def key_wrap(padded: bool) -> Iterator[Vector]:
    name = "KWP" if padded else "KW"
    for direction in ("AD", "AE"):
        path = f"keywrap/kwtestvectors/{name}_{direction}_256.txt"
        for number, (_, record) in enumerate(records(path)):
            wrapped = bytes.fromhex(record["C"])
            key = None if "FAIL" in record else bytes.fromhex(record["P"])
            params: Params = {"mechanism": f"AES_256_{name}"}
            yield Vector(
                f"{path}, record {number}",
                "AES_256_KW",
                "WRAP_UNWRAP",
                bytes.fromhex(record["K"]),
                "crypto.wrap_key" if direction == "AE" else "crypto.unwrap_key",
                {**params, "key": key or b""} if direction == "AE" else {**params, "wrapped_key": wrapped},
                {"wrapped_key": wrapped} if direction == "AE" else {"key": key} if key else _INVALID,
            )


def hmac(bits: int) -> Iterator[Vector]:
    path = f"HMAC/rfc-4231-sha{bits}.txt"
    for number, (_, record) in enumerate(records(path), 1):
        key, message, mac = (bytes.fromhex(record[name]) for name in ("Key", "Msg", "MD"))
        if len(key) < SHORTEST_HMAC_KEY:
            continue
        algorithm = f"HMAC_SHA_{bits}"
        about = (f"{path}, record {number}", algorithm, "GENERATE_VERIFY_MAC", key)
        asked: Params = {"mechanism": algorithm, "message": message}
        wrong = bytes([mac[0] ^ 1]) + mac[1:]
        yield Vector(*about, "crypto.mac", asked, {"mac": mac})
        yield Vector(*about, "crypto.verify_mac", {**asked, "mac": mac}, {"valid": True})
        yield Vector(*about, "crypto.verify_mac", {**asked, "mac": wrong}, {"valid": False})


def rsa_oaep() -> Iterator[Vector]:
    path = "asymmetric/RSA/oaep-custom/oaep-sha256-sha256.txt"
    fields = Record()
    for number, (label, value) in enumerate(pairwise(lines(path))):
        if label.startswith("#"):
            fields[label.strip("# :")] = value
        if label.startswith("# Encryption"):
            yield Vector(
                f"{path}, line {number + 2}",
                "RSA_2048",
                "ENCRYPT_DECRYPT",
                keys.rsa_key(*(int(fields[name], 16) for name in ("Prime 1", "Prime 2", "Public exponent"))),
                "crypto.decrypt",
                {"ciphertext": bytes.fromhex(value), "mechanism": "RSA_OAEP_SHA_256"},
                {"plaintext": bytes.fromhex(fields["Message"])},
            )


def rsa_signatures(kind: str) -> Iterator[Vector]:
    """Yield verifications by PKCS#1 v1.5 or PSS.

    All PSS signatures of this file have a salt of 10 bytes. The protocol's are as long as the hash (SPEC.md
    4.4), so that a driver must not find any of them valid.
    """
    path = f"asymmetric/RSA/FIPS_186-2/SigVer{kind}_186-3.rsp"
    primes: dict[str, int] = {}
    for number, (heading, record) in enumerate(records(path)):
        primes |= {name: int(record[name], 16) for name in ("p", "q") if name in record}
        size, sha = heading.partition(" = ")[2], record.get("SHAAlg", "")
        if int(size) < 2048 or sha not in ("SHA256", "SHA384", "SHA512") or _E_CHANGED in record["Result"]:
            continue
        mechanism = f"RSA_{'PSS' if kind == 'PSS' else 'PKCS1'}_SHA_{sha[3:]}"
        yield Vector(
            f"{path}, record {number}",
            f"RSA_{size}",
            "SIGN_VERIFY",
            keys.rsa_key(primes["p"], primes["q"], int(record["e"], 16)),
            "crypto.verify",
            {
                "message": bytes.fromhex(record["Msg"]),
                "signature": bytes.fromhex(record["S"]),
                "mechanism": mechanism,
            },
            {"valid": kind != "PSS" and record["Result"].startswith("P")},
        )


def ecdsa() -> Iterator[Vector]:
    path = "asymmetric/ECDSA/FIPS_186-3/SigGen.txt"
    for number, (heading, record) in enumerate(records(path)):
        if heading not in _ECDSA:
            continue
        signature = encode_dss_signature(int(record["R"], 16), int(record["S"], 16))
        message = bytes.fromhex(record["Msg"])
        for text, valid in ((message, True), (message + b"\0", False)):
            yield Vector(
                f"{path}, record {number}",
                _ECDSA[heading],
                "SIGN_VERIFY",
                keys.ec_key(_ECDSA[heading], int(record["d"], 16)),
                "crypto.verify",
                {
                    "message": text,
                    "signature": signature,
                    "mechanism": f"ECDSA_SHA_{heading[-3:]}",
                },
                {"valid": valid},
            )


def ecdsa_rfc_6979() -> Iterator[Vector]:
    path = "asymmetric/ECDSA/RFC6979/evppkey_ecdsa_rfc6979.txt"
    text = "\n".join(line for line in lines(path) if not line.startswith("#"))
    pems = dict(
        re.findall(r"PrivateKey ?= ?(P-\d+)_PRIV\n(-----BEGIN.*?-----END [A-Z ]+-----)", text, re.DOTALL)
    )
    asked = re.compile(
        r'DigestVerify = SHA(\d+)\nKey = (P-\d+)_PUB\nInput = "(\w+)"\nOutput = (\w+)(\nResult)?'
    )
    for found in asked.finditer(text):
        sha, curve, message, signature, refused = found.groups()
        algorithm = _ECDSA.get(f"{curve},SHA-{sha}")
        if algorithm is None:
            continue
        yield Vector(
            f"{path} (RFC 6979, A.2), at {found.start()}",
            algorithm,
            "SIGN_VERIFY",
            keys.pkcs8(load_pem_private_key(pems[curve].encode(), None)),
            "crypto.verify",
            {
                "message": message.encode(),
                "signature": bytes.fromhex(signature),
                "mechanism": f"ECDSA_SHA_{sha}",
            },
            {"valid": refused is None},
        )


def ecdh() -> Iterator[Vector]:
    path = "asymmetric/ECDH/KASValidityTest_ECCStaticUnified_NOKC_ZZOnly_init.fax"
    for number, (heading, record) in enumerate(records(path)):
        result = record.get("Result", "")
        if heading not in _ECDH or not (result.startswith("P") or _PEER_IS_BAD in result):
            continue  # the others spoil the hash of the secret, or a public key that is not asked for
        algorithm = _ECDH[heading]
        peer = keys.ec_point(algorithm, int(record["QsCAVSx"], 16), int(record["QsCAVSy"], 16))
        yield Vector(
            f"{path}, record {number}",
            algorithm,
            "KEY_AGREEMENT",
            keys.ec_key(algorithm, int(record["dsIUT"], 16)),
            "crypto.derive",
            {"peer_public_key": peer, "mechanism": "ECDH"},
            {"shared_secret": bytes.fromhex(record["Z"])} if result.startswith("P") else "INVALID_ARGUMENT",
        )


def ed25519() -> Iterator[Vector]:
    path = "asymmetric/Ed25519/sign.input"
    for number, line in enumerate(lines(path), 1):
        private, public, message, signed = (bytes.fromhex(part) for part in line.split(":")[:4])
        about = (f"{path}, line {number}", "ED25519", "SIGN_VERIFY", keys.ed25519_key(private[:32]))
        asked: Params = {"message": message, "mechanism": "ED25519"}
        signature = signed[:64]
        wrong = signature[:-1] + bytes([signature[-1] ^ 0x80])
        assert private[32:] == public
        yield Vector(*about, "crypto.sign", asked, {"signature": signature})
        yield Vector(*about, "crypto.verify", {**asked, "signature": signature}, {"valid": True})
        yield Vector(*about, "crypto.verify", {**asked, "signature": wrong}, {"valid": False})


def x25519() -> Iterator[Vector]:
    path = "asymmetric/X25519/rfc7748.txt"
    for number, (_, record) in enumerate(records(path), 1):
        scalar, u, secret = (bytes.fromhex(record[name]) for name in ("INPUT_SCALAR", "INPUT_U", "OUTPUT_U"))
        yield Vector(
            f"{path}, record {number}",
            "X25519",
            "KEY_AGREEMENT",
            keys.x25519_key(scalar),
            "crypto.derive",
            {"peer_public_key": keys.x25519_point(u), "mechanism": "ECDH"},
            {"shared_secret": secret},
        )


def ml_dsa() -> Iterator[Vector]:
    """Yield public keys made of seeds, and signatures that are not valid here.

    They are all made with a context, and the protocol's have none (SPEC.md 4.4).
    """
    path = "asymmetric/MLDSA/kat_MLDSA_65_det_pure.rsp"
    for number, (_, record) in enumerate(records(path)):
        about = (f"{path}, record {number}", "ML_DSA_65", "SIGN_VERIFY")
        material = keys.ml_dsa_key(bytes.fromhex(record["xi"]))
        message, signed = bytes.fromhex(record["msg"]), bytes.fromhex(record["sm"])
        asked: Params = {
            "message": message,
            "signature": signed[: -len(message)],
            "mechanism": "ML_DSA_65",
        }
        public = {"public_key": keys.ml_dsa_public(bytes.fromhex(record["pk"]))}
        assert record["ctx"]
        yield Vector(*about, material, "key.get_public_key", {}, public)
        yield Vector(*about, material, "crypto.verify", asked, {"valid": False})


def ml_kem() -> Iterator[Vector]:
    path = "asymmetric/MLKEM/kat_MLKEM_768.rsp"
    for number, (_, record) in enumerate(records(path)):
        about = (f"{path}, record {number}", "ML_KEM_768", "KEY_ENCAPSULATION")
        material = keys.ml_kem_key(bytes.fromhex(record["d"] + record["z"]))
        public = {"public_key": keys.ml_kem_public(bytes.fromhex(record["pk"]))}
        yield Vector(*about, material, "key.get_public_key", {}, public)
        for encapsulation, secret in (("ct", "ss"), ("ct_n", "ss_n")):  # the second is rejected implicitly
            yield Vector(
                *about,
                material,
                "crypto.decapsulate",
                {"ciphertext": bytes.fromhex(record[encapsulation]), "mechanism": "ML_KEM_768"},
                {"shared_secret": bytes.fromhex(record[secret])},
            )
