package logging

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/slogtest"
	"time"

	"github.com/hashicorp/go-hclog"
)

func TestParseLevel(t *testing.T) {
	for i, n := range names() {
		if l, err := ParseLevel(strings.ToUpper(n)); err != nil || l != Level(i) {
			t.Errorf("ParseLevel(%q) = %v, %v", n, l, err)
		}
	}
	if _, err := ParseLevel("verbose"); err == nil || !strings.Contains(err.Error(), "trace, debug") {
		t.Errorf("unknown level: %v, want the levels named", err)
	}
}

func TestLevelsLetThrough(t *testing.T) {
	for _, level := range []Level{Trace, Debug, Info, Warn, Error, Fatal} {
		for _, asJSON := range []bool{false, true} {
			var buf bytes.Buffer
			l := New(Options{Name: "bhomed", Level: level, JSON: asJSON, Output: &buf})
			l.Trace("m-trace")
			l.Debug("m-debug")
			l.Info("m-info")
			l.Warn("m-warn")
			l.Error("m-error")
			l.Fatal("m-fatal", "k", "v")
			for i, n := range names() {
				if got, want := strings.Contains(buf.String(), "m-"+n), Level(i) >= level; got != want {
					t.Errorf("level %v json=%v: %s logged: %v, want %v", level, asJSON, n, got, want)
				}
			}
			if want := "[FATAL] bhomed: m-fatal: k=v"; !asJSON && !strings.Contains(buf.String(), want) {
				t.Errorf("text: %q lacks %q", buf.String(), want)
			}
			if want := `"@level":"fatal"`; asJSON && !strings.Contains(buf.String(), want) {
				t.Errorf("json: %q lacks %q", buf.String(), want)
			}
		}
	}
}

func TestSlogHandlerContract(t *testing.T) {
	var buf bytes.Buffer
	h := NewHandler(hclog.New(&hclog.LoggerOptions{Output: &buf, JSONFormat: true, Level: hclog.Trace}))
	err := slogtest.TestHandler(h, func() []map[string]any {
		var all []map[string]any
		for line := range strings.Lines(buf.String()) {
			flat := map[string]any{}
			if err := json.Unmarshal([]byte(line), &flat); err != nil {
				t.Fatal(err)
			}
			m := map[string]any{}
			for k, v := range flat {
				switch k {
				case "@message":
					m[slog.MessageKey] = v
				case "@level":
					m[slog.LevelKey] = v
				case "@timestamp":
					m[slog.TimeKey] = v
				default: // dotted prefixes are groups
					at := m
					parts := strings.Split(k, ".")
					for _, p := range parts[:len(parts)-1] {
						next, ok := at[p].(map[string]any)
						if !ok {
							next = map[string]any{}
							at[p] = next
						}
						at = next
					}
					at[parts[len(parts)-1]] = v
				}
			}
			all = append(all, m)
		}
		return all
	})
	if err == nil {
		return
	}
	// hclog stamps the time itself, also where a record has none: the one rule of slog that can't be kept.
	for _, line := range strings.Split(err.Error(), "\n") {
		if !strings.Contains(line, "time") && !strings.Contains(line, "slogtest") {
			t.Errorf("%s", line)
		}
	}
}

func TestSlogHandlerValues(t *testing.T) {
	var buf bytes.Buffer
	log := Slog(New(Options{Level: Debug, Output: &buf}))
	log.Log(t.Context(), slog.LevelDebug-4, "too low")
	log.With("node", "cam").WithGroup("link").Warn("cut", "err", errors.New("bad word"), "after", 1500*time.Millisecond)
	want := `[WARN]  cut: node=cam link.err="bad word" link.after=1.5s`
	if got := buf.String(); !strings.Contains(got, want) || strings.Contains(got, "too low") {
		t.Errorf("got %q, want %q", got, want)
	}
}
