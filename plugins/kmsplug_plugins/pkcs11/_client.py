"""The one module that imports python-pkcs11: the names that we use, and a module that threads may share.

python-pkcs11 calls ``C_Initialize(NULL)``, which promises the module a single thread, and then releases the
GIL around every call: a module that believes the promise is torn apart by the second thread. `Module` asks
for the operating system's locks instead (CKF_OS_LOCKING_OK), and finalises by itself.
"""

import ctypes
from typing import Final, Self

from pkcs11 import (
    KDF,
    MGF,
    PROTECTED_AUTH,
    Attribute,
    DecryptMixin,
    DeriveMixin,
    EncryptMixin,
    KeyType,
    MechanismFlag,
    MLDSAParameterSet,
    MLKEMParameterSet,
    Object,
    ObjectClass,
    PKCS11Error,
    SecretKey,
    Session,
    SignMixin,
    Slot,
    SlotFlag,
    Token,
    TokenFlag,
    UnwrapMixin,
    UserNotLoggedIn,
    VerifyMixin,
    WrapMixin,
    _pkcs11,
)
from pkcs11 import Mechanism as Ckm
from pkcs11.types import DecapsulateMixin, EncapsulateMixin

__all__ = [
    "KDF",
    "MGF",
    "PROTECTED_AUTH",
    "Attribute",
    "Ckm",
    "DecapsulateMixin",
    "DecryptMixin",
    "DeriveMixin",
    "EncapsulateMixin",
    "EncryptMixin",
    "GcmParameters",
    "KeyType",
    "MLDSAParameterSet",
    "MLKEMParameterSet",
    "MechanismFlag",
    "Module",
    "Object",
    "ObjectClass",
    "PKCS11Error",
    "SecretKey",
    "Session",
    "SignMixin",
    "Slot",
    "SlotFlag",
    "Token",
    "TokenFlag",
    "UnwrapMixin",
    "UserNotLoggedIn",
    "VerifyMixin",
    "WrapMixin",
]

_OS_LOCKING_OK: Final = 0x02
_CRYPTOKI_NOT_INITIALIZED: Final = 0x190

# Places in CK_FUNCTION_LIST, which begins with a CK_VERSION that is padded to a pointer's size.
_INITIALIZE: Final = 0
_FINALIZE: Final = 1
_GET_SESSION_INFO: Final = 15

# States of a session (CKS_...) in which a user is logged in: of a read-only and of a read-write session.
_LOGGED_IN: Final = (1, 3)


class _InitializeArgs(ctypes.Structure):
    """CK_C_INITIALIZE_ARGS."""

    _fields_ = [
        ("create_mutex", ctypes.c_void_p),
        ("destroy_mutex", ctypes.c_void_p),
        ("lock_mutex", ctypes.c_void_p),
        ("unlock_mutex", ctypes.c_void_p),
        ("flags", ctypes.c_ulong),
        ("reserved", ctypes.c_void_p),
    ]


class _SessionInfo(ctypes.Structure):
    """CK_SESSION_INFO."""

    _fields_ = [
        ("slot", ctypes.c_ulong),
        ("state", ctypes.c_ulong),
        ("flags", ctypes.c_ulong),
        ("device_error", ctypes.c_ulong),
    ]


