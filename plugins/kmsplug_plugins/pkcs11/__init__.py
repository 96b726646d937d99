"""PKCS#11: keys in an HSM or token, reached through its vendor's module."""
