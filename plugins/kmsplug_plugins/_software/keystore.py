"""All operations together: what a driver of a software keystore derives from, beside the SDK's base."""

from .access_operations import AccessOperations
from .batch import BatchOperations
from .crypto_operations import CryptoOperations
from .import_operations import ImportOperations
from .key_operations import KeyOperations
from .label_operations import LabelOperations
from .lifecycle_operations import LifecycleOperations
from .secret_operations import SecretOperations


class SoftwareKeystore(
    KeyOperations,
    AccessOperations,
    LifecycleOperations,
    LabelOperations,
    CryptoOperations,
    SecretOperations,
    ImportOperations,
    BatchOperations,
):
    """Every operation of the protocol on keys. The driver sets `_store` and `_leases` in `configure`."""
