package checks

import "go/ast"

// clocksMayJump: in the libraries no time is kept as what the wall clock says, or setting that clock would stretch or end
// time-outs. time.Time values keep Go's monotonic reading; shmio.CoarseNow is one. What people are shown is exempt: its
// fields are called so.
func clocksMayJump(f file) []string {
	if !belowAny(f.dir(), "wire", "shmio", "node", "actors") || f.test() {
		return nil
	}
	var wrong []string
	shown := map[ast.Node]bool{}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.KeyValueExpr:
			if key, ok := n.Key.(*ast.Ident); ok && key.Name == "SinceUnixNs" {
				shown[n.Value] = true
			}
		case *ast.CallExpr:
			sel, ok := n.Fun.(*ast.SelectorExpr)
			if !ok || shown[n] {
				return true
			}
			switch sel.Sel.Name {
			case "Unix", "UnixNano", "UnixMilli", "UnixMicro":
				if x, pkg := sel.X.(*ast.Ident); pkg && x.Name == "time" && alwaysPast(n) {
					return true
				}
				wrong = append(wrong, f.at(n.Pos())+": the wall clock may be set: keep a time.Time, or shmio.CoarseNow()")
			}
		}
		return true
	})
	return wrong
}

// alwaysPast reports whether a call is time.Unix(1, 0), which as a deadline means now.
func alwaysPast(c *ast.CallExpr) bool {
	if len(c.Args) != 2 {
		return false
	}
	a, ok := c.Args[0].(*ast.BasicLit)
	b, also := c.Args[1].(*ast.BasicLit)
	return ok && also && a.Value == "1" && b.Value == "0"
}
