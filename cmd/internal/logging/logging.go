// Package logging makes the programs' logger: hclog with the levels trace, debug, info, warn, error and fatal, as text or
// JSON, and a slog.Handler over it for libraries that speak slog. Nothing here is global.
package logging

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// Level is from when on something is logged. Fatal logs only what ends the program.
type Level int

// The levels, from all to next to nothing.
const (
	Trace Level = iota
	Debug
	Info
	Warn
	Error
	Fatal
)

func names() []string { return []string{"trace", "debug", "info", "warn", "error", "fatal"} }

// ParseLevel reads a level's name, in any case.
func ParseLevel(s string) (Level, error) {
	for i, n := range names() {
		if strings.EqualFold(strings.TrimSpace(s), n) {
			return Level(i), nil
		}
	}
	return 0, fmt.Errorf("%q is not a log level; there are %s", s, strings.Join(names(), ", "))
}

// Valid says whether l is one of the levels.
func (l Level) Valid() bool { return l >= Trace && l <= Fatal }

// String is the level's name.
func (l Level) String() string {
	if !l.Valid() {
		return fmt.Sprintf("level(%d)", int(l))
	}
	return names()[l]
}

// Set makes Level a flag value.
func (l *Level) Set(s string) error {
	v, err := ParseLevel(s)
	if err == nil {
		*l = v
	}
	return err
}

// Type makes Level a flag value.
func (l *Level) Type() string { return "level" }

// UnmarshalText makes Level a TOML value.
func (l *Level) UnmarshalText(text []byte) error { return l.Set(string(text)) }

// MarshalText writes what UnmarshalText reads.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

func (l Level) hclog() hclog.Level {
	switch l {
	case Trace:
		return hclog.Trace
	case Debug:
		return hclog.Debug
	case Info:
		return hclog.Info
	case Warn:
		return hclog.Warn
	case Error:
		return hclog.Error
	default:
		return hclog.Off
	}
}

// Options says how a Logger writes.
type Options struct {
	Name   string
	Level  Level
	JSON   bool
	Output io.Writer
	// Color colours the levels of the text form.
	Color bool
}

// Logger is an hclog.Logger that also knows Fatal, which every level lets through. Safe for concurrent use.
type Logger struct {
	hclog.Logger
	fatal hclog.Logger
}

// New makes a Logger.
func New(o Options) *Logger {
	color := hclog.ColorOff
	if o.Color && !o.JSON {
		color = hclog.ForceColor
	}
	opts := func(w io.Writer, level hclog.Level) *hclog.LoggerOptions {
		return &hclog.LoggerOptions{Name: o.Name, Level: level, Output: w, JSONFormat: o.JSON, Color: color, TimeFormat: "2006-01-02T15:04:05.000Z0700"}
	}
	return &Logger{
		Logger: hclog.New(opts(o.Output, o.Level.hclog())),
		fatal:  hclog.New(opts(fatalWriter{o.Output}, hclog.Error)),
	}
}

// Fatal logs what the program is about to end with, whatever the level. It doesn't end it.
func (l *Logger) Fatal(msg string, args ...any) { l.fatal.Error(msg, args...) }

// fatalWriter renames the level of a line, since hclog knows none above error.
type fatalWriter struct{ w io.Writer }

func (f fatalWriter) Write(p []byte) (int, error) {
	q := bytes.Replace(p, []byte("[ERROR]"), []byte("[FATAL]"), 1)
	q = bytes.Replace(q, []byte(`"@level":"error"`), []byte(`"@level":"fatal"`), 1)
	if _, err := f.w.Write(q); err != nil {
		return 0, err
	}
	return len(p), nil
}
