package shmio

import (
	"fmt"
	"unsafe"
)

// view is the T at offset off of mem. T holds no Go pointers. A view that doesn't fit, or is misaligned, is a mistake of
// the caller's, who checks what others say first: it panics.
func view[T any](mem []byte, off uint64) *T {
	var t T
	size, align := uint64(unsafe.Sizeof(t)), uint64(unsafe.Alignof(t))
	if off > uint64(len(mem)) || size > uint64(len(mem))-off {
		panic(fmt.Sprintf("shmio: view of %d bytes at %d of %d", size, off, len(mem)))
	}
	p := unsafe.Pointer(unsafe.SliceData(mem[off:]))
	if uintptr(p)%uintptr(align) != 0 {
		panic(fmt.Sprintf("shmio: view at %d is not aligned to %d", off, align))
	}
	return (*T)(p)
}

// words is n 64-bit words of mem from offset off, under the same conditions as view.
func words(mem []byte, off, n uint64) []uint64 {
	if off > uint64(len(mem)) || n > (uint64(len(mem))-off)/8 {
		panic(fmt.Sprintf("shmio: %d words at %d of %d bytes", n, off, len(mem)))
	}
	if n == 0 {
		return nil
	}
	p := unsafe.Pointer(unsafe.SliceData(mem[off:]))
	if uintptr(p)%8 != 0 {
		panic(fmt.Sprintf("shmio: words at %d are not aligned", off))
	}
	return unsafe.Slice((*uint64)(p), n)
}

// wordBytes is the same memory as bytes.
func wordBytes(w []uint64) []byte {
	if len(w) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(w))), 8*len(w))
}
