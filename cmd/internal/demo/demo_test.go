package demo

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestFileHeadRoundTrip(t *testing.T) {
	for _, content := range []string{"", "package main\n"} {
		h := fileHead{Position: 1<<40 + 7, SentNs: 123456789, Name: "cmd/ü.go"}
		b := make([]byte, messageSize(h.Name, len(content)))
		if n := copy(putFileHead(b, h), content); n != len(content) {
			t.Fatalf("room for %d of %d bytes", n, len(content))
		}
		got, rest, err := splitFile(b)
		if err != nil || got != h || string(rest) != content {
			t.Errorf("%+v, %q, %v", got, rest, err)
		}
		for cut := range headSize + len(h.Name) {
			if _, _, err := splitFile(b[:cut]); !errors.Is(err, errShort) {
				t.Fatalf("%d bytes: %v", cut, err)
			}
		}
	}
}

func TestTreeOrderAndSums(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{"b/2": "two", "a": "one", "b/1": "", "c/d/e": "three"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("a", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	tr, err := openTree(root)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"a", "b/1", "b/2", "c/d/e"}; !slices.Equal(tr.files, want) {
		t.Fatalf("got %v", tr.files)
	}
	if i, name := tr.at(4*1000 + 2); i != 2 || name != "b/2" {
		t.Errorf("position 4002 is %d, %s", i, name)
	}
	first, err := tr.sum(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(root, "a")); err != nil {
		t.Fatal(err)
	}
	if again, err := tr.sum(0); err != nil || again != first {
		t.Errorf("a sum is read once: %v", err)
	}
	if _, err := openTree(t.TempDir()); err == nil {
		t.Error("an empty tree is nothing to stream")
	}
	if _, err := openTree(root + "/none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func track(publisher string, session uint64, positions ...uint64) Track {
	t := Track{Publisher: publisher, Session: session}
	for _, p := range positions {
		t.add(p, true)
	}
	return t
}

func TestCheck(t *testing.T) {
	whole := expectation{"a", 1, 0, 4, 4, true}
	killed := expectation{"b", 2, 0, 2, 5, true}
	late := expectation{"a", 1, 2, 4, 4, false}
	for name, tc := range map[string]struct {
		tracks []Track
		want   []expectation
		faults []string
	}{
		"all":                {[]Track{track("a", 1, 0, 1, 2, 3)}, []expectation{whole}, nil},
		"lost at the end":    {[]Track{track("a", 1, 0, 1, 2)}, []expectation{whole}, []string{"only 3 of 4"}},
		"lost in between":    {[]Track{track("a", 1, 0, 1, 3)}, []expectation{whole}, []string{"1 files were lost"}},
		"lost at the start":  {[]Track{track("a", 1, 1, 2, 3)}, []expectation{whole}, []string{"files 0 to 0 are missing"}},
		"twice":              {[]Track{track("a", 1, 0, 1, 1, 2, 3)}, []expectation{whole}, []string{"1 files came twice"}},
		"out of order":       {[]Track{track("a", 1, 0, 2, 1, 3)}, []expectation{whole}, []string{"1 files were lost", "1 files came twice or out of order"}},
		"too many":           {[]Track{track("a", 1, 0, 1, 2, 3, 4)}, []expectation{whole}, []string{"5 files arrived, though it sent at most 4"}},
		"nothing":            {nil, []expectation{whole}, []string{"nothing of a"}},
		"a prefix":           {[]Track{track("b", 2, 0, 1, 2)}, []expectation{killed}, nil},
		"less than it said":  {[]Track{track("b", 2, 0)}, []expectation{killed}, []string{"only 1 of 2"}},
		"more than it could": {[]Track{track("b", 2, 0, 1, 2, 3, 4, 5)}, []expectation{killed}, []string{"at most 5"}},
		"killed at once":     {nil, []expectation{{"b", 2, 0, 0, 3, true}}, nil},
		"from the mark":      {[]Track{track("a", 1, 2, 3)}, []expectation{late}, nil},
		"before the mark":    {[]Track{track("a", 1, 1, 2, 3)}, []expectation{late}, nil},
		"after the mark":     {[]Track{track("a", 1, 3)}, []expectation{late}, []string{"files 2 to 2 are missing"}},
		"a stranger":         {[]Track{track("a", 1, 0, 1, 2, 3), track("x", 9, 0)}, []expectation{whole}, []string{"from x (session 9)"}},
		"another file":       {[]Track{{Publisher: "a", Session: 1, Next: 4, Count: 4, Misnamed: 1}}, []expectation{whole}, []string{"another file"}},
	} {
		got := check("s", tc.tracks, tc.want)
		if len(got) != len(tc.faults) {
			t.Errorf("%s: %q, want %q", name, got, tc.faults)
			continue
		}
		for i := range got {
			if !strings.HasPrefix(got[i], "s: ") || !strings.Contains(got[i], tc.faults[i]) {
				t.Errorf("%s: %q, want %q", name, got[i], tc.faults[i])
			}
		}
	}
}

func TestSummary(t *testing.T) {
	if !(Summary{}).OK() || (Summary{Leaked: 1}).OK() || (Summary{Corrupted: 1}).OK() || (Summary{Faults: []string{"x"}}).OK() {
		t.Error("OK doesn't tell")
	}
	var b bytes.Buffer
	if err := (Summary{Files: 11478, Leaked: 0, Faults: []string{"bad\x1b"}}).Print(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"11,478 in the tree", "leaked:           0\n", "FAULT bad\\x1b\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q lacks %q", b.String(), want)
		}
	}
}
