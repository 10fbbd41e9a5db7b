// Package units reads and writes the quantities of flags, config files and listings: bytes, durations, ages.
//
// It owns the spelling and nothing else: what a quantity may be is the business of who uses it.
package units

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Bytes is a number of bytes that is written "512MiB", "64KiB" or "1000"; it is a flag value and a TOML value.
type Bytes uint64

// The binary units, from large to small so that formatting picks the largest that fits.
func suffixes() []struct {
	name string
	size uint64
} {
	return []struct {
		name string
		size uint64
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}
}

// ParseBytes reads "64", "64B", "64KiB" or "64K" (also M, G, T; always binary), with a fraction if need be.
func ParseBytes(s string) (Bytes, error) {
	t := strings.TrimSpace(s)
	unit := uint64(1)
	upper := strings.ToUpper(t)
	for _, x := range suffixes() {
		for _, form := range []string{strings.ToUpper(x.name), x.name[:1] + "B", x.name[:1]} {
			if strings.HasSuffix(upper, form) {
				unit, t = x.size, t[:len(t)-len(form)]
				break
			}
		}
		if unit != 1 {
			break
		}
	}
	if unit == 1 && strings.HasSuffix(upper, "B") {
		t = t[:len(t)-1]
	}
	t = strings.TrimSpace(t)
	if n, err := strconv.ParseUint(t, 10, 64); err == nil {
		if n > math.MaxUint64/unit {
			return 0, fmt.Errorf("%q is more than 16 EiB", s)
		}
		return Bytes(n * unit), nil
	}
	f, err := strconv.ParseFloat(t, 64)
	if err != nil || f < 0 || math.IsNaN(f) || f*float64(unit) >= math.MaxUint64 {
		return 0, fmt.Errorf("%q is not a number of bytes such as 4096, 64KiB or 1.5GiB", s)
	}
	return Bytes(f * float64(unit)), nil
}

// String is exact: the largest unit of which b is a multiple.
func (b Bytes) String() string {
	for _, x := range suffixes() {
		if b != 0 && uint64(b)%x.size == 0 {
			return strconv.FormatUint(uint64(b)/x.size, 10) + x.name
		}
	}
	return strconv.FormatUint(uint64(b), 10)
}

// Set makes Bytes a flag value.
func (b *Bytes) Set(s string) error {
	v, err := ParseBytes(s)
	if err == nil {
		*b = v
	}
	return err
}

// Type makes Bytes a flag value.
func (b *Bytes) Type() string { return "bytes" }

// UnmarshalText makes Bytes a TOML value.
func (b *Bytes) UnmarshalText(text []byte) error { return b.Set(string(text)) }

// MarshalText writes what UnmarshalText reads.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// HumanBytes is short and rounded, for tables: "984 B", "1.5 MiB".
func HumanBytes(n uint64) string {
	for _, x := range suffixes() {
		if n >= x.size {
			v := float64(n) / float64(x.size)
			if v >= 100 {
				return fmt.Sprintf("%.0f %s", v, x.name)
			}
			return fmt.Sprintf("%.1f %s", v, x.name)
		}
	}
	return strconv.FormatUint(n, 10) + " B"
}

// Duration is a time.Duration that is written "15s"; a number without a unit is refused, never taken for nanoseconds.
type Duration time.Duration

// String is as time.Duration's.
func (d Duration) String() string { return time.Duration(d).String() }

// Set makes Duration a flag value.
func (d *Duration) Set(s string) error {
	v, err := time.ParseDuration(strings.TrimSpace(s))
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 500ms, 15s or 2m", s)
	}
	*d = Duration(v)
	return nil
}

// Type makes Duration a flag value.
func (d *Duration) Type() string { return "duration" }

// UnmarshalText makes Duration a TOML value.
func (d *Duration) UnmarshalText(text []byte) error { return d.Set(string(text)) }

// MarshalText writes what UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// HumanAge is a duration for tables, at most two units: "350ms", "12s", "3m4s", "2h5m", "3d4h".
func HumanAge(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
	}
}

// HumanCount groups the digits of n by threes: 11478 is "11,478".
func HumanCount(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
