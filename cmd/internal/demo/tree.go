package demo

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// tree is a folder whose files are sent: every process of the demo walks it by itself, in the same order.
type tree struct {
	root  string
	files []string // slash-separated, relative to root, in lexical order
	sums  [][sha256.Size]byte
	known []bool
}

// openTree lists the regular files below root.
func openTree(root string) (*tree, error) {
	t := &tree{root: root}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err == nil && len(rel) <= math.MaxUint16 {
			t.files = append(t.files, rel)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", root, err)
	}
	if len(t.files) == 0 {
		return nil, fmt.Errorf("there are no files in %s", root)
	}
	t.sums, t.known = make([][sha256.Size]byte, len(t.files)), make([]bool, len(t.files))
	return t, nil
}

// at is the file at a publisher's position, by the order of passes.
func (t *tree) at(position uint64) (index int, name string) {
	index = int(position % uint64(len(t.files)))
	return index, t.files[index]
}

// sum is the SHA-256 of the file on the disk, read once.
func (t *tree) sum(index int) ([sha256.Size]byte, error) {
	if !t.known[index] {
		b, err := os.ReadFile(filepath.Join(t.root, t.files[index]))
		if err != nil {
			return [sha256.Size]byte{}, err
		}
		t.sums[index], t.known[index] = sha256.Sum256(b), true
	}
	return t.sums[index], nil
}

// goTree is the source tree of the Go toolchain.
func goTree(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find the Go toolchain's source with 'go env GOROOT': %w; name another folder with --tree", err)
	}
	root := strings.TrimSpace(string(out))
	if root == "" {
		return "", errors.New("'go env GOROOT' names no folder; name one with --tree")
	}
	return filepath.Join(root, "src"), nil
}