class Module(_pkcs11.lib):
    """A vendor's module, loaded and initialised for several threads. One at a time in a process.

    Args:
        path: The shared library.

    Raises:
        OSError: It cannot be loaded, or is no PKCS#11 module.
        PKCS11Error: It refuses to be initialised.
    """

    def __new__(cls, path: str) -> Self:
        """Load the library, before the base class does, which tells no error from another."""
        if not hasattr(ctypes.CDLL(path), "C_GetFunctionList"):
            raise OSError("no PKCS#11 module: C_GetFunctionList is missing")
        return super().__new__(cls, path)  # type: ignore[call-arg]  # the stubs know `__init__` only

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        self._list = ctypes.c_void_p()
        _check("C_GetFunctionList", self._library.C_GetFunctionList(ctypes.byref(self._list)))
        super().__init__(path)  # calls `initialize`
        # Never freed: its destructor runs after the interpreter has taken the class apart, and complains.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))

    def initialize(self) -> None:
        """Initialise with the operating system's locks."""
        arguments = _InitializeArgs(flags=_OS_LOCKING_OK)
        function = self._function(_INITIALIZE, ctypes.c_void_p)
        _check("C_Initialize", function(ctypes.cast(ctypes.byref(arguments), ctypes.c_void_p)))

    def finalize(self) -> None:
        """End all sessions, log out and give the module's resources back."""
        value = self._function(_FINALIZE, ctypes.c_void_p)(None)
        if value != _CRYPTOKI_NOT_INITIALIZED:
            _check("C_Finalize", value)

    def session_is_good(self, session: Session, *, logged_in: bool) -> bool:
        """Tell whether a session is open, and whether its user is still logged in where that is wanted.

        Whoever is logged out is not told: the token finds no private key then, as if there were none.
        """
        info = _SessionInfo()
        function = self._function(_GET_SESSION_INFO, ctypes.c_ulong, ctypes.c_void_p)
        # The stubs of the library leave the handle out.
        handle: int = session.handle  # type: ignore[attr-defined]
        if function(handle, ctypes.cast(ctypes.byref(info), ctypes.c_void_p)) != 0:
            return False
        return info.state in _LOGGED_IN or not logged_in

    def _function(self, place: int, *arguments: type) -> "ctypes._CFunctionType":
        size = ctypes.sizeof(ctypes.c_void_p)
        if self._list.value is None:
            raise PKCS11Error("C_GetFunctionList gave no list")
        address = ctypes.c_void_p.from_address(self._list.value + size * (1 + place)).value
        if address is None:
            raise PKCS11Error("a function is missing in the module's list")
        return ctypes.CFUNCTYPE(ctypes.c_ulong, *arguments)(address)


def _check(function: str, value: int) -> None:
    if value != 0:
        # As the library words it, so that one place reads both.
        raise PKCS11Error(f"Unmapped error code {value:#x}: {function}")


class _CkGcmParams(ctypes.Structure):
    """CK_GCM_PARAMS."""

    _fields_ = [
        ("iv", ctypes.c_void_p),
        ("iv_bytes", ctypes.c_ulong),
        ("iv_bits", ctypes.c_ulong),
        ("associated_data", ctypes.c_void_p),
        ("associated_data_bytes", ctypes.c_ulong),
        ("tag_bits", ctypes.c_ulong),
    ]


class GcmParameters:
    """CK_GCM_PARAMS over memory of our own, which a device may write its IV into.

    It has to live for as long as the call that uses `packed`.

    Args:
        iv: The IV; zeros where the device writes its own there, nothing where it wants no IV.
        associated_data: What is authenticated beside the data.
    """

    def __init__(self, iv: bytes, associated_data: bytes) -> None:
        self._iv = ctypes.create_string_buffer(iv, len(iv)) if iv else None
        self._bound = (
            ctypes.create_string_buffer(associated_data, len(associated_data)) if associated_data else None
        )
        self._parameters = _CkGcmParams(
            iv=_address(self._iv),
            iv_bytes=len(iv),
            iv_bits=8 * len(iv),
            associated_data=_address(self._bound),
            associated_data_bytes=len(associated_data),
            tag_bits=128,
        )

    @property
    def packed(self) -> bytes:
        """The structure as the library takes it."""
        return bytes(self._parameters)

    @property
    def iv(self) -> bytes:
        """The IV as it is after the call."""
        return b"" if self._iv is None else self._iv.raw


def _address(buffer: "ctypes.Array[ctypes.c_char] | None") -> int | None:
    return None if buffer is None else ctypes.addressof(buffer)
