package shmio

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// tree writes files below a folder.
func tree(t *testing.T, files map[string]string) (root string) {
	t.Helper()
	root = t.TempDir()
	for name, text := range files {
		name = filepath.Join(root, name)
		noErr(t, os.MkdirAll(filepath.Dir(name), 0o755))
		noErr(t, os.WriteFile(name, []byte(text), 0o644))
	}
	return root
}

func TestCgroups(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		name   string
		files  map[string]string
		limit  uint64
		room   uint64 // bytes that just fit
		folder string // that says no to one more
	}{
		{"version 2, its own limit", map[string]string{"self": "0::/a/b\n", "a/b/memory.max": "104857600\n", "a/b/memory.current": "52428800\n",
			"a/b/memory.stat": "anon 1\ninactive_file 10485760\n", "a/memory.max": "max\n", "a/memory.current": "1\n"}, 100 * mb, 60 * mb, "a/b"},
		{"version 2, a limit above", map[string]string{"self": "0::/a/b\n", "a/b/memory.max": "max\n", "a/b/memory.current": "1\n",
			"a/memory.max": "104857600\n", "a/memory.current": "94371840\n"}, 100 * mb, 10 * mb, "a"},
		{"version 2, the lower of two", map[string]string{"self": "0::/a\n", "a/memory.max": "209715200\n", "a/memory.current": "0\n",
			"memory.max": "104857600\n", "memory.current": "0\n"}, 100 * mb, 100 * mb, ""},
		{"version 2, a container", map[string]string{"self": "0::/host/only/path\n", "memory.max": "104857600\n", "memory.current": "104857600\n"}, 100 * mb, 0, ""},
		{"version 1", map[string]string{"self": "5:cpu:/x\n4:hugetlb,memory:/a\n0::/\n", "memory/a/memory.limit_in_bytes": "104857600\n", "memory/a/memory.usage_in_bytes": "62914560\n",
			"memory/a/memory.stat": "inactive_file 7\ntotal_inactive_file 10485760\n", "memory/memory.limit_in_bytes": "9223372036854771712\n",
			"memory/memory.usage_in_bytes": "1\n"}, 100 * mb, 50 * mb, "memory/a"},
	} {
		root := tree(t, c.files)
		g := Cgroups{Root: root, Self: filepath.Join(root, "self")}
		if n, ok := g.Limit(); n != c.limit || !ok {
			t.Errorf("%s: the limit is %d %v", c.name, n, ok)
		}
		if err := g.Room(c.room); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		var he *HeadroomError
		err := g.Room(c.room + 1)
		if !errors.As(err, &he) || !errors.Is(err, ErrNoHeadroom) || he.Cgroup != filepath.Join(root, c.folder) || he.Need != c.room+1 || he.Max != 100*mb {
			t.Errorf("%s: one byte more: %+v", c.name, err)
		}
	}
	for name, files := range map[string]map[string]string{
		"none":               {"self": ""},
		"no limit":           {"self": "0::/\n", "memory.max": "max\n", "memory.current": "5\n"},
		"rubbish":            {"self": "rubbish\n0::\n::::\n", "memory.max": "-1\n", "memory.current": "x\n"},
		"a path that climbs": {"self": "0::/../../..\n"},
	} {
		root := tree(t, files)
		g := Cgroups{Root: root, Self: filepath.Join(root, "self")}
		if _, ok := g.Limit(); ok || g.Room(1<<50) != nil {
			t.Errorf("%s: it limits", name)
		}
	}
	if err := (Cgroups{Self: "/nonexistent"}).Room(1 << 50); err != nil {
		t.Error(err)
	}
}

func TestTouched(t *testing.T) {
	s, err := CreateSegment("touched", SegmentSpec{Kind: KindData, Number: 1, Size: 1 << 20})
	noErr(t, err)
	defer s.Close()
	mem, err := s.Memory(0, s.Size())
	noErr(t, err)
	before := s.Touched()
	for i := 256 << 10; i < 512<<10; i += 4096 {
		mem[i] = 1
	}
	if n := s.Touched(); before > 64<<10 || n < before+256<<10 || n > before+320<<10 {
		t.Errorf("%d bytes, then %d", before, n)
	}
}
