// Command kmsplug-driver-go is a keystore in a file, and an example of a driver in Go: AES-256-GCM with associated
// data, ECDSA on P-256, versions, states and deletion. It follows protocol/SPEC.md and uses the standard library only.
package main

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

const (
	driverName    = "go-example"
	driverVersion = "1.0"
	leastSecret   = 32
)

// keystore is what a session works with once it is configured.
type keystore struct {
	store *store
}

var configSchema = map[string]any{
	"$schema": "https://json-schema.org/draft/2020-12/schema",
	"type":    "object", "additionalProperties": false, "required": []string{"path", "secret"},
	"properties": map[string]any{
		"path": map[string]any{
			"type": "string", "format": "path", "description": "The file that holds the keys; it is made.",
		},
		"secret": map[string]any{
			"type": "string", "minLength": leastSecret, "writeOnly": true,
			"description": "What the keys are sealed under: random, as from `openssl rand -base64 32`.",
		},
	},
}

func rows() []any {
	gcm := func(operation string) map[string]any {
		return map[string]any{
			"operation": operation, "key_algorithm": "AES_256_GCM", "mechanism": "AES_256_GCM",
			"associated_data": "bytes", "versions_addressable": true, "protection": "software",
		}
	}
	found := []any{
		map[string]any{"operation": "key.create", "key_algorithm": "AES_256_GCM", "usage": "ENCRYPT_DECRYPT"},
		map[string]any{"operation": "key.create", "key_algorithm": "EC_P256", "usage": "SIGN_VERIFY"},
		map[string]any{"operation": "key.schedule_deletion", "deletion_window_days": []int{leastDays, mostDays}},
		map[string]any{"operation": "key.get_public_key", "key_algorithm": "EC_P256"},
		map[string]any{"operation": "crypto.random", "max_input_bytes": mostRandom},
		gcm("crypto.generate_data_key"),
	}
	for _, operation := range []string{
		"key.get", "key.list", "key.list_versions", "key.rotate", "key.enable", "key.disable",
		"key.cancel_deletion", "key.purge", "key.reconcile",
	} {
		found = append(found, map[string]any{"operation": operation})
	}
	for _, operation := range []string{"crypto.encrypt", "crypto.decrypt"} {
		row := gcm(operation)
		row["max_input_bytes"], row["wrap_algorithm"] = mostInput, "A256GCM"
		found = append(found, row)
	}
	for _, operation := range []string{"crypto.sign", "crypto.verify"} {
		found = append(found, map[string]any{
			"operation": operation, "key_algorithm": "EC_P256", "mechanism": "ECDSA_SHA_256",
			"max_input_bytes": mostInput, "versions_addressable": true, "protection": "software",
		})
	}
	return found
}

// operations returns what is carried out by whom.
func (d *driver) operations() map[string]operation {
	return map[string]operation{
		"key.create": d.create, "key.get": d.get, "key.list": d.list, "key.list_versions": d.listVersions,
		"key.rotate": d.rotate, "key.enable": d.enable, "key.disable": d.disable, "key.purge": d.purge,
		"key.schedule_deletion": d.scheduleDeletion, "key.cancel_deletion": d.cancelDeletion,
		"key.get_public_key": d.publicKey, "key.reconcile": d.reconcile,
		"crypto.encrypt": d.encrypt, "crypto.decrypt": d.decrypt, "crypto.generate_data_key": d.dataKey,
		"crypto.sign": d.sign, "crypto.verify": d.verify, "crypto.random": d.random, "plugin.health": d.health,
	}
}

// open opens the keystore that the settings name, or with dry looks whether it could.
func (d *driver) open(config map[string]any, dry bool) (any, error) {
	path, _ := config["path"].(string)
	secret, _ := config["secret"].(string)
	for name := range config {
		if name != "path" && name != "secret" {
			return nil, setting(name, "there is no such setting")
		}
	}
	if !filepath.IsAbs(path) {
		return nil, setting("path", "path has to be an absolute path of a file")
	}
	if len(secret) < leastSecret {
		return nil, setting("secret", "secret has to be a text of at least 32 characters")
	}
	if found, err := os.Stat(filepath.Dir(path)); err != nil || !found.IsDir() {
		return nil, setting("path", "the folder of path does not exist")
	}
	opened, err := openStore(path, secret)
	if err != nil {
		return nil, err
	}
	identity := "go-example:new"
	if !dry {
		err = opened.change(func(found *content) *refusal { identity = found.Identity; return nil })
	} else if found, failed := opened.load(); failed != nil {
		err = failed
	} else if found.Identity != "" {
		identity = found.Identity
	}
	if errors.Is(err, errWrongSecret) {
		return nil, refuse("AUTHENTICATION_FAILED", "the secret does not open this keystore")
	}
	if err != nil {
		return nil, err
	}
	if !dry {
		d.store = opened
	}
	return map[string]any{"identity": identity, "key_namespace": []string{namespace}}, nil
}

func (d *driver) health(p *params) (any, error) {
	p.only("depth", "shallow", "deep")
	if p.refused != nil {
		return nil, p.refused
	}
	depth, _ := p.get("depth")
	if depth != "deep" {
		return map[string]any{"healthy": true}, nil
	}
	_, err := d.store.load()
	check := map[string]any{"name": "keystore", "healthy": err == nil}
	if err != nil {
		check["detail"] = "the file cannot be read, or the secret no longer opens it"
	}
	return map[string]any{"healthy": err == nil, "checks": []any{check}}, nil
}

// classify makes a refusal of the errors of this keystore; nil: it does not know that one.
func classify(err error) *refusal {
	switch {
	case errors.Is(err, errDamaged), errors.Is(err, errWrongSecret):
		return refuse("KEYSTORE_CORRUPT", "the file of the keystore is damaged")
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, os.ErrPermission):
		return refuse("PROVIDER_UNAVAILABLE", "the file of the keystore cannot be read or written")
	}
	return nil
}
