package checks

import (
	"fmt"
	"go/ast"
	"path"
	"strings"
)

// A rule returns what it finds wrong with a file, each with its place.
type rule func(file) []string

const protoactor = "github.com/asynkron/protoactor-go"

// unsafeWhereItBelongs: the views over shared memory are the one place that needs it; generated code is not ours to say.
func unsafeWhereItBelongs(f file) []string {
	at, ok := f.imports()["unsafe"]
	if !ok {
		return nil
	}
	base := path.Base(f.path)
	view := f.dir() == "shmio" && (strings.HasSuffix(base, "_unsafe.go") || strings.HasSuffix(base, "_unsafe_test.go"))
	generated := strings.HasSuffix(base, ".pb.go") && ast.IsGenerated(f.ast)
	if view || generated {
		return nil
	}
	return []string{at + ": unsafe is for shmio/*_unsafe.go alone"}
}

// noCgo: the programs are static, and cross-compile.
func noCgo(f file) []string {
	if at, ok := f.imports()["C"]; ok {
		return []string{at + ": cgo"}
	}
	return nil
}

// layers is which packages of this module the files below a folder may import. A folder that is missing here has no
// place in the architecture yet.
var layers = []struct {
	folder string
	uses   []string
}{
	{"wire", nil},
	{"proto/gen", nil},
	{"proto", nil},
	{"shmio/pump", []string{"wire", "shmio"}},
	{"shmio", []string{"wire", "shmio"}},
	{"node", []string{"wire", "proto", "shmio", "node"}},
	{"actors", []string{"wire", "proto", "shmio", "actors"}},
	{"cmd", []string{"wire", "proto", "shmio", "node", "actors", "cmd"}},
	{"examples", []string{"wire", "proto", "shmio", "node", "actors", "examples"}},
	{"integration", []string{"wire", "proto", "shmio", "node", "actors", "integration"}},
	{"docs", []string{"wire", "proto", "shmio", "node", "actors"}},
	{"internal/checks", nil},
}

// oneDirection: wire <- shmio <- node, actors <- cmd. Tests may look further, the compiler refuses circles anyway.
func oneDirection(f file) []string {
	if f.test() {
		return nil
	}
	for _, l := range layers {
		if !below(f.dir(), l.folder) {
			continue
		}
		var wrong []string
		for imported, at := range f.imports() {
			if rel, ours := within(imported); ours && (rel == "proto/gen" || !belowAny(rel, l.uses...)) {
				wrong = append(wrong, fmt.Sprintf("%s: %s must not import %s", at, l.folder, rel))
			}
		}
		return wrong
	}
	return []string{f.path + ": this folder has no place in the architecture; see layers in internal/checks"}
}

// within is an import path's place in the module.
func within(imported string) (rel string, ours bool) {
	if imported == module {
		return ".", true
	}
	return strings.CutPrefix(imported, module+"/")
}

// wireIsPure: no I/O, no clock, no locks, nothing from outside the standard library. Its tests are left alone.
func wireIsPure(f file) []string {
	if !below(f.dir(), "wire") || f.test() {
		return nil
	}
	var wrong []string
	for imported, at := range f.imports() {
		first, _, _ := strings.Cut(imported, "/")
		if belowAny(imported, "os", "io", "net", "syscall", "time", "sync", "runtime", "log", "math/rand") || strings.Contains(first, ".") {
			wrong = append(wrong, at+": wire must not import "+imported)
		}
	}
	return wrong
}

// protoactorWhereItBelongs: a node without a center stays small; what joins rings and mailboxes is the pump. The tests of
// node need a center and may start one; others' tests count.
func protoactorWhereItBelongs(f file) []string {
	if f.test() && below(f.dir(), "node") || belowAny(f.dir(), "shmio/pump", "actors", "cmd", "integration", "examples") {
		return nil
	}
	var wrong []string
	for imported, at := range f.imports() {
		if below(imported, protoactor) {
			wrong = append(wrong, at+": "+imported+" is for shmio/pump, actors, cmd, integration and examples")
		}
	}
	return wrong
}
