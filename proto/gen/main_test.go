package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestGeneratedCodeIsUpToDate generates in memory and compares with what is committed.
func TestGeneratedCodeIsUpToDate(t *testing.T) {
	files, err := generate(t.Context(), root, sources())
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(sources()) {
		t.Errorf("%d files of code from %d sources", len(files), len(sources()))
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, want) {
			t.Errorf("proto/%s is not what its .proto makes; run `make generate`. %s", name, firstDifference(got, want))
		}
	}
}

// TestEverySourceIsGenerated: no .proto without code, no code without .proto.
func TestEverySourceIsGenerated(t *testing.T) {
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		if source, ok := strings.CutSuffix(name, ".pb.go"); ok {
			name = source + ".proto"
		}
		if filepath.Ext(name) == ".proto" && !slices.Contains(sources(), filepath.ToSlash(name)) {
			t.Errorf("proto/%s is not among the sources of proto/gen", name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestABadSourceIsRefused: an error names the file and line, and there is no code.
func TestABadSourceIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "bad.proto"), []byte("syntax = \"proto3\";\nmessage M { Missing x = 1; }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	files, err := generate(t.Context(), dir, []string{"bad.proto"})
	if err == nil || !strings.Contains(err.Error(), "bad.proto:2:") || files != nil {
		t.Errorf("%d files, %v", len(files), err)
	}
}

func firstDifference(got, want []byte) string {
	g, w := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return "First line that differs: " + g[i] + "\nwanted: " + w[i]
		}
	}
	return "One is the other's beginning."
}
