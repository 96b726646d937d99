"""Drivers that break one rule each by what is replaced in their source, and the cases that have to notice."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
PLAIN: Final = HERE.parent / "drivers" / "plain_driver.py"
EVERYTHING: Final = HERE / "everything_driver.py"
MANAGING: Final = HERE / "managing_driver.py"


@dataclass(frozen=True)
class Mutant:
    """A driver with something replaced in its source.

    Attributes:
        does: What it does wrong.
        fails: The cases that have to fail, by spaces.
        changes: What is replaced by what.
    """

    does: str
    fails: str
    changes: tuple[tuple[str, str], ...]

    def changed(self, source: Path) -> str:
        """Return the changed driver; each change has to hit."""
        text = source.read_text(encoding="utf-8")
        for old, new in self.changes:
            if old not in text:
                raise LookupError(f"there is no {old!r} to be replaced")
            text = text.replace(old, new)
        return text


def mutant(does: str, fails: str, *changes: tuple[str, str]) -> Mutant:
    return Mutant(does, fails, changes)


REFUSE_NO_OBJECT = '        require(type(message) is dict, "INVALID_ARGUMENT"'
ANSWER_BATCHES = (
    "        if type(message) is list: return [answer(json.dumps(one).encode()) for one in message]\n"
)
OPEN = "    try: return {**used"
OPEN_WITHOUT_TAG = """\
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    require(len(sealed) >= 28, "INVALID_CIPHERTEXT", "the ciphertext does not belong to this key and context")
    opener = Cipher(algorithms.AES(keys[key_id]), modes.CTR(sealed[:12] + bytes([0, 0, 0, 2]))).decryptor()
    return {**used, "plaintext": base64_of(opener.update(sealed[12:-16]))}
"""
TOO_SHORT = '    require(len(sealed) > 27, "INVALID_CIPHERTEXT", "too short")\n'
OWN_LAYOUT = "aead.decrypt(sealed[16:28], sealed[28:], bound if sealed[:16] == bytes(16) else b'?')"
ONLY_VERSION_1 = (
    '        require("1" in offered, "UNSUPPORTED_OPERATION", "this driver speaks protocol version 1")\n'
)
KNOWN_METHOD = '    require(method in PHASES, "UNSUPPORTED_OPERATION"'
NEXT_PIECE = 'while line and not line.endswith(b"\\n"): line ='

PLAIN_MUTANTS = (
    mutant(
        "ignores associated data",
        "binding.associated_data crypto.one_sentence",
        ("plaintext, bound)", 'plaintext, b"")'),
        ("sealed[12:], bound)", 'sealed[12:], b"")'),
    ),
    mutant(
        "ignores a kind of associated data that it does not bind",
        "binding.undeclared_binding",
        (', "context": [{}]', ""),
    ),
    mutant("answers batches", "framing.batch", (REFUSE_NO_OBJECT, ANSWER_BATCHES + REFUSE_NO_OBJECT)),
    mutant(
        "accepts base64 that is not canonical",
        "framing.base64",
        ("good = base64_of(data) == text and", "good ="),
    ),
    mutant(
        "quotes what it refuses",
        "framing.base64 crypto.nothing_leaks",
        ('f"{name} is no base64, or too long"', 'f"{text} is no base64"'),
    ),
    mutant(
        "echoes an id with another type",
        "framing.ids_echoed",
        ('"id": known, "result"', '"id": int(known) if str(known).isdigit() else known, "result"'),
    ),
    mutant(
        "dies of a long line",
        "framing.limit_before_handshake framing.limit_after_handshake",
        ("yield b'\"too long\"'", "sys.exit(1)"),
    ),
    mutant(
        "reads a long line as several",
        "framing.limit_before_handshake framing.limit_after_handshake",
        (NEXT_PIECE, "if True: line ="),
    ),
    mutant(
        "prints to stdout",
        "framing.clean_stdout",
        ("wire, sys.stdout = sys.stdout, sys.stderr", "wire = sys.stdout"),
        ("def call(method, params):\n", "def call(method, params):\n    print(method)\n"),
    ),
    mutant(
        "opens what has no good tag",
        "crypto.damaged crypto.wrong_key crypto.one_sentence binding.associated_data",
        (OPEN, OPEN_WITHOUT_TAG + OPEN),
    ),
    mutant("tells why it cannot open something", "crypto.one_sentence", (OPEN, TOO_SHORT + OPEN)),
    mutant(
        "says KEY_NOT_FOUND of bytes",
        "crypto.wrong_key crypto.damaged crypto.one_sentence binding.associated_data",
        ('require(False, "INVALID_CIPHERTEXT"', 'require(False, "KEY_NOT_FOUND"'),
    ),
    mutant(
        "does not say KEY_NOT_FOUND of keys",
        "keys.not_found",
        ('"KEY_NOT_FOUND"', '"INVALID_ARGUMENT"'),
    ),
    mutant("takes any protocol version", "session.versions", (ONLY_VERSION_1, "")),
    mutant(
        "answers unknown methods with a result",
        "session.unknown_methods session.undeclared session.phases",
        (KNOWN_METHOD, "    if method not in PHASES: return {}\n" + KNOWN_METHOD),
    ),
    mutant(
        "answers notifications",
        "framing.notifications session.cancel",
        (' if "id" in message else None', ""),
    ),
    mutant(
        "works before it is configured",
        "session.phases session.once session.dry_run",
        ('PHASES[method] == state["phase"]', "True"),
    ),
    mutant("takes more than its row says", "crypto.over_the_limit", ("most=4096", "most=LIMIT")),
    mutant("uses an IV twice", "crypto.never_the_same", ("os.urandom(12)", "bytes(12)")),
    mutant("reads NaN", "framing.not_a_number", (", parse_constant=int", "")),
    mutant(
        "returns less random than was asked for",
        "crypto.random",
        ("base64_of(os.urandom(member(", "base64_of(os.urandom(-1 + member("),
    ),
    mutant(
        "lowers the protection that was asked for",
        "keys.demands",
        (', "protection": ["software"],', ', "protection": ["software", "hsm"],'),
    ),
    mutant(
        "ends with another status",
        "session.shutdown",
        ("file=wire, flush=True)", 'file=wire, flush=True)\nif state["phase"] == "OVER": sys.exit(3)'),
    ),
    mutant(
        "outlives its host",
        "session.shutdown session.end_of_stdin",
        ("file=wire, flush=True)", "file=wire, flush=True)\nimport time; time.sleep(60)"),
    ),
    mutant(
        "does not name the setting that is wrong",
        "session.bad_config",
        ('"unknown setting", path=name', '"unknown setting"'),
    ),
)

SORTED = "json.dumps(sorted((request.context or {}).items()))"
UNWRAPPED = "self.importing.decrypt(request.wrapped_key, OAEP)"
MAC = "if hmac_of(version.material, request.message) == request.mac:"
LENGTH = "        if len(digest) != kind.digest_size:\n"
SHORT = (
    "        if len(getattr(request, 'signature', bytes(9))) < 9:\n            raise invalid('too short')\n"
)
ROTATED = "        key.versions.append(Version("
NAMED = "[one for one in versions if one.name == request.key_version]"

REPEATED = """\
        before = cursor and str(max(1, int(cursor) - 1))
        return wire.ListKeysResult(keys=keys, next_cursor=before)
