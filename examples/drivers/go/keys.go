package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	active      = "ACTIVE"
	suspended   = "SUSPENDED"
	deactivated = "DEACTIVATED"
	scheduled   = "DESTROY_SCHEDULED"
	destroyed   = "DESTROYED"
)

// What a state refuses with (SPEC.md 6.2).
var refusals = map[string]string{
	suspended:   "KEY_DISABLED",
	deactivated: "KEY_INVALID_STATE",
	scheduled:   "KEY_PENDING_DELETION",
	destroyed:   "KEY_DESTROYED",
}

var usages = map[string]string{"AES_256_GCM": "ENCRYPT_DECRYPT", "EC_P256": "SIGN_VERIFY"}

const (
	leastDays = 7
	mostDays  = 30
	namespace = "go-"
)

func stateRefusal(state string) *refusal {
	return refuse(refusals[state], "the key is "+state)
}

func noSuchKey() *refusal { return refuse("KEY_NOT_FOUND", "there is no key or version of this id") }

func moment(when time.Time) string { return when.UTC().Format("2006-01-02T15:04:05Z") }

// describe returns a key as SPEC.md 4.10 wants it.
func describe(key *record) map[string]any {
	found := map[string]any{
		"key_id": key.ID, "key_version": key.current().Name, "algorithm": key.Algorithm, "usage": key.Usage,
		"state": key.current().State, "protection": "software", "created_at": moment(key.Created),
		// Whoever has the file and the secret can use a key whatever its state.
		"enforced_by": "host",
	}
	if key.Name != "" {
		found["name"] = key.Name
	}
	if len(key.Tags) > 0 {
		found["tags"] = key.Tags
	}
	if key.Due != nil {
		found["deletion_at"] = moment(*key.Due)
	}
	return found
}

func (d *driver) addVersion(key *record) error {
	var material []byte
	if key.Algorithm == "EC_P256" {
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		if material, err = x509.MarshalECPrivateKey(private); err != nil {
			return err
		}
	} else {
		material = make([]byte, 32)
		rand.Read(material)
	}
	name := strconv.Itoa(len(key.Versions) + 1)
	sealed := d.store.sealed(material, key.ID+"/"+name)
	key.Versions = append(key.Versions, version{Name: name, State: active, Created: time.Now(), Sealed: sealed})
	return nil
}

// idempotencyKey returns the name of a change; "" where the host gave none.
func (p *params) idempotencyKey() string {
	meta, _ := p.members["meta"].(map[string]any)
	name, _ := meta["idempotency_key"].(string)
	return name
}

