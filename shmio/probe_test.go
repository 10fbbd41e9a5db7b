package shmio

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestProbeHere(t *testing.T) {
	checkLeaks(t)
	noErr(t, Probe())
	noErr(t, Probe())
}

func TestProbeNamesWhatIsMissing(t *testing.T) {
	good := kernel{memfd: func() error { return nil }, pidfd: func() error { return nil }, release: func() string { return "Linux 4.19.0" }, bits: 64}
	noErr(t, good.probe())
	fails := func(err error) func() error { return func() error { return err } }
	for name, c := range map[string]struct {
		change func(k *kernel)
		want   error
		says   []string
	}{
		"seal":    {func(k *kernel) { k.memfd = fails(unix.EINVAL) }, ErrUnsupported, []string{"sealed memfd", "needs Linux 5.1 or later; this is Linux 4.19.0"}},
		"pidfd":   {func(k *kernel) { k.pidfd = fails(unix.ENOSYS) }, unix.ENOSYS, []string{"pidfd_open", "needs Linux 5.3 or later; this is Linux 4.19.0"}},
		"seccomp": {func(k *kernel) { k.pidfd = fails(unix.EPERM) }, ErrUnsupported, []string{"pidfd_open", "seccomp"}},
		"32 bits": {func(k *kernel) { k.bits = 32 }, ErrUnsupported, []string{"a 64-bit program is missing; this is a 32-bit one"}},
	} {
		k := good
		c.change(&k)
		wantErr(t, k.probe(), c.want, c.says...)
		t.Log(name+":", k.probe())
	}
	k := good
	k.memfd = fails(unix.EMFILE)
	if err := k.probe(); err == nil || strings.Contains(err.Error(), "5.1") {
		t.Errorf("no descriptors left: %v", err)
	}
	wantErr(t, k.probe(), unix.EMFILE)
}

func TestOther64BitMachinesCompile(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the package")
	}
	for arch, says := range map[string]string{"arm64": "", "386": "bhome needs a 64-bit machine", "arm": "bhome needs a 64-bit machine"} {
		c := exec.Command("go", "build", ".")
		c.Env = append(os.Environ(), "GOARCH="+arch, "CGO_ENABLED=0")
		out, err := c.CombinedOutput()
		if (err == nil) != (says == "") || !strings.Contains(string(out), says) {
			t.Errorf("GOARCH=%s: %v\n%s", arch, err, out)
		}
	}
}
