package metadata

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ParseCookie reads a cookie of layout version 3, four lines, or later, the
// layout version and CookieFormat as text (Cookie.java). ErrCorrupt.
func ParseCookie(id BookieID, data []byte) (Cookie, error) {
	first, rest, _ := strings.Cut(string(data), "\n")
	layout, err := strconv.Atoi(strings.TrimSpace(first))
	var c Cookie
	switch {
	case err != nil:
		err = fmt.Errorf("layout version %.20q", first)
	case layout < 3:
		err = fmt.Errorf("layout version %d is too old", layout)
	case layout == 3:
		c.BookieHost, _, _ = strings.Cut(rest, "\n")
	default:
		err = eachTextField(rest, func(name, value string) error {
			switch name {
			case "bookieHost":
				c.BookieHost = value
			case "instanceId":
				c.InstanceID = value
			}
			return nil
		})
	}
	if err == nil && c.BookieHost == "" {
		err = errors.New("it names no bookie")
	}
	if err != nil {
		return Cookie{}, fmt.Errorf("cookie of bookie %s: %w: %w", id, ErrCorrupt, err)
	}
	return c, nil
}

// ParseMark reads UnderreplicatedLedgerFormat as text. ErrCorrupt.
func ParseMark(id int64, data []byte) (Mark, error) {
	m := Mark{Ledger: id}
	err := eachTextField(string(data), func(name, value string) (err error) {
		switch name {
		case "replica":
			m.Missing = append(m.Missing, BookieID(value))
		case "ctime":
			m.CreatedMS, err = strconv.ParseInt(value, 10, 64)
		}
		return err
	})
	if err != nil {
		return Mark{}, fmt.Errorf("mark of under-replicated ledger %d: %w: %w", id, ErrCorrupt, err)
	}
	return m, nil
}

// AppendMark writes what ParseMark reads, as BookKeeper's auditor does.
func AppendMark(dst []byte, m Mark) []byte {
	for _, b := range m.Missing {
		dst = fmt.Appendf(dst, "replica: %q\n", string(b))
	}
	if m.CreatedMS != 0 {
		dst = fmt.Appendf(dst, "ctime: %d\n", m.CreatedMS)
	}
	return dst
}

// Add adds bookies to the mark and says whether any is new.
func (m *Mark) Add(missing []BookieID) bool {
	added := false
	for _, b := range missing {
		if !slices.Contains(m.Missing, b) {
			m.Missing, added = append(m.Missing, b), true
		}
	}
	return added
}

// eachTextField calls f with the fields of a message in protobuf's text format,
// strings without their quotes. Messages in messages are not read: none of ours
// has any.
func eachTextField(text string, f func(name, value string) error) error {
	const space = " \t\r\n,;"
	for {
		text = strings.TrimLeft(text, space)
		if text == "" {
			return nil
		}
		name, rest, ok := strings.Cut(text, ":")
		if name = strings.TrimSpace(name); !ok || name == "" || strings.ContainsAny(name, space+"\"'{}<>") {
			return fmt.Errorf("%.40q is no field", text)
		}
		rest = strings.TrimLeft(rest, " \t\r\n")
		var value string
		if rest != "" && (rest[0] == '"' || rest[0] == '\'') {
			var err error
			if value, rest, err = unquote(rest); err != nil {
				return fmt.Errorf("field %s: %w", name, err)
			}
		} else {
			end := strings.IndexAny(rest, space)
			if end < 0 {
				end = len(rest)
			}
			value, rest = rest[:end], rest[end:]
			if value == "" || strings.ContainsAny(value, "\"'{}<>:") {
				return fmt.Errorf("field %s has no value", name)
			}
		}
		if err := f(name, value); err != nil {
			return fmt.Errorf("field %s: %w", name, err)
		}
		text = rest
	}
}

// unquote reads a string in quotes and returns what follows it. Of the escapes
// it knows those that protobuf writes: C's, octal ones with three digits.
func unquote(text string) (value, rest string, err error) {
	quote := text[0]
	var b []byte
	for text = text[1:]; text != "" && text[0] != quote && text[0] != '\n'; {
		if text[0] != '\\' {
			b, text = append(b, text[0]), text[1:]
			continue
		}
		if len(text) > 1 && strings.IndexByte("'\"?", text[1]) >= 0 {
			b, text = append(b, text[1]), text[2:]
			continue
		}
		r, _, tail, err := strconv.UnquoteChar(text, quote)
		if err != nil {
			return "", "", fmt.Errorf("escape %.8q", text)
		}
		if text[1] == 'u' || text[1] == 'U' {
			b = utf8.AppendRune(b, r)
		} else {
			// A byte, which need not be UTF-8 by itself.
			b = append(b, byte(r))
		}
		text = tail
	}
	if text == "" || text[0] != quote {
		return "", "", errors.New("a string does not end")
	}
	return string(b), text[1:], nil
}
