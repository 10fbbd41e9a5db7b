package checks

import (
	"go/ast"
	"go/importer"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// mapsStayHome: in actors/, a map that is a field of something (an actor's state) is not put into something else (a
// message), nor sent; what another actor is to know of it is copied. There is no pointer to a map. A map that goes by
// way of a local variable, or that is sent and then kept, is for the race detector.
func mapsStayHome(f file, info *types.Info) []string {
	var wrong []string
	given := func(value ast.Expr) {
		if kv, ok := value.(*ast.KeyValueExpr); ok {
			value = kv.Value
		}
		sel, ok := ast.Unparen(value).(*ast.SelectorExpr)
		if !ok || info.Selections[sel] == nil {
			return
		}
		if _, ok := info.Selections[sel].Type().Underlying().(*types.Map); ok {
			wrong = append(wrong, f.at(sel.Pos())+": the map "+sel.Sel.Name+" would be shared; copy it (maps.Clone)")
		}
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.StarExpr:
			if t := info.TypeOf(n.X); t != nil && info.Types[n].IsType() {
				if _, ok := t.Underlying().(*types.Map); ok {
					wrong = append(wrong, f.at(n.Pos())+": a pointer to a map")
				}
			}
		case *ast.CompositeLit:
			for _, e := range n.Elts {
				given(e)
			}
		case *ast.AssignStmt:
			for i, left := range n.Lhs {
				if _, ok := left.(*ast.SelectorExpr); ok && n.Tok == token.ASSIGN && len(n.Lhs) == len(n.Rhs) {
					given(n.Rhs[i])
				}
			}
		case *ast.CallExpr:
			if sends(n) {
				for _, a := range n.Args {
					given(a)
				}
			}
		}
		return true
	})
	return wrong
}

// sends reports whether a call is one of the actor system's ways to hand a message over.
func sends(call *ast.CallExpr) bool {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	switch sel.Sel.Name {
	case "Send", "Request", "RequestWithCustomSender", "RequestFuture", "Respond":
		return true
	}
	return false
}

// typed finds the types of what is in files, all of one package. Imports come from the go command's cache; nil: there
// are none, and what doesn't compile (a planted mistake) has no type.
func typed(t *testing.T, importPath string, files []file, exports map[string]string) *types.Info {
	t.Helper()
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Selections: map[*ast.SelectorExpr]*types.Selection{},
		Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}}
	fset, trees := files[0].fset, make([]*ast.File, len(files))
	for i, f := range files {
		trees[i] = f.ast
	}
	config := types.Config{Importer: importer.ForCompiler(fset, "gc", func(p string) (io.ReadCloser, error) { return os.Open(exports[p]) })}
	if exports == nil {
		config.Error = func(error) {}
	}
	if _, err := config.Check(importPath, fset, trees, info); err != nil && exports != nil {
		t.Fatal(err)
	}
	return info
}

func TestActorsKeepTheirMaps(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}", "./actors/...")
	cmd.Dir = top
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, stderr.String())
	}
	exports := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if p, export, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			exports[p] = export
		}
	}
	packages := map[string][]file{}
	for _, f := range repository(t, top) {
		if below(f.dir(), "actors") && !f.test() {
			packages[f.dir()] = append(packages[f.dir()], f)
		}
	}
	if len(packages) == 0 {
		t.Fatal("no files below actors/")
	}
	seen := 0 // maps that are fields: the types are there
	for dir, files := range packages {
		info := typed(t, module+"/"+dir, files, exports)
		for _, s := range info.Selections {
			if _, ok := s.Type().Underlying().(*types.Map); ok {
				seen++
			}
		}
		for _, f := range files {
			for _, s := range mapsStayHome(f, info) {
				t.Error(s)
			}
		}
	}
	if seen == 0 {
		t.Error("no actor has a map: this looks at the wrong thing")
	}
}

// TestMapsStayHome plants mistakes, and what looks like one and isn't.
func TestMapsStayHome(t *testing.T) {
	const types = `package p
		type names map[string]int
		type A struct { names names; list []string }
		type M struct { n names; names []string }
		type C struct{}
		func (C) Send(...any) {}
		func (C) Respond(...any) {}
		func clone(m names) names { return nil }
		`
	for _, c := range []struct {
		name, source string
		wrong        int
	}{
		{"state in a message", "func f(a *A) any { return &M{n: a.names} }", 1},
		{"state in a message without keys", "func f(a *A) any { return M{(a.names), nil} }", 1},
		{"state set in a message", "func f(a *A, m *M) { m.n = a.names }", 1},
		{"state sent", "func f(a *A, c C) { c.Send(1, a.names); c.Respond(a.names) }", 2},
		{"pointers to maps", "type P struct { n *map[string]int; m *names }", 2},
		{"a copy", "func f(a *A) any { return &M{n: clone(a.names)} }", 0},
		{"a map made for a message", "func f() any { n := names{}; return &M{n: n} }", 0},
		{"a field that is no map", "func f(a *A, m *M) any { m.names = a.list; return &M{names: m.names} }", 0},
		{"state used", `func f(a *A) int { a.names = names{}; for range a.names { delete(a.names, "") }; return a.names[""] }`, 0},
		{"another pointer, a product", "func f(a *A, x *int) int { return 2 * *x }", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := parse(t, "actors/x.go", types+c.source)
			if found := mapsStayHome(f, typed(t, "p", []file{f}, nil)); len(found) != c.wrong {
				t.Errorf("%d findings, want %d: %q", len(found), c.wrong, found)
			}
		})
	}
}
