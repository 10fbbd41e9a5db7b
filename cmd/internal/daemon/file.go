package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"

	"github.com/BurntSushi/toml"
)

// ErrUnknownKey is what a file with keys that nobody reads is refused with.
var ErrUnknownKey = errors.New("unknown key")

// UnknownKeyError names a key that bhomed doesn't know, where it stands, and what was probably meant.
type UnknownKeyError struct {
	File    string
	Line    int // from 1; 0 if it can't be told
	Key     string
	Nearest string // a known key, or ""
}

func (e *UnknownKeyError) Error() string {
	at := e.File
	if e.Line > 0 {
		at = fmt.Sprintf("%s:%d", e.File, e.Line)
	}
	s := fmt.Sprintf("%s: unknown key %q", at, e.Key)
	if e.Nearest != "" {
		s += fmt.Sprintf("; did you mean %q?", e.Nearest)
	}
	return s
}

// Is makes errors.Is(err, ErrUnknownKey) true.
func (e *UnknownKeyError) Is(target error) bool { return target == ErrUnknownKey }

// Load reads the TOML file over c. What the file doesn't say stays as it is. An unknown key is an error that names file,
// line, key and the nearest known key; nothing is applied then.
func Load(path string, c *Config) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, data, c)
}

// Parse is Load for text already read; path is for messages.
func Parse(path string, data []byte, c *Config) error {
	loaded := *c
	md, err := toml.NewDecoder(bytes.NewReader(data)).Decode(&loaded)
	if err != nil {
		return fmt.Errorf("%s%w", path, parseError{err})
	}
	known := append(Keys(), keysOf(reflect.TypeFor[Rule](), "access.rule.")...)
	for _, k := range known {
		if table, _, ok := strings.Cut(k, "."); ok {
			known = append(known, table)
		}
	}
	var errs []error
	for _, key := range topmost(md.Undecoded()) {
		name := key.String()
		errs = append(errs, &UnknownKeyError{File: path, Line: lineOf(data, key), Key: name, Nearest: nearest(name, known)})
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if len(loaded.Access.Rules) == 0 {
		loaded.Access.Rules = nil
	}
	loaded.at = map[string]string{}
	for _, key := range md.Keys() {
		if line := lineOf(data, key); line > 0 {
			loaded.at[key.String()] = fmt.Sprintf("%s:%d", path, line)
		} else {
			loaded.at[key.String()] = path
		}
	}
	lines := ruleLines(data)
	for i := range loaded.Access.Rules {
		loaded.Access.Rules[i].at = path
		if i < len(lines) {
			loaded.Access.Rules[i].at = fmt.Sprintf("%s:%d", path, lines[i])
		}
	}
	*c = loaded
	return nil
}

// ruleLines finds the lines on which the access rules begin.
func ruleLines(data []byte) (lines []int) {
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		if head, _, _ := strings.Cut(line, "#"); strings.Join(strings.Fields(head), "") == "[[access.rule]]" {
			lines = append(lines, n)
		}
	}
	return lines
}

// parseError is the parser's error with the line first, as an editor wants it: ":12: key: what".
type parseError struct{ err error }

func (e parseError) Unwrap() error { return e.err }

func (e parseError) Error() string {
	line, key, what := 0, "", strings.TrimPrefix(e.err.Error(), "toml: ")
	if pe := (toml.ParseError{}); errors.As(e.err, &pe) {
		line, key = pe.Position.Line, pe.LastKey
		if pe.Message != "" {
			what = pe.Message
		}
	} else if head, rest, ok := strings.Cut(what, "): "); ok { // a value of another type: the position is in the text alone
		if _, err := fmt.Sscanf(head, "line %d (last key %q", &line, &key); err == nil {
			what = rest
		}
	}
	if value, destination, ok := strings.Cut(strings.TrimPrefix(what, "incompatible types: TOML value has type "), "; destination has type "); ok {
		what = fmt.Sprintf("%s, must be %s", tomlType(value), wantedType(destination))
	}
	if key != "" {
		what = key + ": " + what
	}
	if line == 0 {
		return ": " + what
	}
	return fmt.Sprintf(":%d: %s", line, what)
}

// tomlType and wantedType say in words what the parser calls by the names of its own language.
func tomlType(t string) string {
	switch t {
	case "int64", "float64":
		return "a number"
	case "string":
		return "text"
	case "bool":
		return "true or false"
	case "slice", "[]interface {}", "[]any":
		return "a list"
	}
	return "a value of another kind"
}

func wantedType(t string) string {
	switch t {
	case "string":
		return `text in quotes, as in "1000"`
	case "slice":
		return `a list, as in ["alice", "@ops"]`
	case "boolean", "bool":
		return "true or false"
	case "integer", "int":
		return "a whole number without quotes"
	}
	return t
}

// topmost drops keys below another unknown key: an unknown table is reported once.
func topmost(keys []toml.Key) []toml.Key {
	unknown := make(map[string]bool, len(keys))
	for _, k := range keys {
		unknown[k.String()] = true
	}
	var out []toml.Key
next:
	for _, k := range keys {
		for i := 1; i < len(k); i++ {
			if unknown[k[:i].String()] {
				continue next
			}
		}
		out = append(out, k)
	}
	return out
}

// Keys lists every key of the file, dotted.
func Keys() []string { return keysOf(reflect.TypeFor[Config](), "") }

func keysOf(t reflect.Type, prefix string) (keys []string) {
	for f := range t.Fields() {
		tag, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		if tag == "" {
			continue // not the file's
		}
		name := prefix + tag
		if f.Type.Kind() == reflect.Struct {
			keys = append(keys, keysOf(f.Type, name+".")...)
			continue
		}
		keys = append(keys, name)
	}
	return keys
}

// lineOf finds the line on which key stands: the parser knows, but doesn't tell. It understands tables, dotted keys and
// quotes; a key inside an inline table gets that table's line.
func lineOf(data []byte, key toml.Key) int {
	unquote := func(s string) string {
		parts := strings.Split(s, ".")
		for i, p := range parts {
			parts[i] = strings.Trim(strings.TrimSpace(p), `"'`)
		}
		return strings.Join(parts, ".")
	}
	want := strings.Join(key, ".")
	table, best := "", 0
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimSpace(line)
		at := ""
		if strings.HasPrefix(line, "[") {
			table = unquote(strings.Trim(strings.SplitN(line, "]", 2)[0], "["))
			at = table
		} else if k, _, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			at = unquote(k)
			if table != "" {
				at = table + "." + at
			}
		}
		if at == want {
			return n
		}
		if best == 0 && at != "" && (strings.HasPrefix(at, want+".") || strings.HasPrefix(want, at+".")) && !strings.HasPrefix(line, "[") {
			best = n
		}
	}
	return best
}

// nearest is the known key that name was probably meant to be; "" if none is near. A right last part in the wrong table
// is near too.
func nearest(name string, known []string) string {
	best, bestAt := "", 1+max(2, len(name)/3)
	last := name[strings.LastIndexByte(name, '.')+1:]
	for _, k := range known {
		d := distance(strings.ToLower(name), k)
		if kl := k[strings.LastIndexByte(k, '.')+1:]; kl == strings.ToLower(last) {
			d = min(d, 1)
		}
		if d < bestAt {
			best, bestAt = k, d
		}
	}
	return best
}

// distance is Levenshtein's, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
