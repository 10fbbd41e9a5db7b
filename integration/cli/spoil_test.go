package cli

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
)

// spoil makes a process lie in its own memory: in each writer half that it has, dropTo goes beyond tail, which no honest
// process writes. It finds the halves as docs/abi.md section 4 says they begin.
func spoil() error {
	const offRingAt, offTableAt, offTail, offDropTo, ring, links = 28, 32, 128, 256, 640, 100
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return err
	}
	defer maps.Close()
	mem, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer mem.Close()
	spoilt := 0
	for sc := bufio.NewScanner(maps); sc.Scan(); {
		var from, to int64
		if _, err := fmt.Sscanf(sc.Text(), "%x-%x rw-s", &from, &to); err != nil || !strings.Contains(sc.Text(), "/memfd:") {
			continue
		}
		b := make([]byte, to-from)
		if _, err := mem.ReadAt(b, from); err != nil {
			return err
		}
		le := binary.NativeEndian
		for at := int64(4096); at+ring < int64(len(b)); at += 128 {
			h := b[at:]
			if le.Uint64(h) > links && le.Uint32(h[offRingAt:]) == ring && le.Uint32(h[offTableAt:]) == ring+8*le.Uint32(h[8:]) {
				spoilt++
				if _, err := mem.WriteAt(le.AppendUint64(nil, le.Uint64(h[offTail:])+5), from+at+offDropTo); err != nil {
					return err
				}
			}
		}
	}
	if spoilt == 0 {
		return errors.New("there is no writer half")
	}
	return nil
}
