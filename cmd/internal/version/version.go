// Package version says which build this is. It owns the version number and reads the rest from the build's own record.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/bhome-bus/bhome/wire"
)

// Number is the version of the programs and libraries of this tree.
const Number = "0.1.0"

// Info describes a build.
type Info struct {
	Version  string `json:"version"`
	ABI      string `json:"abi"` // of the shared memory layout, major.minor
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"` // built from a tree with uncommitted changes
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// Get reads the description of the running program.
func Get() Info {
	in := Info{
		Version: Number, ABI: fmt.Sprintf("%d.%d", wire.ABIVersion>>16, wire.ABIVersion&0xffff),
		Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, s := range b.Settings {
			switch s.Key {
			case "vcs.revision":
				in.Revision = s.Value
			case "vcs.modified":
				in.Modified = s.Value == "true"
			}
		}
	}
	return in
}

// String is one line.
func (i Info) String() string {
	s := fmt.Sprintf("%s (ABI %s, %s, %s", i.Version, i.ABI, i.Go, i.Platform)
	if i.Revision != "" {
		s += ", " + i.Revision[:min(12, len(i.Revision))]
		if i.Modified {
			s += "+changes"
		}
	}
	return s + ")"
}
