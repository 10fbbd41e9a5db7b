package shmio

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Inode says what is behind a descriptor or a mapping: two that have the same are of one object.
type Inode struct{ Dev, Ino uint64 }

// Descriptor is one open descriptor of this process.
type Descriptor struct {
	Number int
	Inode  Inode
	Target string // what /proc says: "/memfd:…", "pipe:[…]", "socket:[…]", "anon_inode:[pidfd]", a path
	PID    int    // of a pidfd: whose; -1 once that process is gone. 0: it is none
}

// Mapping is what this process has mapped of one memfd.
type Mapping struct {
	Name  string // as it was made, with "/memfd:" before it
	Count int
}

// Inode says what the descriptor is of. Error: os.ErrClosed.
func (f *FD) Inode() (id Inode, err error) {
	err = f.with(func(n int) error {
		id, err = inodeOf(n)
		return err
	})
	if err != nil {
		return Inode{}, fmt.Errorf("look at a descriptor: %w", err)
	}
	return id, nil
}

// Inode says what the bell's socket is. Error: os.ErrClosed.
func (b *Bell) Inode() (Inode, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.fd == nil {
		return Inode{}, fmt.Errorf("look at a bell: %w", os.ErrClosed)
	}
	return b.fd.Inode()
}

// Inode says what is watched. Error: os.ErrClosed.
func (w *Watch) Inode() (Inode, error) { return w.fd.Inode() }

// Inode says which socket it is. It fails once the connection is closed.
func (c *Conn) Inode() (id Inode, err error) {
	err = c.control(func(fd int) error {
		id, err = inodeOf(fd)
		return err
	})
	if err != nil {
		return Inode{}, fmt.Errorf("look at a socket: %w", err)
	}
	return id, nil
}

func inodeOf(fd int) (Inode, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Inode{}, err
	}
	return Inode{st.Dev, st.Ino}, nil
}

// Descriptors lists what this process has open now, the listing's own descriptor left out. What is opened or closed
// meanwhile may be missing, or be there with an empty Target.
func Descriptors() ([]Descriptor, error) {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return nil, fmt.Errorf("list descriptors: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list descriptors: %w", err)
	}
	own := int(dir.Fd())
	list := make([]Descriptor, 0, len(names))
	for _, name := range names {
		n, err := strconv.Atoi(name)
		if err != nil || n == own {
			continue
		}
		d := Descriptor{Number: n, Target: fdTarget(n)}
		if d.Inode, err = inodeOf(n); err != nil {
			continue // closed meanwhile
		}
		if strings.Contains(d.Target, "pidfd") {
			d.PID = pidfdOf(n)
		}
		list = append(list, d)
	}
	return list, nil
}

// pidfdOf is the process of a pidfd, by the kernel's word.
func pidfdOf(n int) int {
	text, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(n))
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "Pid:"); ok {
			if pid, err := strconv.Atoi(strings.TrimSpace(v)); err == nil {
				return pid
			}
		}
	}
	return -1
}

// Mappings counts the mappings of memfds that this process has now.
func Mappings() (map[Inode]Mapping, error) {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil, fmt.Errorf("list mappings: %w", err)
	}
	defer f.Close()
	return parseMappings(f)
}

// parseMappings reads what proc(5) says of /proc/<pid>/maps: address, permissions, offset, device, inode, path.
func parseMappings(r io.Reader) (map[Inode]Mapping, error) {
	found := map[Inode]Mapping{}
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) < 6 || !strings.HasPrefix(f[5], "/memfd:") {
			continue
		}
		high, low, _ := strings.Cut(f[3], ":")
		major, err1 := strconv.ParseUint(high, 16, 32)
		minor, err2 := strconv.ParseUint(low, 16, 32)
		ino, err3 := strconv.ParseUint(f[4], 10, 64)
		if err1 != nil || err2 != nil || err3 != nil {
			return nil, fmt.Errorf("list mappings: the line %q can't be read", sc.Text())
		}
		id := Inode{unix.Mkdev(uint32(major), uint32(minor)), ino}
		m := found[id]
		m.Name, m.Count = f[5], m.Count+1
		found[id] = m
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("list mappings: %w", err)
	}
	return found, nil
}
