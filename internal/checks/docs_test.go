package checks

import (
	"go/ast"
	"go/token"
)

// exportedIsDocumented: in the libraries, everything exported has a comment: functions, methods of exported types,
// types, methods of exported interfaces (an only one may share its interface's); a group of constants or variables may
// share the group's. error's and fmt.Stringer's methods speak for themselves; fields are told about where their struct
// is, if they need it.
func exportedIsDocumented(f file) []string {
	if !belowAny(f.dir(), "wire", "shmio", "node", "actors") || f.test() {
		return nil
	}
	var wrong []string
	undocumented := func(name *ast.Ident, comments ...*ast.CommentGroup) {
		if !name.IsExported() {
			return
		}
		for _, c := range comments {
			if c.Text() != "" {
				return
			}
		}
		wrong = append(wrong, f.at(name.Pos())+": "+name.Name+" is exported and has no comment")
	}
	for _, d := range f.ast.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil || ast.IsExported(receiver(d)) && !wellKnown(d) {
				undocumented(d.Name, d.Doc)
			}
		case *ast.GenDecl:
			if d.Tok == token.IMPORT {
				continue
			}
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					undocumented(s.Name, d.Doc, s.Doc, s.Comment)
					if i, ok := s.Type.(*ast.InterfaceType); ok && s.Name.IsExported() && i.Methods.NumFields() > 1 {
						for _, m := range i.Methods.List {
							for _, name := range m.Names {
								undocumented(name, m.Doc, m.Comment)
							}
						}
					}
				case *ast.ValueSpec:
					for _, name := range s.Names {
						undocumented(name, d.Doc, s.Doc, s.Comment)
					}
				}
			}
		}
	}
	return wrong
}

// wellKnown reports whether a method is Error or String, without parameters.
func wellKnown(d *ast.FuncDecl) bool {
	return (d.Name.Name == "Error" || d.Name.Name == "String") && len(d.Type.Params.List) == 0
}

// receiver is the name of the type that a method belongs to.
func receiver(d *ast.FuncDecl) string {
	for t := d.Recv.List[0].Type; ; {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.ParenExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}
