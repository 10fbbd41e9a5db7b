package ctl

import (
	"encoding/json"
	"io"
	"unicode/utf8"

	"github.com/bhome-bus/bhome/shmio"
)

// writeJSON writes v on one line.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// payloadJSON is a payload in JSON: as text where it is UTF-8, else in base64. Exactly one of the two is set, by which a
// reader tells them apart.
type payloadJSON struct {
	Text   *string `json:"payload,omitempty"`
	Base64 []byte  `json:"payload_base64,omitempty"`
}

func payloadOf(b []byte) payloadJSON {
	if utf8.Valid(b) {
		s := string(b)
		return payloadJSON{Text: &s}
	}
	return payloadJSON{Base64: append([]byte(nil), b...)}
}

// waitFlag is a wait strategy as a flag.
type waitFlag struct{ shmio.WaitStrategy }

func (w *waitFlag) Type() string { return "strategy" }

func (w *waitFlag) Set(s string) error {
	if s == "spin" {
		w.WaitStrategy = shmio.BusySpin
		return nil
	}
	v, err := shmio.ParseWaitStrategy(s)
	if err == nil {
		w.WaitStrategy = v
	}
	return err
}
