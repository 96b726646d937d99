import hashlib
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from kmsplug_protocol.cobblestone import (
    HEADER_BYTES,
    SALT_BYTES,
    CobblestoneError,
    Opener,
    open_sealed,
    seal,
)
from unit.protocol.sealed import KEY, SALT, plain, stream


def valid_ones_open_and_seal_to_the_same_bytes(vectors: list[dict[str, Any]]) -> None:
    valid = [vector for vector in vectors if vector["result"] == "valid"]
    assert valid

    for vector in valid:
        key, context = bytes.fromhex(vector["key"]), bytes.fromhex(vector["ctx"])
        message = zlib.decompress(bytes.fromhex(vector["ct"]))

        plaintext = open_sealed(key, context, message)

        assert len(plaintext) == vector["msgLength"], vector["comment"]
        assert hashlib.sha512(plaintext).hexdigest() == vector["msgSha512"], vector["comment"]
        assert b"".join(stream(key, context, message)) == plaintext, vector["comment"]
        assert seal(key, context, plaintext, salt=message[:SALT_BYTES]) == message, vector["comment"]


def invalid_ones_are_refused(vectors: list[dict[str, Any]]) -> None:
    invalid = [vector for vector in vectors if vector["result"] == "invalid"]
    assert invalid

    for vector in invalid:
        key, context = bytes.fromhex(vector["key"]), bytes.fromhex(vector["ctx"])
        message = zlib.decompress(bytes.fromhex(vector["ct"]))

        with pytest.raises(CobblestoneError):
            open_sealed(key, context, message)
        if "HeaderFailure" in vector["flags"]:
            with pytest.raises(CobblestoneError):
                Opener(key, context, message[:HEADER_BYTES])


def of_an_invalid_one_a_stream_releases_the_valid_prefix_at_most(vectors: list[dict[str, Any]]) -> None:
    streamed = [
        vector
        for vector in vectors
        if vector["result"] == "invalid" and "HeaderFailure" not in vector["flags"]
    ]
    assert any("PartialPlaintext" in vector["flags"] for vector in streamed)

    for vector in streamed:
        key, context = bytes.fromhex(vector["key"]), bytes.fromhex(vector["ctx"])
        released = b""

        with pytest.raises(CobblestoneError):  # noqa: PT012 - what came before the refusal counts
            for piece in stream(key, context, zlib.decompress(bytes.fromhex(vector["ct"]))):
                released += piece

        if "PartialPlaintext" in vector["flags"]:
            assert len(released) == vector["msgLength"], vector["comment"]
            assert hashlib.sha512(released).hexdigest() == vector["msgSha512"], vector["comment"]
        else:
            assert released == b"", vector["comment"]


@pytest.mark.parametrize(
    "hold",
    [
        valid_ones_open_and_seal_to_the_same_bytes,
        invalid_ones_are_refused,
        of_an_invalid_one_a_stream_releases_the_valid_prefix_at_most,
    ],
)
def test_of_the_public_vectors(
    hold: Callable[[list[dict[str, Any]]], None], cobblestone_vectors: list[dict[str, Any]]
) -> None:
    hold(cobblestone_vectors)


@pytest.mark.parametrize(
    ("context", "length", "message"),
    [
        (
            b"",
            0,
            (
                "6465666768696a6b6c6d6e6f707172737475767778797a7b"
                "c3e85ce0f72398b0116b509fc0959fe37713642695670dff847e2ae8493f183d"
                "e5729036f651cf9b55ddcfae225bd451"
            ),
        ),
        (
            b"",
            5,
            (
                "6465666768696a6b6c6d6e6f707172737475767778797a7b"
                "c3e85ce0f72398b0116b509fc0959fe37713642695670dff847e2ae8493f183d"
                "e6822cd87a475b2c9635ebc7d125f1be5b950a3e6f"
            ),
        ),
        (
            b"kmsplug test",
            5,
            (
                "6465666768696a6b6c6d6e6f707172737475767778797a7b"
                "d86468ed5e1494d157c92e1240b80f44483f0307d1d8ec1cd23a689ca13f8c7b"
                "af0d7ceb10c05353ce7ef965688fbc342be6b36261"
            ),
        ),
        (
            b"\x00",
            5,
            (
                "6465666768696a6b6c6d6e6f707172737475767778797a7b"
                "e4dec4cd51d88086686902c411f8316a5da2dd98752c97d884c2bde804160ae4"
                "25bfc508d75c4e23719e2b83b69c99c4b8ce32ad8f"
            ),
        ),
    ],
)
def test_our_own_short_vectors_hold(context: bytes, length: int, message: str) -> None:
    assert seal(KEY, context, plain(length), salt=SALT).hex() == message
    assert open_sealed(KEY, context, bytes.fromhex(message)) == plain(length)


@pytest.mark.parametrize(
    ("context", "length", "digest"),
    [
        (b"", 16383, "35e4c5799830900d965ace711033882599cefe0fb5c398bcd8ce3a17ed6ac008"),
        (b"", 16384, "7284753cdc6a53a3212ec0ef3bb45659cecee8a4068f0c62e180f0a8384285a7"),
        (b"", 16385, "c334c55f454ac7069ab6c7057fe487db461fc466d23e941104a7e8c0b512a72a"),
        (b"kmsplug test", 40000, "039be72ba9ca24ebe376815b3350e41395c70cd3e01c0047ecd7c522113c2224"),
        # 257 whole chunks: the counter leaves its lowest byte.
        (b"", 4210689, "161ca4ed6f3f111db242b6cbf15909172302a7004cb315aa1d1ee4b9d43b00e0"),
    ],
)
def test_our_own_long_vectors_hold(context: bytes, length: int, digest: str) -> None:
    message = seal(KEY, context, plain(length), salt=SALT)

    assert hashlib.sha256(message).hexdigest() == digest
    assert open_sealed(KEY, context, message) == plain(length)