"""
EMPTY = """\
        if not request.message:
            raise DriverError(ErrorCode.INVALID_ARGUMENT, "there is no code for nothing")
"""
MAKE_MAC, CHECK_MAC = (
    "        (version,) = self.usable(request, U.GENERATE_VERIFY_MAC, (S.ACTIVE,))\n        mechanism",
    "        for version in self.usable(request, U.GENERATE_VERIFY_MAC):\n            if hmac_of",
)
REFUSE_EMPTY = ((MAKE_MAC, EMPTY + MAKE_MAC), (CHECK_MAC, EMPTY + CHECK_MAC))
OTHER_CODE = tuple((old, new.replace("INVALID_ARGUMENT", "KEY_USAGE_MISMATCH")) for old, new in REFUSE_EMPTY)

# For what the plain driver does not offer.
GRANTED = """\
    def grant_trust(self, request: wire.TrustParams) -> wire.EmptyResult:
        self.known(request.identity)
"""

EVERYTHING_MUTANTS = (
    mutant(
        "disables making only",
        "states.disable",
        ("        key.move(S.SUSPENDED)\n", "        key.move(S.DEACTIVATED)\n"),
    ),
    mutant(
        "enables every version as ACTIVE",
        "states.enable_restores",
        ("replace(one, state=one.former)", "replace(one, state=S.ACTIVE)"),
    ),
    mutant(
        "forgets old versions",
        "states.rotate states.versions",
        (ROTATED, "        key.versions = [key.versions[-1]]\n" + ROTATED),
    ),
    mutant("uses another version than was named", "states.named_versions", (NAMED, "versions[:1]")),
    mutant(
        "lets a compromised key come back",
        "states.set_state",
        ("        key.move(request.state, *USABLE, S.SUSPENDED)", "        key.move(request.state, *S)"),
        ('raise DriverError(REFUSALS[named[-1].state], "that state is not left")', "pass"),
    ),
    mutant(
        "works again when deletion is cancelled",
        "states.cancel_deletion",
        ("[replace(one, state=S.SUSPENDED) for", "[replace(one, state=S.ACTIVE) for"),
    ),
    mutant(
        "makes what is asked for twice twice",
        "reconcile.in_progress",
        ("known = self.changed.get((operation, request.change_key))", "known = None"),
        (
            "        if known is not None:\n            return wire.ReconcileResult(",
            "        if False:\n            return wire.ReconcileResult(",
        ),
    ),
    mutant(
        "says of every change that it was carried out",
        "reconcile.create reconcile.rotate",
        (
            "known = self.changed.get((request.method, request.idempotency_key))",
            "known = next(iter(self.changed.values()))",
        ),
    ),
    mutant(
        "is sure about operations that do not exist",
        "reconcile.unknown",
        ("NOT_APPLIED if kept else wire.Outcome.UNKNOWN", "NOT_APPLIED"),
    ),
    mutant(
        "purges without a window",
        "states.purge",
        ('raise DriverError(ErrorCode.KEY_INVALID_STATE, "schedule its deletion first")', "pass"),
    ),
    mutant(
        "salts PSS with 20 bytes",
        "signing.published_key",
        ("kind.digest_size)\n        return", "20)\n        return"),
    ),
    mutant("makes an error of a short signature", "signing.strange_signatures", (LENGTH, SHORT + LENGTH)),
    mutant(
        "accepts a shortened code",
        "signing.mac_mismatch",
        (MAC, "if hmac_of(version.material, request.message).startswith(request.mac):"),
    ),
    mutant(
        "hashes a digest again",
        "signing.digest",
        (
            "digest = request.digest\n",
            "digest = request.digest and hashlib.sha256(request.digest).digest()\n",
        ),
    ),
    mutant(
        "repeats a key on two pages",
        "keys.list",
        ("        return wire.ListKeysResult(keys=keys, next_cursor=cursor)", REPEATED),
    ),
    mutant("minds the order of a context", "binding.order", (SORTED, "json.dumps(request.context or {})")),
    mutant(
        "joins the parts of a context",
        "binding.associated_data",
        (SORTED, "''.join(a + b for a, b in sorted((request.context or {}).items()))"),
    ),
    mutant(
        "refuses a code for no message with a code of its own",
        "signing.mac signing.mac_mismatch",
        *OTHER_CODE,
    ),
    mutant("lists an alias that moved", "keys.alias", ("owner == key.key_id)", "owner)")),
    mutant(
        "returns a data key that was not asked for",
        "crypto.data_key",
        ("plaintext=plaintext if request.with_plaintext else None", "plaintext=plaintext"),
    ),
    mutant("changes imported material", "keys.import", (UNWRAPPED, f"hashlib.sha256({UNWRAPPED}).digest()")),
    mutant(
        "derives a key from the shared secret",
        "signing.derive",
        ("secret = version.material.exchange(", "secret = bytes(1) + version.material.exchange("),
    ),
    mutant(
        "lets one call spoil a batch",
        "crypto.batch",
        ("tuple(self.item(call) for", "tuple(self.item(request.calls[-1]) for"),
    ),
    mutant(
        "reencrypts whatever the associated data",
        "crypto.reencrypt",
        ("associated_data=request.source_associated_data,", "associated_data=b'old',"),
    ),
)


MANAGING_MUTANTS = (
    mutant(
        "quotes the access data that it refuses",
        "access.validate",
        ('reason="exactly a role is needed")', 'reason=f"not {request.access_data}")'),
    ),
    mutant(
        "transforms whatever access data",
        "access.transform",
        (
            '        if request.access_data.keys() != {"role"}:\n            raise',
            "        if False:\n            raise",
        ),
        ('request.access_data["role"]', "str(request.access_data)"),
    ),
    mutant("knows no region", "access.region", ('region="memory"', 'region=""')),
    mutant(
        "knows where a key lives that does not exist",
        "access.unknown_key",
        ("self.find(request.key_id)\n        return wire.GetRegion", "return wire.GetRegion"),
    ),
    mutant(
        "gives a name to two keystores",
        "keystores.provision",
        ('raise DriverError(ErrorCode.ALREADY_EXISTS, "the name is taken")', "pass"),
    ),
    mutant(
        "ends the keystore that it serves",
        "keystores.own",
        (
            "if request.identity == OWN:",
            "if request.identity == OWN: return wire.EmptyResult()\n        if 0:",
        ),
    ),
    mutant(
        "trusts on keystores that are gone",
        "keystores.trust",
        (GRANTED, GRANTED.replace("self.known(request.identity)", "pass")),
    ),
)


# What providers differ in, and may: the cases named have to pass.
LICENCES = (
    (
        PLAIN,
        mutant(
            "a ciphertext that begins with the same bytes each time, under a name of its own",
            "crypto.never_the_same crypto.damaged crypto.layout",
            ("sealed = iv + aead", "sealed = bytes(16) + iv + aead"),
            ("aead.decrypt(sealed[:12], sealed[12:], bound)", OWN_LAYOUT),
            ('"wrap_algorithm": "A256GCM"', '"wrap_algorithm": "org.example/own"'),
        ),
    ),
    (EVERYTHING, mutant("no code for no message", "signing.mac signing.mac_mismatch", *REFUSE_EMPTY)),
)

BY_SOURCE: Final = {
    mutant.does: (source, mutant)
    for source, mutants in (
        (PLAIN, PLAIN_MUTANTS),
        (EVERYTHING, EVERYTHING_MUTANTS),
        (MANAGING, MANAGING_MUTANTS),
    )
    for mutant in mutants
}
