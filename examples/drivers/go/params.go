package main

import (
	"encoding/base64"
	"unicode/utf8"
)

// params reads the members of a request. The first that does not fit is kept, and the rest reads as nothing.
type params struct {
	members map[string]any
	refused *refusal
}

// get returns a member; nothing for null, which stands for absence (SPEC.md 1.2-1).
func (p *params) get(name string) (any, bool) {
	value := p.members[name]
	return value, value != nil
}

// failure returns the first member that did not fit, as an error; nil where all did.
func (p *params) failure() error {
	if p.refused == nil {
		return nil
	}
	return p.refused
}

func (p *params) fail(refused *refusal) {
	if p.refused == nil {
		p.refused = refused
	}
}

// text returns a member of 1 to most characters; "" where it is absent and may be.
func (p *params) text(name string, most int, required bool) string {
	value, given := p.get(name)
	if !given && !required {
		return ""
	}
	text, ok := value.(string)
	if !ok || text == "" || utf8.RuneCountInString(text) > most {
		p.fail(malformed(name))
	}
	return text
}

// bytes returns a byte string, decoded strictly: one byte string has one text (SPEC.md 2.6).
func (p *params) bytes(name string, required bool) []byte {
	value, given := p.get(name)
	if !given && !required {
		return nil
	}
	text, ok := value.(string)
	data, err := base64.StdEncoding.Strict().DecodeString(text)
	// The decoder skips newlines; what it read has to be what was written.
	if !ok || err != nil || base64.StdEncoding.EncodeToString(data) != text {
		p.fail(malformed(name))
	}
	return data
}

func (p *params) number(name string, least, most, absent int64) int64 {
	value, given := p.get(name)
	if !given && absent >= least {
		return absent
	}
	number, ok := integer(value)
	if !ok || number < least || number > most {
		p.fail(malformed(name))
	}
	return number
}

func (p *params) flag(name string, absent bool) bool {
	value, given := p.get(name)
	if !given {
		return absent
	}
	flag, ok := value.(bool)
	if !ok {
		p.fail(malformed(name))
	}
	return flag
}

// texts returns a map of strings of at most most members.
func (p *params) texts(name string, most int) map[string]string {
	found := map[string]string{}
	value, given := p.get(name)
	if !given {
		return found
	}
	members, ok := value.(map[string]any)
	if !ok || len(members) > most {
		p.fail(malformed(name))
		return found
	}
	for member, inner := range members {
		text, ok := inner.(string)
		if !ok {
			p.fail(malformed(name))
		}
		found[member] = text
	}
	return found
}

// only refuses a member that is given and has another value: it is never ignored (SPEC.md 4.1-2).
func (p *params) only(name string, values ...any) {
	value, given := p.get(name)
	if !given {
		return
	}
	for _, one := range values {
		if value == one {
			return
		}
	}
	switch value.(type) {
	case string, bool:
		p.fail(&refusal{keystoreError, "UNSUPPORTED_OPERATION", "this driver has no such " + name, name})
	default:
		p.fail(malformed(name))
	}
}
