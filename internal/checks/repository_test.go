package checks

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const top = "../.."

func TestRepository(t *testing.T) {
	files := repository(t, top)
	if len(files) < 20 {
		t.Fatalf("only %d Go files below %s: this looks at the wrong folder", len(files), top)
	}
	for name, r := range map[string]rule{
		"unsafe": unsafeWhereItBelongs, "cgo": noCgo, "imports": oneDirection, "wire": wireIsPure,
		"protoactor": protoactorWhereItBelongs, "actors": actorsShareNothing, "clocks": clocksMayJump,
		"docs": exportedIsDocumented,
	} {
		t.Run(name, func(t *testing.T) {
			for _, f := range files {
				for _, s := range r(f) {
					t.Error(s)
				}
			}
		})
	}
}

// TestDependencies asks the go command for what packages pull in, all the way down.
func TestDependencies(t *testing.T) {
	const compiler = "github.com/bufbuild/protocompile" // for proto/gen
	for _, c := range []struct {
		pattern string
		without []string
	}{
		{"./wire/...", []string{module + "/shmio", "golang.org/x", "google.golang.org", protoactor}},
		{"./shmio", []string{module + "/node", module + "/actors", module + "/proto", protoactor, "google.golang.org"}},
		{"./node/...", []string{module + "/actors", module + "/shmio/pump", protoactor, compiler}},
		{"./actors/...", []string{module + "/node", module + "/cmd", compiler}},
		{"./cmd/...", []string{module + "/proto/gen", compiler}},
	} {
		folder := strings.TrimSuffix(c.pattern, "/...")
		if _, err := os.Stat(filepath.Join(top, folder)); os.IsNotExist(err) {
			continue
		}
		t.Run(folder, func(t *testing.T) {
			deps := dependencies(t, c.pattern)
			if !deps[module+strings.TrimPrefix(folder, ".")] && folder != "./cmd" {
				t.Errorf("go list names %d packages, but not %s itself", len(deps), folder)
			}
			for dep := range deps {
				if belowAny(dep, c.without...) {
					t.Errorf("%s depends on %s", folder, dep)
				}
			}
		})
	}
}

// dependencies is the import paths of what matches pattern and of all it depends on, tests aside.
func dependencies(t *testing.T, pattern string) map[string]bool {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", pattern)
	cmd.Dir = top
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -deps %s: %v\n%s", pattern, err, stderr.String())
	}
	deps := map[string]bool{}
	for dep := range strings.FieldsSeq(string(out)) {
		deps[dep] = true
	}
	return deps
}

func TestModule(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(top, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range goMod(string(text)) {
		t.Error(s)
	}
}

// goMod checks the module's name and Go version, and that what is tested is what everybody gets: no replace.
func goMod(text string) (wrong []string) {
	name, version := "", ""
	for i, line := range strings.Split(text, "\n") {
		switch f := strings.Fields(line); {
		case len(f) >= 2 && f[0] == "module":
			name = f[1]
		case len(f) >= 2 && f[0] == "go":
			version = f[1]
		case len(f) >= 1 && f[0] == "replace":
			wrong = append(wrong, fmt.Sprintf("go.mod:%d: a replace holds for this repository alone", i+1))
		}
	}
	if name != module {
		wrong = append(wrong, fmt.Sprintf("go.mod: module %q, want %q", name, module))
	}
	if version != "1.26" && !strings.HasPrefix(version, "1.26.") {
		wrong = append(wrong, fmt.Sprintf("go.mod: go %q, want 1.26", version))
	}
	return wrong
}
