#!/bin/sh
# Builds kryoptic, a PKCS#11 token in Rust, for the tests: into ~/.cache/kmsplug, from its published crate and with
# the OpenSSL of this machine. Needs cargo, libclang (libclang-dev) and OpenSSL's headers (libssl-dev).
set -eu

version=1.5.4
cache="${HOME}/.cache/kmsplug"
folder="${cache}/kryoptic-${version}"
mkdir -p "${folder}/fetch/src"

# Fetching a crate as somebody's dependency is the one way that cargo has to get its sources, checked.
cat > "${folder}/fetch/Cargo.toml" <<TOML
[package]
name = "fetch"
version = "0.0.0"
edition = "2021"
[dependencies]
kryoptic = { version = "=${version}", default-features = false }
TOML
: > "${folder}/fetch/src/lib.rs"
(cd "${folder}/fetch" && cargo vendor --quiet vendor > /dev/null)

# Its features leave out how OpenSSL is found; one more says: as it is installed here.
source="${folder}/source"
rm -rf "${source}"
cp -r "${folder}/fetch/vendor/kryoptic" "${source}"
rm -rf "${source}/tests" "${source}/.cargo-checksum.json"
sed -i 's|^minimal = .*|&\nhere = ["kryoptic-lib/minimal", "kryoptic-lib/dynamic", "ossl/ossl-sys", "ossl/dynamic"]|' \
    "${source}/Cargo.toml"
(cd "${source}" && CARGO_TARGET_DIR="${folder}/target" CARGO_PROFILE_RELEASE_LTO=off \
    cargo build --release --lib --no-default-features --features here)
cp "${folder}/target/release/libkryoptic_pkcs11.so" "${cache}/"
echo "built ${cache}/libkryoptic_pkcs11.so"
