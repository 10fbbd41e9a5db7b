// Package latency records how long things took, in nanoseconds, and carries the record between processes.
package latency

import (
	"encoding/base64"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// The range of what is told apart, at three significant digits: 20 ns to 10 minutes. What is beyond is taken for the edge.
const (
	lowest  = 1
	highest = int64(10 * time.Minute)
)

// Recorder is a histogram. Not for concurrent use. The zero value is not usable; see New.
type Recorder struct{ h *hdrhistogram.Histogram }

// New makes an empty Recorder.
func New() *Recorder { return &Recorder{hdrhistogram.New(lowest, highest, 3)} }

// Record adds one duration in ns.
func (r *Recorder) Record(ns int64) {
	_ = r.h.RecordValue(min(max(ns, lowest), highest)) // within its range, it can't be refused
}

// Count is how many were recorded.
func (r *Recorder) Count() int64 { return r.h.TotalCount() }

// Merge adds what another recorded.
func (r *Recorder) Merge(o *Recorder) { r.h.Merge(o.h) }

// MarshalText is for carrying the record to another process.
func (r *Recorder) MarshalText() ([]byte, error) {
	b, err := r.h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		return nil, fmt.Errorf("encode a histogram: %w", err)
	}
	return b, nil
}

// UnmarshalText reads what MarshalText wrote.
func (r *Recorder) UnmarshalText(b []byte) error {
	if _, err := base64.StdEncoding.DecodeString(string(b)); err != nil {
		return fmt.Errorf("decode a histogram: %w", err)
	}
	h, err := hdrhistogram.Decode(b)
	if err != nil {
		return fmt.Errorf("decode a histogram: %w", err)
	}
	r.h = h
	return nil
}

// Percentiles are nanoseconds.
type Percentiles struct {
	P50  int64 `json:"p50"`
	P90  int64 `json:"p90"`
	P99  int64 `json:"p99"`
	P999 int64 `json:"p99.9"`
	Max  int64 `json:"max"`
}

// Percentiles of what was recorded; all 0 if nothing was.
func (r *Recorder) Percentiles() Percentiles {
	at := func(q float64) int64 { return r.h.ValueAtQuantile(q) }
	return Percentiles{at(50), at(90), at(99), at(99.9), r.h.Max()}
}

// String is for people: "p50 1.2µs, p90 …".
func (p Percentiles) String() string {
	d := func(ns int64) time.Duration {
		v := time.Duration(ns)
		switch {
		case v >= time.Second:
			return v.Round(10 * time.Millisecond)
		case v >= time.Millisecond:
			return v.Round(10 * time.Microsecond)
		case v >= 10*time.Microsecond:
			return v.Round(100 * time.Nanosecond)
		}
		return v
	}
	return fmt.Sprintf("p50 %v, p90 %v, p99 %v, p99.9 %v, max %v", d(p.P50), d(p.P90), d(p.P99), d(p.P999), d(p.Max))
}
