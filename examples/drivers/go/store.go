package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// version is one generation of a key's material, which is sealed under the keystore's own key.
type version struct {
	Name    string    `json:"name"`
	State   string    `json:"state"`
	Former  string    `json:"former"` // the state that a suspended version had before
	Created time.Time `json:"created"`
	Sealed  []byte    `json:"sealed"`
}

// record is a key as it stands in the file.
type record struct {
	ID        string            `json:"id"`
	Algorithm string            `json:"algorithm"`
	Usage     string            `json:"usage"`
	Name      string            `json:"name,omitempty"`
	Tags      map[string]string `json:"tags,omitempty"`
	Created   time.Time         `json:"created"`
	Due       *time.Time        `json:"due,omitempty"`
	Versions  []version         `json:"versions"`
	Changes   map[string]string `json:"changes"` // idempotency keys of what was done, by operation
}

func (r *record) current() *version { return &r.Versions[len(r.Versions)-1] }

// content is the whole file.
type content struct {
	Identity string    `json:"identity"`
	Proof    []byte    `json:"proof"` // nothing, sealed: it tells whether the secret is the right one
	Keys     []*record `json:"keys"`
}

func (c *content) find(id string) *record {
	for _, key := range c.Keys {
		if key.ID == id {
			return key
		}
	}
	return nil
}

// store keeps keys in one file, which several processes may share: each change is made under a lock, to what
// stands in the file at that moment, and is on disk before it is answered.
type store struct {
	path  string
	seal  cipher.AEAD
	mutex sync.Mutex
}

var (
	errWrongSecret = errors.New("the secret does not open this file")
	errDamaged     = errors.New("the file is damaged")
)

func openStore(path string, secret string) (*store, error) {
	key, err := hkdf.Key(sha256.New, []byte(secret), nil, "kmsplug example keystore v1", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	seal, err := cipher.NewGCM(block)
	return &store{path: path, seal: seal}, err
}

func (s *store) sealed(plain []byte, label string) []byte {
	iv := make([]byte, s.seal.NonceSize())
	rand.Read(iv)
	return s.seal.Seal(iv, iv, plain, []byte(label))
}

func (s *store) opened(sealed []byte, label string) ([]byte, error) {
	size := s.seal.NonceSize()
	if len(sealed) < size {
		return nil, errDamaged
	}
	plain, err := s.seal.Open(nil, sealed[:size], sealed[size:], []byte(label))
	if err != nil {
		return nil, errDamaged
	}
	return plain, nil
}

// load reads the file; one that is not there yet is empty.
func (s *store) load() (*content, error) {
	text, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return &content{}, nil
	}
	if err != nil {
		return nil, err
	}
	var found content
	if json.Unmarshal(text, &found) != nil || found.Identity == "" {
		return nil, errDamaged
	}
	if _, err := s.opened(found.Proof, found.Identity); err != nil {
		return nil, errWrongSecret
	}
	return &found, nil
}

// change applies a change to the file under a lock and writes it whole, or leaves it as it was.
func (s *store) change(apply func(*content) *refusal) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	lock, err := os.OpenFile(s.path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() // and with it the lock goes
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	found, err := s.load()
	if err != nil {
		return err
	}
	if found.Identity == "" {
		found.Identity = "go-example:" + token()
		found.Proof = s.sealed(nil, found.Identity)
	}
	if refused := apply(found); refused != nil {
		return refused
	}
	return s.write(found)
}

func (s *store) write(found *content) error {
	text, err := json.Marshal(found)
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(s.path), filepath.Base(s.path)+".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	_, err = file.Write(text)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), s.path)
}

func token() string {
	data := make([]byte, 8)
	rand.Read(data)
	return hex.EncodeToString(data)
}
