package procfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Memory is what a process has resident, in bytes. A page of shared memory counts whole for each process that has it mapped
// and has touched it, and in PSS as a share: one of so many parts as processes have it.
type Memory struct {
	RSS   int64 `json:"rss_bytes"`
	Anon  int64 `json:"anon_bytes"`  // of RSS: its own, heap and stacks
	File  int64 `json:"file_bytes"`  // of RSS: the program
	Shmem int64 `json:"shmem_bytes"` // of RSS: memfds
	PSS   int64 `json:"pss_bytes"`   // 0 where the kernel doesn't tell
}

// MemoryOf looks at what a process has resident; an error if it is gone, or another user's.
func MemoryOf(pid int) (m Memory, err error) {
	status, err := fields(pid, "status")
	if err != nil {
		return m, err
	}
	return Memory{RSS: status["VmRSS"], Anon: status["RssAnon"], File: status["RssFile"], Shmem: status["RssShmem"], PSS: Share(pid)}, nil
}

// Share is a process's share of the memory that it has resident, in bytes: a page that k processes map counts as a k-th of one.
// 0 if the kernel doesn't say. It walks all mappings, which takes milliseconds where there are thousands.
func Share(pid int) int64 {
	rollup, err := fields(pid, "smaps_rollup")
	if err != nil {
		return 0
	}
	return rollup["Pss"]
}

// fields are the lines of a file of /proc that say so many kB, in bytes.
func fields(pid int, name string) (map[string]int64, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), name))
	if err != nil {
		return nil, err
	}
	all := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		if f := strings.Fields(value); len(f) == 2 && f[1] == "kB" {
			n, _ := strconv.ParseInt(f[0], 10, 64) // the kernel writes numbers
			all[key] = n << 10
		}
	}
	return all, nil
}

// Memfds is how many bytes of memory the memfds take of which the processes have descriptors; each memfd counts once, mapped
// or not. What the kernel has of it in memory counts, not its size.
func Memfds(pids ...int) (bytes int64, err error) {
	seen := map[uint64]bool{} // by inode: all memfds are of one device
	for _, pid := range pids {
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			return 0, err
		}
		for _, fd := range fds {
			n, err := memfd(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name()), seen)
			if err != nil {
				return 0, err
			}
			bytes += n
		}
	}
	return bytes, nil
}

// memfd is what the memfd at path takes; 0 if it is none, has been seen, or is closed meanwhile.
func memfd(path string, seen map[uint64]bool) (int64, error) {
	target, err := os.Readlink(path)
	if err != nil || !strings.HasPrefix(target, "/memfd:") {
		return 0, ignoreGone(err)
	}
	fi, err := os.Stat(path)
	if err != nil {
		return 0, ignoreGone(err)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || seen[st.Ino] {
		return 0, nil
	}
	seen[st.Ino] = true
	return st.Blocks * 512, nil
}

func ignoreGone(err error) error {
	if os.IsNotExist(err) {
		return nil
	}
	return err
}
