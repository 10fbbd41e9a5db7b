package units

import (
	"testing"
	"time"
)

func TestParseBytes(t *testing.T) {
	for in, want := range map[string]Bytes{
		"0": 0, "1": 1, "64B": 64, "64KiB": 64 << 10, "64k": 64 << 10, "64 KB": 64 << 10, "1.5GiB": 3 << 29, "2T": 2 << 40,
		"18446744073709551615": 1<<64 - 1,
	} {
		if got, err := ParseBytes(in); err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "x", "-1", "1PiB!", "KiB", "16777216TiB", "NaN", "1e40", "99999999999999999999"} {
		if got, err := ParseBytes(in); err == nil {
			t.Errorf("ParseBytes(%q) = %d, want an error", in, got)
		}
	}
}

func TestBytesRoundTrip(t *testing.T) {
	for _, b := range []Bytes{0, 1, 1023, 1024, 1025, 32 << 20, 3 << 29, 5 << 40, 1<<64 - 1} {
		if got, err := ParseBytes(b.String()); err != nil || got != b {
			t.Errorf("%d: %q read back is %d, %v", b, b.String(), got, err)
		}
	}
}

func TestDurationNeedsUnit(t *testing.T) {
	var d Duration
	if err := d.Set("15"); err == nil {
		t.Error("15 without a unit was accepted")
	}
	if err := d.Set("15s"); err != nil || time.Duration(d) != 15*time.Second {
		t.Errorf("15s: %v, %v", d, err)
	}
}

func TestHuman(t *testing.T) {
	for in, want := range map[uint64]string{0: "0 B", 984: "984 B", 1536: "1.5 KiB", 200 << 20: "200 MiB"} {
		if got := HumanBytes(in); got != want {
			t.Errorf("HumanBytes(%d) = %q, want %q", in, got, want)
		}
	}
	for in, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 11478: "11,478", 1234567: "1,234,567"} {
		if got := HumanCount(in); got != want {
			t.Errorf("HumanCount(%d) = %q, want %q", in, got, want)
		}
	}
	for in, want := range map[time.Duration]string{
		-1: "0s", 350 * time.Millisecond: "350ms", 12 * time.Second: "12s", 184 * time.Second: "3m4s",
		125 * time.Minute: "2h5m", 76 * time.Hour: "3d4h",
	} {
		if got := HumanAge(in); got != want {
			t.Errorf("HumanAge(%v) = %q, want %q", in, got, want)
		}
	}
}
