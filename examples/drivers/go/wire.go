package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"unicode/utf8"
)

// Numbers of SPEC.md 7.1.
const (
	parseError     = -32700
	invalidRequest = -32600
	methodNotFound = -32601
	invalidParams  = -32602
	internalError  = -32603
	keystoreError  = -32000
)

// Limits of SPEC.md 2.3 and 2.4.
const (
	handshakeLimit = 65_536
	ownLimit       = 1 << 20
	largestInteger = 1<<53 - 1
)

// refusal is an error as it goes over the wire (SPEC.md 7.2).
type refusal struct {
	number  int
	code    string
	message string
	path    string
}

func (r *refusal) Error() string { return r.message }

func refuse(code, message string) *refusal {
	return &refusal{number: keystoreError, code: code, message: message}
}

func malformed(name string) *refusal {
	return &refusal{invalidParams, "INVALID_ARGUMENT", name + " is missing, malformed or out of bounds", name}
}

// foreign is the one sentence for whatever is wrong with a ciphertext (SPEC.md 7.5).
func foreign() *refusal {
	return refuse("INVALID_CIPHERTEXT", "the ciphertext does not belong to this key and context")
}

var errTooLong = errors.New("a line that is too long")

// lines reads lines of bounded length from a stream of any length.
type lines struct {
	reader *bufio.Reader
	limit  int
}

// next returns a line without its newline. errTooLong: there was a longer one, and all of it was thrown away.
// A last line without a newline is dropped: it may be incomplete (SPEC.md 2.1-4).
func (l *lines) next() ([]byte, error) {
	var line []byte
	long := false
	for {
		piece, err := l.reader.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull {
			return nil, err
		}
		ended := err == nil
		if ended {
			piece = piece[:len(piece)-1]
		}
		if long || len(line)+len(piece) > l.limit {
			long, line = true, nil
		} else {
			line = append(line, piece...)
		}
		if ended && long {
			return nil, errTooLong
		}
		if ended {
			return line, nil
		}
	}
}

// request is a line whose envelope is legal. It has no id when it is a notification.
type request struct {
	id     any
	method string
	params map[string]any
}

// parse reads a line. It returns nil for what needs no answer, and with an error the id to answer under.
func parse(line []byte) (*request, any, *refusal) {
	value, err := decode(line)
	if err != nil {
		return nil, nil, &refusal{parseError, "INVALID_ARGUMENT", "the line is not JSON in UTF-8", ""}
	}
	bad := &refusal{invalidRequest, "INVALID_ARGUMENT", "the line is not a JSON-RPC 2.0 request", ""}
	message, ok := value.(map[string]any)
	if !ok {
		return nil, nil, bad
	}
	id, hasID := message["id"]
	if hasID && !legalID(id) {
		return nil, nil, bad
	}
	method, hasMethod := message["method"]
	if hasID && !hasMethod {
		return nil, nil, nil // a response, and nobody was asked anything
	}
	name, isText := method.(string)
	params, isObject := message["params"].(map[string]any)
	if _, given := message["params"]; !given {
		params, isObject = map[string]any{}, true
	}
	if message["jsonrpc"] != "2.0" || !isText || !isObject {
		return nil, id, bad
	}
	if !hasID {
		return nil, nil, nil
	}
	return &request{id, name, params}, id, nil
}

// decode reads JSON. Numbers stay as they were written, so that an id comes back as it was.
func decode(line []byte) (any, error) {
	if !utf8.Valid(line) { // the decoder would replace what is not UTF-8, and say nothing
		return nil, errors.New("not UTF-8")
	}
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, errors.New("more than one value")
	}
	return value, nil
}

func legalID(id any) bool {
	switch id := id.(type) {
	case string:
		return utf8.RuneCountInString(id) <= 128
	case json.Number:
		_, ok := integer(id)
		return ok
	}
	return false
}

// integer returns a number that is an integer within 2^53 - 1.
func integer(value any) (int64, bool) {
	number, ok := value.(json.Number)
	if !ok {
		return 0, false
	}
	found, err := strconv.ParseInt(number.String(), 10, 64)
	return found, err == nil && found <= largestInteger && found >= -largestInteger
}

// response returns the line of an answer. One that would be longer than the limit is replaced (SPEC.md 2.4-5).
func response(id any, result any, refused *refusal, limit int) []byte {
	message := map[string]any{"jsonrpc": "2.0", "id": id}
	if refused == nil {
		message["result"] = result
	} else {
		data := map[string]any{"code": refused.code}
		if refused.path != "" {
			data["path"] = refused.path
		}
		message["error"] = map[string]any{"code": refused.number, "message": refused.message, "data": data}
	}
	line, err := json.Marshal(message)
	if err != nil {
		return response(id, nil, &refusal{internalError, "INTERNAL_ERROR", "the driver failed", ""}, limit)
	}
	if len(line) > limit {
		return response(id, nil, refuse("LIMIT_EXCEEDED", "the answer would be longer than a line may be"), limit)
	}
	return append(line, '\n')
}
