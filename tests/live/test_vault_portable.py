"""Every operation of the protocol through the host, over the Vault driver and a real OpenBao."""

from pathlib import Path

from backends.openbao import OpenBao
from kmsplug_host import Host, KeyAlgorithm
from support.portable import check

FEW = {
    KeyAlgorithm.AES_256_GCM,
    KeyAlgorithm.RSA_2048,
    KeyAlgorithm.EC_P256,
    KeyAlgorithm.ED25519,
    KeyAlgorithm.HMAC_SHA_256,
}


def test_every_operation_is_done_by_the_server_or_a_named_shim_or_refused(
    bao: OpenBao, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text(bao.root)
    config = {"address": bao.url, "login": {"method": "token", "token": {"file": str(token)}}}
    settings = {
        "plugins": {"vault": {"driver": "vault", "config": config}},
        "keystores": {"main": {"plugin": "vault", "allow_raw": True, "accept_public_key_wrap": True}},
    }
    with Host.open(settings) as host:
        seen = check(host.keystore("main"), algorithms=FEW)

    # Within a key the server re-encrypts; to another one, and with associated data, only the host can.
    shims = {wire: how - {"native", "refused"} for wire, how in seen.items() if how - {"native", "refused"}}
    assert shims == {
        "crypto.encrypt": {"shim:envelope@1"},
        "crypto.wrap_key": {"shim:wrap@1"},
        "crypto.unwrap_key": {"shim:wrap@1"},
        "crypto.reencrypt": {"shim:reencrypt@1"},
        "crypto.sign": {"shim:digest@1"},
    }
    assert {wire for wire, how in seen.items() if how == {"refused"}} == {
        "key.set_alias",
        "key.remove_alias",
        "key.tag",
        "key.backup",
        "key.restore",
        "key.reconcile",
        "key.set_state",  # of the current version
        "keystore.provision",
        "keystore.deprovision",
        "keystore.grant_trust",
        "keystore.remove_trust",
    }
