package checks

import (
	"go/ast"
	"go/token"
	"strconv"
)

// actorsShareNothing: in actors/ there is no lock and no package-level variable. Error values and `var _ I = T{}` are
// none; tests are left alone.
func actorsShareNothing(f file) []string {
	if !below(f.dir(), "actors") || f.test() {
		return nil
	}
	return append(locks(f), packageVars(f)...)
}

// locks finds the uses of sync's locks and of its map, whatever the import is called.
func locks(f file) []string {
	name := ""
	for _, s := range f.ast.Imports {
		if p, err := strconv.Unquote(s.Path.Value); err != nil || p != "sync" {
			continue
		}
		name = "sync"
		if s.Name != nil {
			name = s.Name.Name
		}
		if name == "." {
			return []string{f.at(s.Pos()) + ": sync imported without a name"}
		}
	}
	if name == "" {
		return nil
	}
	var wrong []string
	ast.Inspect(f.ast, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == name {
			switch sel.Sel.Name {
			case "Mutex", "RWMutex", "Map", "Cond", "NewCond", "Locker":
				wrong = append(wrong, f.at(sel.Pos())+": sync."+sel.Sel.Name+"; actors share nothing")
			}
		}
		return true
	})
	return wrong
}

// packageVars finds the package-level variables that aren't error values or assertions.
func packageVars(f file) []string {
	var wrong []string
	for _, d := range f.ast.Decls {
		decl, ok := d.(*ast.GenDecl)
		if !ok || decl.Tok != token.VAR {
			continue
		}
		for _, s := range decl.Specs {
			v := s.(*ast.ValueSpec)
			for i, name := range v.Names {
				if name.Name != "_" && !errorValue(v, i) {
					wrong = append(wrong, f.at(name.Pos())+": package-level variable "+name.Name)
				}
			}
		}
	}
	return wrong
}

// errorValue reports whether the i-th variable of v is set to what errors.New or fmt.Errorf returns.
func errorValue(v *ast.ValueSpec, i int) bool {
	if i >= len(v.Values) {
		return false
	}
	call, ok := v.Values[i].(*ast.CallExpr)
	if !ok {
		return false
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	pkg, ok := sel.X.(*ast.Ident)
	return ok && (pkg.Name == "errors" && sel.Sel.Name == "New" || pkg.Name == "fmt" && sel.Sel.Name == "Errorf")
}