func (d *driver) create(p *params) (any, error) {
	algorithm := p.text("algorithm", 64, true)
	usage, name := p.text("usage", 64, false), p.text("name", 256, false)
	tags := p.texts("tags", 50)
	p.only("protection", "software")
	p.only("exportable", false)
	p.only("origin", "generated")
	if p.refused != nil {
		return nil, p.refused
	}
	natural, known := usages[algorithm]
	if !known || (usage != "" && usage != natural) {
		return nil, refuse("UNSUPPORTED_OPERATION", "keys are AES_256_GCM to encrypt and EC_P256 to sign")
	}
	change := p.idempotencyKey()
	var made *record
	err := d.store.change(func(found *content) *refusal {
		if made = byChange(found, "key.create", change); made != nil {
			return nil // it was asked for before, and its answer was lost
		}
		made = &record{
			ID: namespace + token(), Algorithm: algorithm, Usage: natural, Name: name, Tags: tags,
			Created: time.Now(), Changes: map[string]string{},
		}
		if change != "" {
			made.Changes["key.create"] = change
		}
		if d.addVersion(made) != nil {
			return refuse("PROVIDER_INTERNAL", "no key could be made")
		}
		found.Keys = append(found.Keys, made)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return describe(made), nil
}

func byChange(found *content, method, change string) *record {
	for _, key := range found.Keys {
		if change != "" && (key.Changes[method] == change || key.Changes[method+" "+change] != "") {
			return key
		}
	}
	return nil
}

// read finds the key of a request as it is now.
func (d *driver) read(id string) (*record, error) {
	found, err := d.store.load()
	if err != nil {
		return nil, err
	}
	if key := found.find(id); key != nil {
		return key, nil
	}
	return nil, noSuchKey()
}

func (d *driver) get(p *params) (any, error) {
	id := p.text("key_id", 2048, true)
	if p.refused != nil {
		return nil, p.refused
	}
	key, err := d.read(id)
	if err != nil {
		return nil, err
	}
	return describe(key), nil
}

// page cuts a page out of a list. A cursor says where, and which list it belongs to.
func page[T any](p *params, all []T, label string) ([]T, string) {
	limit := int(p.number("limit", 1, 1000, 100))
	start := 0
	if cursor, given := p.get("cursor"); given {
		text, _ := cursor.(string)
		head, tail, _ := strings.Cut(text, ":")
		number, err := strconv.Atoi(head)
		if err != nil || tail != label || number < 1 || number >= len(all) || strconv.Itoa(number) != head {
			p.fail(malformed("cursor"))
			return nil, ""
		}
		start = number
	}
	if p.refused != nil {
		return nil, ""
	}
	end := min(start+limit, len(all))
	if end == len(all) {
		return all[start:end], ""
	}
	return all[start:end], strconv.Itoa(end) + ":" + label
}

func (d *driver) list(p *params) (any, error) {
	found, err := d.store.load()
	if err != nil {
		return nil, err
	}
	keys, cursor := page(p, found.Keys, "keys") // new keys come last, so a page never moves
	if p.refused != nil {
		return nil, p.refused
	}
	described := []any{}
	for _, key := range keys {
		described = append(described, describe(key))
	}
	result := map[string]any{"keys": described}
	if cursor != "" {
		result["next_cursor"] = cursor
	}
	return result, nil
}

func (d *driver) listVersions(p *params) (any, error) {
	id := p.text("key_id", 2048, true)
	if p.refused != nil {
		return nil, p.refused
	}
	key, err := d.read(id)
	if err != nil {
		return nil, err
	}
	versions, cursor := page(p, key.Versions, id)
	if p.refused != nil {
		return nil, p.refused
	}
	described := []any{}
	for _, one := range versions {
		described = append(described, map[string]any{
			"key_version": one.Name, "state": one.State, "current": one.Name == key.current().Name,
			"created_at": moment(one.Created),
		})
	}
	result := map[string]any{"key_id": key.ID, "versions": described}
	if cursor != "" {
		result["next_cursor"] = cursor
	}
	return result, nil
}

// move changes a key and returns its new description.
func (d *driver) move(p *params, apply func(*record) *refusal) (any, error) {
	id := p.text("key_id", 2048, true)
	if p.refused != nil {
		return nil, p.refused
	}
	var moved *record
	err := d.store.change(func(found *content) *refusal {
		if moved = found.find(id); moved == nil {
			return noSuchKey()
		}
		return apply(moved)
	})
	if err != nil {
		return nil, err
	}
	return describe(moved), nil
}

func (d *driver) rotate(p *params) (any, error) {
	change := p.idempotencyKey()
	return d.move(p, func(key *record) *refusal {
		if change != "" && key.Changes["key.rotate "+change] != "" {
			return nil
		}
		current := key.current()
		if current.State != active && current.State != deactivated {
			return stateRefusal(current.State)
		}
		current.State = deactivated
		if d.addVersion(key) != nil {
			return refuse("PROVIDER_INTERNAL", "no key could be made")
		}
		if change != "" {
			key.Changes["key.rotate "+change] = key.current().Name
		}
		return nil
	})
}

func (d *driver) disable(p *params) (any, error) {
	return d.move(p, func(key *record) *refusal {
		if state := key.current().State; state == scheduled || state == destroyed {
			return stateRefusal(state)
		}
		for i := range key.Versions {
			if one := &key.Versions[i]; one.State == active || one.State == deactivated {
				one.Former, one.State = one.State, suspended
			}
		}
		return nil
	})
}

func (d *driver) enable(p *params) (any, error) {
	return d.move(p, func(key *record) *refusal {
		if state := key.current().State; state == scheduled || state == destroyed {
			return stateRefusal(state)
		}
		for i := range key.Versions {
			if one := &key.Versions[i]; one.State == suspended {
				one.State = one.Former
			}
		}
		return nil
	})
}

func (d *driver) scheduleDeletion(p *params) (any, error) {
	days := int(p.number("window_days", leastDays, mostDays, mostDays))
	return d.move(p, func(key *record) *refusal {
		if state := key.current().State; state == scheduled || state == destroyed {
			return stateRefusal(state)
		}
		for i := range key.Versions {
			one := &key.Versions[i]
			if one.State != suspended {
				one.Former = one.State
			}
			one.State = scheduled
		}
		due := time.Now().AddDate(0, 0, days)
		key.Due = &due // nothing is destroyed by a clock alone: that is for key.purge
		return nil
	})
}

func (d *driver) cancelDeletion(p *params) (any, error) {
	return d.move(p, func(key *record) *refusal {
		switch key.current().State {
		case scheduled:
		case destroyed:
			return stateRefusal(destroyed)
		default:
			return refuse("KEY_INVALID_STATE", "its deletion is not scheduled")
		}
		for i := range key.Versions {
			key.Versions[i].State = suspended
		}
		key.Due = nil
		return nil
	})
}

func (d *driver) purge(p *params) (any, error) {
	_, err := d.move(p, func(key *record) *refusal {
		switch key.current().State {
		case scheduled:
		case destroyed:
			return stateRefusal(destroyed)
		default:
			return refuse("KEY_INVALID_STATE", "schedule its deletion first")
		}
		for i := range key.Versions {
			key.Versions[i].State, key.Versions[i].Sealed = destroyed, nil
		}
		return nil
	})
	return map[string]any{}, err
}

func (d *driver) reconcile(p *params) (any, error) {
	method, change := p.text("method", 64, true), p.text("idempotency_key", 128, true)
	p.text("key_id", 2048, false)
	if p.refused != nil {
		return nil, p.refused
	}
	if !slices.Contains([]string{"key.create", "key.rotate"}, method) {
		return map[string]any{"outcome": "unknown"}, nil
	}
	found, err := d.store.load()
	if err != nil {
		return nil, err
	}
	if key := byChange(found, method, change); key != nil {
		return map[string]any{"outcome": "applied", "key": describe(key)}, nil
	}
	return map[string]any{"outcome": "not_applied"}, nil
}

func (d *driver) publicKey(p *params) (any, error) {
	id, named := p.text("key_id", 2048, true), p.text("key_version", 256, false)
	if p.refused != nil {
		return nil, p.refused
	}
	key, err := d.read(id)
	if err != nil {
		return nil, err
	}
	if key.Algorithm != "EC_P256" {
		return nil, refuse("KEY_USAGE_MISMATCH", "the key has no public half")
	}
	one := key.current()
	if named != "" {
		if one = key.version(named); one == nil {
			return nil, noSuchKey()
		}
	}
	if one.State == destroyed {
		return nil, stateRefusal(destroyed)
	}
	private, err := d.private(key, one)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"key_id": key.ID, "key_version": one.Name, "algorithm": key.Algorithm,
		"public_key": base64.StdEncoding.EncodeToString(der),
	}, nil
}

func (r *record) version(name string) *version {
	for i := range r.Versions {
		if r.Versions[i].Name == name {
			return &r.Versions[i]
		}
	}
	return nil
}
