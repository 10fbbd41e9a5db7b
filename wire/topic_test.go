package wire

import (
	"errors"
	"strings"
	"testing"
)

func TestValidateTopic(t *testing.T) {
	for _, s := range []string{"a", "a.b", "a.b.c", "*a", "a*.b>", "größe.温度", " ", "a/b", strings.Repeat("x", 255)} {
		if err := ValidateTopic(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"", ".", "a.", ".a", "a..b", "*", ">", "a.*", "a.>", "*.a", ">.a", "a\x00b", "a\xff", "\xc3",
		strings.Repeat("x", 256), strings.Repeat("ß", 128), strings.Repeat("\xff", 300)} {
		if err := ValidateTopic(s); !errors.Is(err, ErrBadTopic) {
			t.Errorf("%q: %v, want ErrBadTopic", s, err)
		}
	}
}

func TestValidatePattern(t *testing.T) {
	for _, s := range []string{"a", "a.b", "a.", "a.>", ">", "*", "*.*", "a.*.c", "*.", "*.>", "a.*.", strings.Repeat("x", 254) + "."} {
		if err := ValidatePattern(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"", ".", "..", ".a", "a..", "a..b", ">.", ">.a", "a.>.", "a.>.b", "a\x00", "\xff", strings.Repeat("x", 256)} {
		if err := ValidatePattern(s); !errors.Is(err, ErrBadTopic) {
			t.Errorf("%q: %v, want ErrBadTopic", s, err)
		}
	}
}

func TestMatchTopic(t *testing.T) {
	for _, c := range []struct {
		pattern string
		match   []string
		not     []string
	}{
		{"a", []string{"a"}, []string{"b", "a.b", "aa", "A"}},
		{"a.b", []string{"a.b"}, []string{"a", "a.b.c", "a.c", "ab"}},
		{"a.", []string{"a.b", "a.b.c"}, []string{"a", "b.a", "ab", "ab.c"}},
		{"a.>", []string{"a.b", "a.b.c"}, []string{"a", "b.a", "ab.c"}},
		{">", []string{"a", "a.b", "a.b.c"}, nil},
		{"*", []string{"a", "xyz"}, []string{"a.b"}},
		{"*.b", []string{"a.b", "b.b"}, []string{"b", "a.c", "a.b.c"}},
		{"a.*", []string{"a.b", "a.c"}, []string{"a", "a.b.c", "b.b"}},
		{"a.*.c", []string{"a.b.c"}, []string{"a.c", "a.b.d", "a.b.c.d"}},
		{"*.", []string{"a.b", "a.b.c"}, []string{"a"}},
		{"*.*.>", []string{"a.b.c", "a.b.c.d"}, []string{"a.b", "a"}},
		{"a*", []string{"a*"}, []string{"ab"}}, // a star within a token is itself
	} {
		if err := ValidatePattern(c.pattern); err != nil {
			t.Error(err)
		}
		for _, s := range c.match {
			if !MatchTopic(c.pattern, s) {
				t.Errorf("%q doesn't match %q", c.pattern, s)
			}
		}
		for _, s := range c.not {
			if MatchTopic(c.pattern, s) {
				t.Errorf("%q matches %q", c.pattern, s)
			}
		}
	}
}

// TestPatterns compares what two patterns have in common with all short topics: each pair of patterns of up to three tokens.
func TestPatterns(t *testing.T) {
	var topics, patterns []string
	var grow func(prefix string, depth int)
	grow = func(prefix string, depth int) {
		for _, tok := range []string{"a", "b", "*", ">", ""} {
			s := prefix + tok
			if ValidateTopic(s) == nil {
				topics = append(topics, s)
			}
			if ValidatePattern(s) == nil && strings.Count(s, ".") < 3 {
				patterns = append(patterns, s)
			}
			if depth < 4 && tok != ">" && tok != "" {
				grow(s+".", depth+1)
			}
		}
	}
	grow("", 0)
	if len(topics) < 30 || len(patterns) < 50 {
		t.Fatalf("%d topics and %d patterns", len(topics), len(patterns))
	}
	for _, a := range patterns {
		for _, b := range patterns {
			covers, overlap := true, false
			for _, topic := range append(topics, "c", "c.c", "c.c.c", "c.c.c.c", "a.c", "c.a", "a.c.a", "a.a.c", "c.a.a", "c.a.c", "a.c.c", "b.c", "c.b") {
				inA, inB := MatchTopic(a, topic), MatchTopic(b, topic)
				covers = covers && (inA || !inB)
				overlap = overlap || inA && inB
			}
			if got := PatternCovers(a, b); got != covers {
				t.Errorf("PatternCovers(%q, %q) = %v", a, b, got)
			}
			if got := PatternsOverlap(a, b); got != overlap {
				t.Errorf("PatternsOverlap(%q, %q) = %v", a, b, got)
			}
		}
	}
}
