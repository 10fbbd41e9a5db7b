package latency

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestPercentilesSurviveTheJourney(t *testing.T) {
	a, b := New(), New()
	for i := int64(1); i <= 1000; i++ {
		a.Record(i * 1000)
	}
	b.Record(-5)      // a clock that stepped back
	b.Record(1 << 62) // beyond the range
	raw, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	back := New()
	if err := json.Unmarshal(raw, back); err != nil {
		t.Fatal(err)
	}
	if back.Count() != 1000 || back.Percentiles() != a.Percentiles() {
		t.Errorf("%d, %v; want %v", back.Count(), back.Percentiles(), a.Percentiles())
	}
	for got, want := range map[int64]int64{back.Percentiles().P50: 500_000, back.Percentiles().P99: 990_000, back.Percentiles().Max: 1_000_000} {
		if d := got - want; d < 0 || d > want/500 {
			t.Errorf("%d, want %d", got, want)
		}
	}
	back.Merge(b)
	if back.Count() != 1002 || back.Percentiles().Max < highest {
		t.Errorf("merged: %d, %v", back.Count(), back.Percentiles())
	}
	if (New().Percentiles() != Percentiles{}) {
		t.Errorf("empty: %v", New().Percentiles())
	}
	if err := json.Unmarshal([]byte(`"rubbish"`), New()); err == nil {
		t.Error("rubbish was read")
	}
	if s := (Percentiles{P50: 1234, P99: 1_234_567}).String(); !strings.Contains(s, "p50 1.234µs") || !strings.Contains(s, "p99 1.23ms") {
		t.Error(s)
	}
}
