// Command kmsplug-driver-go is a keystore in a file, and an example of a driver in Go: AES-256-GCM with associated
// data, ECDSA on P-256, versions, states and deletion. It follows protocol/SPEC.md and uses the standard library only.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// Phases of SPEC.md 3.1.
const (
	phaseNew = iota
	phaseInitialized
	phaseReady
	phaseOver
)

type driver struct {
	phase    int
	limit    int
	store    *store
	handlers map[string]func(*params) (any, error)
}

const leastSecret = 32

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

func newDriver() *driver {
	d := &driver{limit: handshakeLimit}
	d.handlers = map[string]func(*params) (any, error){
		"key.create": d.create, "key.get": d.get, "key.list": d.list, "key.list_versions": d.listVersions,
		"key.rotate": d.rotate, "key.enable": d.enable, "key.disable": d.disable, "key.purge": d.purge,
		"key.schedule_deletion": d.scheduleDeletion, "key.cancel_deletion": d.cancelDeletion,
		"key.get_public_key": d.publicKey, "key.reconcile": d.reconcile,
		"crypto.encrypt": d.encrypt, "crypto.decrypt": d.decrypt, "crypto.generate_data_key": d.dataKey,
		"crypto.sign": d.sign, "crypto.verify": d.verify, "crypto.random": d.random, "plugin.health": d.health,
	}
	return d
}

// call carries out one request. Every one is short, so the next is read when this one is answered.
func (d *driver) call(method string, p *params) (any, error) {
	switch method {
	case "plugin.ping":
		return map[string]any{}, nil
	case "plugin.shutdown":
		d.phase = phaseOver
		return map[string]any{}, nil
	case "plugin.initialize":
		if d.phase != phaseNew {
			return nil, refuse("INVALID_ARGUMENT", "the session is initialized already")
		}
		return d.initialize(p)
	case "plugin.configure":
		if d.phase != phaseInitialized {
			return nil, refuse("INVALID_ARGUMENT", "configure comes once, after initialize")
		}
		return d.configure(p)
	}
	handler, known := d.handlers[method]
	if !known {
		return nil, &refusal{methodNotFound, "UNSUPPORTED_OPERATION", "this driver does not offer that", ""}
	}
	if d.phase != phaseReady {
		return nil, &refusal{invalidRequest, "INVALID_ARGUMENT", "not before plugin.configure", ""}
	}
	return handler(p)
}

func describeDriver(limit int) map[string]any {
	return map[string]any{
		"protocol_version": "1", "driver": map[string]any{"name": "go-example", "version": "1.0"},
		"max_frame_bytes": limit, "max_concurrency": 1, "config_schema": configSchema, "capabilities": rows(),
	}
}

func (d *driver) initialize(p *params) (any, error) {
	offered, ok := p.members["protocol_versions"].([]any)
	if !ok || len(offered) == 0 {
		return nil, malformed("protocol_versions")
	}
	if _, ok := p.members["host"].(map[string]any); !ok {
		return nil, malformed("host")
	}
	limit := p.number("max_frame_bytes", handshakeLimit, 1<<26, ownLimit)
	spoken := false
	for _, name := range offered {
		text, ok := name.(string)
		if !ok {
			return nil, malformed("protocol_versions")
		}
		spoken = spoken || text == "1"
	}
	if p.refused != nil {
		return nil, p.refused
	}
	if !spoken {
		return nil, refuse("UNSUPPORTED_OPERATION", "this driver speaks protocol version 1")
	}
	d.phase, d.limit = phaseInitialized, min(int(limit), ownLimit)
	return describeDriver(d.limit), nil
}

func setting(path, message string) *refusal {
	return &refusal{keystoreError, "CONFIGURATION_ERROR", message, path}
}

