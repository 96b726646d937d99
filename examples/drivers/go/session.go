package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
)

// Phases of SPEC.md 3.1.
const (
	phaseNew = iota
	phaseInitialized
	phaseReady
	phaseOver
)

// operation carries out one request.
type operation func(*params) (any, error)

// driver is a session. Its keystore, its operations and its settings stand in driver.go.
type driver struct {
	keystore
	phase    int
	limit    int
	handlers map[string]operation
}

func newDriver() *driver {
	d := &driver{limit: handshakeLimit}
	d.handlers = d.operations()
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
		"protocol_version": "1", "driver": map[string]any{"name": driverName, "version": driverVersion},
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
	result, err := d.open(config, dry)
	if err == nil && !dry {
		d.phase = phaseReady
	}
	return result, err
}

// typed makes a refusal of any error; what nobody foresaw has one fixed sentence (SPEC.md 7.6-2).
func typed(err error) *refusal {
	var refused *refusal
	if err == nil || errors.As(err, &refused) {
		return refused
	}
	if refused = classify(err); refused != nil {
		return refused
	}
	fmt.Fprintf(os.Stderr, `{"level":"ERROR","logger":"driver","message":"a defect","exception":"%T"}`+"\n", err)
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
