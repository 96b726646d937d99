package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
)

const (
	mostInput  = 65_536
	mostRandom = 65_536
)

func encoded(data []byte) string { return base64.StdEncoding.EncodeToString(data) }

func tooLong(name string) *refusal {
	return &refusal{keystoreError, "INVALID_ARGUMENT", name + " is longer than 65,536 bytes", name}
}

// usable returns the versions that a request may use, the newest first.
func (d *driver) usable(p *params, usage, mechanism string, making bool) (*record, []*version, error) {
	id, named := p.text("key_id", 2048, true), p.text("key_version", 256, false)
	wanted := p.text("mechanism", 64, false)
	if p.refused != nil {
		return nil, nil, p.refused
	}
	key, err := d.read(id)
	if err != nil {
		return nil, nil, err
	}
	if key.Usage != usage {
		return nil, nil, refuse("KEY_USAGE_MISMATCH", "the key is for "+key.Usage)
	}
	if wanted != "" && wanted != mechanism {
		return nil, nil, refuse("UNSUPPORTED_OPERATION", "this key is used by "+mechanism)
	}
	var candidates []*version
	switch {
	case named != "":
		if one := key.version(named); one != nil {
			candidates = []*version{one}
		}
	case making:
		candidates = []*version{key.current()}
	default:
		for i := range key.Versions {
			candidates = append([]*version{&key.Versions[i]}, candidates...)
		}
	}
	if len(candidates) == 0 {
		return nil, nil, noSuchKey()
	}
	var found []*version
	for _, one := range candidates {
		if one.State == active || (one.State == deactivated && !making) {
			found = append(found, one)
		}
	}
	if len(found) == 0 {
		return nil, nil, stateRefusal(candidates[0].State)
	}
	return key, found, nil
}

func (d *driver) aead(key *record, one *version) (cipher.AEAD, error) {
	material, err := d.store.opened(one.Sealed, key.ID+"/"+one.Name)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(material)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func (d *driver) private(key *record, one *version) (*ecdsa.PrivateKey, error) {
	material, err := d.store.opened(one.Sealed, key.ID+"/"+one.Name)
	if err != nil {
		return nil, err
	}
	return x509.ParseECPrivateKey(material)
}

// bound returns the associated data. A context is refused, never ignored (SPEC.md 5.3).
func bound(p *params) []byte {
	if len(p.texts("context", 1<<20)) > 0 {
		p.fail(&refusal{keystoreError, "UNSUPPORTED_OPERATION", "only associated_data is bound here", "context"})
	}
	return p.bytes("associated_data", false)
}

func (d *driver) encrypt(p *params) (any, error) {
	plaintext, data := p.bytes("plaintext", true), bound(p)
	if len(plaintext) > mostInput {
		p.fail(tooLong("plaintext"))
	}
	return d.seal(p, plaintext, data)
}

// seal encrypts as the row A256GCM says: IV, ciphertext, tag.
func (d *driver) seal(p *params, plaintext, data []byte) (map[string]any, error) {
	key, found, err := d.usable(p, "ENCRYPT_DECRYPT", "AES_256_GCM", true)
	if err != nil {
		return nil, err
	}
	aead, err := d.aead(key, found[0])
	if err != nil {
		return nil, err
	}
	iv := make([]byte, aead.NonceSize())
	rand.Read(iv)
	return map[string]any{
		"key_id": key.ID, "key_version": found[0].Name, "mechanism": "AES_256_GCM", "protection": "software",
		"ciphertext": encoded(aead.Seal(iv, iv, plaintext, data)),
	}, nil
}

func (d *driver) decrypt(p *params) (any, error) {
	sealed, data := p.bytes("ciphertext", true), bound(p)
	key, found, err := d.usable(p, "ENCRYPT_DECRYPT", "AES_256_GCM", false)
	if err != nil {
		return nil, err
	}
	for _, one := range found {
		aead, err := d.aead(key, one)
		if err != nil {
			return nil, err
		}
		size := aead.NonceSize()
		if len(sealed) < size {
			break
		}
		if plaintext, err := aead.Open(nil, sealed[:size], sealed[size:], data); err == nil {
			return map[string]any{
				"key_id": key.ID, "key_version": one.Name, "protection": "software", "plaintext": encoded(plaintext),
			}, nil
		}
	}
	return nil, foreign()
}

func (d *driver) dataKey(p *params) (any, error) {
	length, clear := p.number("length_bytes", 16, 1024, 32), p.flag("with_plaintext", true)
	data := bound(p)
	if p.refused != nil {
		return nil, p.refused
	}
	plaintext := make([]byte, length)
	rand.Read(plaintext)
	result, err := d.seal(p, plaintext, data)
	if err == nil && clear {
		result["plaintext"] = encoded(plaintext)
	}
	return result, err
}

// hashed returns the SHA-256 of a message, or the digest that stands for it: one of the two is given.
func hashed(p *params) []byte {
	_, hasMessage := p.get("message")
	_, hasDigest := p.get("digest")
	if hasMessage == hasDigest {
		p.fail(malformed("message"))
		return nil
	}
	if hasDigest {
		digest := p.bytes("digest", true)
		if len(digest) != sha256.Size {
			p.fail(malformed("digest"))
		}
		return digest
	}
	message := p.bytes("message", true)
	if len(message) > mostInput {
		p.fail(tooLong("message"))
	}
	digest := sha256.Sum256(message)
	return digest[:]
}

func (d *driver) sign(p *params) (any, error) {
	digest := hashed(p)
	key, found, err := d.usable(p, "SIGN_VERIFY", "ECDSA_SHA_256", true)
	if err != nil {
		return nil, err
	}
	private, err := d.private(key, found[0])
	if err != nil {
		return nil, err
	}
	signature, err := ecdsa.SignASN1(rand.Reader, private, digest)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"key_id": key.ID, "key_version": found[0].Name, "mechanism": "ECDSA_SHA_256", "protection": "software",
		"signature": encoded(signature),
	}, nil
}

func (d *driver) verify(p *params) (any, error) {
	digest, signature := hashed(p), p.bytes("signature", true)
	key, found, err := d.usable(p, "SIGN_VERIFY", "ECDSA_SHA_256", false)
	if err != nil {
		return nil, err
	}
	for _, one := range found {
		private, err := d.private(key, one)
		if err != nil {
			return nil, err
		}
		if ecdsa.VerifyASN1(&private.PublicKey, digest, signature) {
			return map[string]any{"key_id": key.ID, "key_version": one.Name, "valid": true}, nil
		}
	}
	return map[string]any{"key_id": key.ID, "valid": false}, nil
}

func (d *driver) random(p *params) (any, error) {
	length := p.number("length_bytes", 1, mostRandom, -1)
	if p.refused != nil {
		return nil, p.refused
	}
	data := make([]byte, length)
	rand.Read(data)
	return map[string]any{"data": encoded(data)}, nil
}