func (d *driver) configure(p *params) (any, error) {
	dry := p.flag("dry_run", false)
	config, ok := p.members["config"].(map[string]any)
	if !ok {
		return nil, malformed("config")
	}
	if p.refused != nil {
		return nil, p.refused
	}
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
		d.phase, d.store = phaseReady, opened
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

// typed makes a refusal of any error; what nobody foresaw has one fixed sentence (SPEC.md 7.6-2).
func typed(err error) *refusal {
	var refused *refusal
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		return refused
	case errors.Is(err, errDamaged), errors.Is(err, errWrongSecret):
		return refuse("KEYSTORE_CORRUPT", "the file of the keystore is damaged")
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, os.ErrPermission):
		return refuse("PROVIDER_UNAVAILABLE", "the file of the keystore cannot be read or written")
	}
	fmt.Fprintf(os.Stderr, `{"level":"ERROR","logger":"go-example","message":"a defect","exception":"%T"}`+"\n", err)
	return &refusal{internalError, "INTERNAL_ERROR", "the driver failed; its log says more", ""}
}

// serve answers line by line until the end of stdin or a shutdown.
func (d *driver) serve(in *lines, out *os.File) error {
	for d.phase != phaseOver {
		line, err := in.next()
		if err != nil && err != errTooLong {
			return nil // the end of stdin
		}
		var answer []byte
		if err == errTooLong {
			long := &refusal{invalidRequest, "INVALID_ARGUMENT", "the line is longer than the limit", ""}
			answer = response(nil, nil, long, d.limit)
		} else if blank(line) {
			continue
		} else if asked, id, refused := parse(line); refused != nil {
			answer = response(id, nil, refused, d.limit)
		} else if asked != nil {
			result, err := d.call(asked.method, &params{members: asked.params})
			answer = response(asked.id, result, typed(err), d.limit)
			in.limit = d.limit // the new limit holds after the answer to plugin.initialize
		}
		if _, err := out.Write(answer); err != nil {
			return err
		}
	}
	return nil
}

func blank(line []byte) bool {
	for _, one := range line {
		if one != ' ' && one != '\t' && one != '\r' {
			return false
		}
	}
	return true
}

// check opens the keystore with the settings in a file, looks deeply and reports (SPEC.md 1.3-3).
func check(path string) int {
	report := map[string]any{"healthy": false}
	text, err := os.ReadFile(path)
	var config any
	if err == nil {
		config, err = decode(text)
	}
	if err == nil {
		d := newDriver()
		d.phase = phaseInitialized
		if _, err = d.call("plugin.configure", &params{members: map[string]any{"config": config}}); err == nil {
			var found any
			found, err = d.call("plugin.health", &params{members: map[string]any{"depth": "deep"}})
			report, _ = found.(map[string]any)
		}
	}
	if refused := typed(err); refused != nil {
		report["error"] = map[string]any{"code": refused.code, "message": refused.message}
	}
	shown, _ := json.MarshalIndent(report, "", "  ")
	fmt.Println(string(shown))
	if report["healthy"] == true {
		return 0
	}
	return 1
}

func main() {
	forbidDumps()
	signal.Ignore(os.Interrupt) // Ctrl-C is for the host, which then ends us
	// The wire moves to a descriptor of its own: whatever prints, prints to the log.
	out := os.Stdout
	os.Stdout = os.Stderr
	arguments := os.Args[1:]
	switch {
	case len(arguments) == 1 && arguments[0] == "--describe":
		shown, _ := json.MarshalIndent(describeDriver(ownLimit), "", "  ")
		fmt.Fprintln(out, string(shown))
		return
	case len(arguments) == 2 && arguments[0] == "--check":
		os.Stdout = out
		os.Exit(check(arguments[1]))
	}
	if found, err := os.Stdin.Stat(); len(arguments) > 0 || (err == nil && found.Mode()&os.ModeCharDevice != 0) {
		fmt.Fprintln(os.Stderr, "This is a kmsplug driver: a host starts it. By hand: --describe, --check CONFIG.json")
		os.Exit(2)
	}
	in := &lines{bufio.NewReaderSize(os.Stdin, handshakeLimit), handshakeLimit}
	if newDriver().serve(in, out) != nil {
		os.Exit(1)
	}
}
