package words

import "testing"

func TestCount(t *testing.T) {
	for in, want := range map[string]int{"": 0, " \n\t": 0, "one": 1, " one  two\nthree\v": 3, "a\rb\fc": 3, "ü ü": 2} {
		if got := Count([]byte(in)); got != want {
			t.Errorf("Count(%q) = %d, want %d", in, got, want)
		}
	}
}
