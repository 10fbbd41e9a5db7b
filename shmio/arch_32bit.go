//go:build !amd64 && !arm64 && !riscv64 && !loong64 && !ppc64le && !s390x && !mips64 && !mips64le && !ppc64

package shmio

// bhome needs a 64-bit machine: segments are up to 32 GiB, and the words of the queues are 64-bit atomics.
const _ = "bhome needs a 64-bit machine" + 0
