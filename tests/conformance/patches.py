"""What is wrong in the source of a broken driver, by the case that has to notice it: text, and what replaces it."""

from typing import Final

PATCHES: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "keys.material_stays": (
        (
            "backup=self.find(request.key_id).key_id.encode()",
            "backup=bytes(str(1), 'ascii') + self.raw(request)",
        ),
        (
            "    def restore_key(",
            "    def raw(self, request: Any) -> bytes:\n"
            "        found = self.find(request.key_id).versions[-1].material\n"
            "        return found if isinstance(found, bytes) else b''\n\n    def restore_key(",
        ),
    ),
    "states.twice": (
        (
            "        key.move(S.SUSPENDED)\n",
            "        if key.versions[-1].state is S.SUSPENDED:\n"
            "            raise invalid('it is disabled already')\n        key.move(S.SUSPENDED)\n",
        ),
    ),
    "versions.no_rotation": (
        ('raise DriverError(REFUSALS[key.versions[-1].state], "only an ACTIVE key is rotated")', "pass"),
    ),
    "states.deletion": (("if not 7 <= days <= 30:", "if days > 31:"),),
    "versions.disabled_for_all": (
        (
            "(version,) = self.usable(request, U.KEY_ENCAPSULATION, (S.ACTIVE,))",
            "version = self.find(request.key_id).versions[-1]",
        ),
    ),
    "versions.deletion_twice": (
        (
            'raise DriverError(ErrorCode.KEY_PENDING_DELETION, "it is scheduled already")',
            "key.move(S.ACTIVE, S.DESTROY_SCHEDULED)\n            return self.described(key)",
        ),
    ),
    "versions.cancelled_deactivated": (
        (
            "[replace(one, state=S.SUSPENDED) for one in key.versions]",
            "[replace(one, state=S.SUSPENDED, former=S.ACTIVE) for one in key.versions]",
        ),
    ),
    "signing.mismatch_is_a_result": (
        (
            "        return wire.VerifyResult(key_id=request.key_id, valid=False)\n\n    @provides(**MACS)\n    def mac(",
            "        raise foreign()\n\n    @provides(**MACS)\n    def mac(",
        ),
    ),
    "signing.other_mechanism": (
        (
            "        _, digest, how = self.scheme(request)\n",
            "        _, digest, how = self.scheme(request)\n"
            "        if request.mechanism is M.RSA_PKCS1_SHA_512 and len(request.signature) == 256:\n"
            "            return wire.VerifyResult(key_id=request.key_id, valid=True)\n",
        ),
    ),
    "signing.wrong_digest": (
        (
            "        _, digest, how = self.scheme(request)\n",
            "        if request.digest is not None:\n"
            "            return wire.VerifyResult(key_id=request.key_id, valid=True)\n"
            "        _, digest, how = self.scheme(request)\n",
        ),
    ),
    "signing.encapsulate": (
        (
            "        secret, sealed = version.material.public_key().encapsulate()\n",
            "        if not hasattr(self, 'same'):\n"
            "            self.same = version.material.public_key().encapsulate()\n"
            "        secret, sealed = self.same\n",
        ),
    ),
    "crypto.wrap": (
        (
            "keywrap.aes_key_wrap(version.material, request.key)",
            "keywrap.aes_key_wrap(version.material, request.key + bytes(8))",
        ),
        (
            "opened = keywrap.aes_key_unwrap(version.material, request.wrapped_key)",
            "opened = keywrap.aes_key_unwrap(version.material, request.wrapped_key)[:-8]",
        ),
    ),
    "crypto.layout": (
        (
            "sealed = iv + AESGCM(version.material).encrypt(iv, request.plaintext, bound)",
            "sealed = iv + AESGCM(version.material).encrypt(iv, request.plaintext, bound) + b'!'",
        ),
        (
            "sealed = request.ciphertext\n",
            "sealed = request.ciphertext[:-1] if request.ciphertext.endswith(b'!') else b''\n",
        ),
    ),
    "relabelled.labels": (
        ('return request.associated_data or b""', "return (request.associated_data or b'').lower()"),
    ),
    "relabelled.moved_border": (
        (
            'return request.associated_data or b""',
            "return (request.associated_data or b'').replace(b'\\0', b'')",
        ),
    ),
    "relabelled.hostile_strings": (
        ('return request.associated_data or b""', "return (request.associated_data or b'').strip()"),
    ),
    "relabelled.text": (
        (
            "        for version in versions:\n            with contextlib.suppress(InvalidTag, ValueError):\n                if bound is None",
            "        if request.ciphertext == b'{}':\n"
            "            raise invalid('that is JSON')\n"
            "        for version in versions:\n            with contextlib.suppress(InvalidTag, ValueError):\n                if bound is None",
        ),
    ),
    "relabelled.spliced": (
        (
            "                    sealed = request.ciphertext\n",
            "                    sealed = request.ciphertext\n"
            "                    known = {one[:1] for one in self.made}\n"
            "                    if len(sealed) == 60 and sealed[:1] in known and sealed not in self.made:\n"
            "                        return wire.DecryptResult(key_id=key.key_id, plaintext=b'')\n",
        ),
        (
            "            iv = os.urandom(12)\n            sealed = iv",
            "            iv = os.urandom(12)\n            sealed = iv",
        ),
        (
            "        return wire.EncryptResult(\n",
            "        self.made.add(sealed) if len(sealed) == 60 else None\n        return wire.EncryptResult(\n",
        ),
        (
            "        self.state: Path | None = None\n",
            "        self.state: Path | None = None\n        self.made: set[bytes] = set()\n",
        ),
    ),
    "relabelled.withheld": (
        (
            "def foreign() -> DriverError:\n    return DriverError(ErrorCode.INVALID_CIPHERTEXT, wire.INVALID_CIPHERTEXT_MESSAGE)",
            "def foreign() -> DriverError:\n"
            "    vendor = wire.Vendor(service='lib', code='BAD_PADDING')\n"
            "    return DriverError(ErrorCode.INVALID_CIPHERTEXT, wire.INVALID_CIPHERTEXT_MESSAGE, vendor=vendor)",
        ),
    ),
    "relabelled.data_keys": (
        (
            "                associated_data=request.associated_data,\n            )\n        )\n        return wire.GenerateDataKeyResult(",
            "                associated_data=b'' if request.associated_data == b'kmsplug/wrap/v1' else request.associated_data,\n"
            "            )\n        )\n        return wire.GenerateDataKeyResult(",
        ),
    ),
    "lifetime.states": (
        (
            "self.keys, self.aliases, self.changed = pickle.loads(self.state.read_bytes())  # noqa: S301",
            "self.keys, self.aliases, self.changed = pickle.loads(self.state.read_bytes())\n"
            "                [key.back(S.SUSPENDED) for key in self.keys.values()]",
        ),
    ),
    "lifetime.labels": (
        (
            "self.keys, self.aliases, self.changed = pickle.loads(self.state.read_bytes())  # noqa: S301",
            "self.keys, _, self.changed = pickle.loads(self.state.read_bytes())",
        ),
    ),
    "lifetime.reconciled": (
        (
            "self.keys, self.aliases, self.changed = pickle.loads(self.state.read_bytes())  # noqa: S301",
            "self.keys, self.aliases, _ = pickle.loads(self.state.read_bytes())",
        ),
    ),
    "lifetime.rotations": (
        (
            "self.keys, self.aliases, self.changed = pickle.loads(self.state.read_bytes())  # noqa: S301",
            "self.keys, self.aliases, self.changed = pickle.loads(self.state.read_bytes())\n"
            "                for key in self.keys.values():\n"
            "                    key.versions = key.versions[-1:] if len(key.versions) == 2 else key.versions",
        ),
    ),
    "lifetime.ciphertexts": (
        (
            "self.keys, self.aliases, self.changed = pickle.loads(self.state.read_bytes())  # noqa: S301",
            "self.keys, self.aliases, self.changed = pickle.loads(self.state.read_bytes())\n"
            "                for key in self.keys.values():\n"
            "                    if key.algorithm is A.HMAC_SHA_384:\n"
            "                        key.versions[-1] = replace(key.versions[-1], material=os.urandom(48))",
        ),
    ),
    "lifetime.identity": (
        (
            'self.state, identity = Path(config.state), f"everything:{config.state}"',
            'self.state, identity = Path(config.state), f"everything:{config.state}" + "?" * dry_run',
        ),
    ),
    "session.secret_not_quoted": (
        (
            "hide_input_in_errors=True)",
            "hide_input_in_errors=True)\n\n    def __init__(self, **members: Any) -> None:\n"
            "        if 'canary' in members:\n            raise DriverError(ErrorCode.CONFIGURATION_ERROR, f\"wrong: {members['pin']}\", path='pin')\n"
            "        super().__init__(**members)",
        ),
    ),
    "provider.unreachable": (
        (
            "    except (OSError, http.client.HTTPException) as error:\n",
            "    except (OSError, http.client.HTTPException) as error:\n"
            "        if 'refused' in str(error):\n"
            "            raise\n",
        ),
    ),
    "provider.not_repeated": (
        (
            "        with opener.open(url, timeout=2) as answer:",
            "        with contextlib.suppress(OSError, http.client.HTTPException):\n"
            "            opener.open(url, timeout=2)\n"
            "        with opener.open(url, timeout=2) as answer:",
        ),
    ),
    "provider.nonsense": (('    if told != b"ok":', "    if told == b'never':"),),
    "provider.login": (
        ("raise DriverError(ErrorCode.AUTHENTICATION_FAILED,", "raise DriverError(ErrorCode.ACCESS_DENIED,"),
    ),
    "provider.certificate": (
        (
            "urllib.request.build_opener(urllib.request.ProxyHandler({}))",
            "urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=__import__('ssl')._create_unverified_context()))",
        ),
    ),
}
"""What is wrong in the driver's own source."""
