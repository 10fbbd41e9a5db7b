package checks

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/bhome-bus/bhome"

// file is one parsed Go file.
type file struct {
	path string // from the repository's top, with slashes
	fset *token.FileSet
	ast  *ast.File
}

func (f file) test() bool  { return strings.HasSuffix(f.path, "_test.go") }
func (f file) dir() string { return path.Dir(f.path) }

// at says where something is: file and line.
func (f file) at(pos token.Pos) string {
	return fmt.Sprintf("%s:%d", f.path, f.fset.Position(pos).Line)
}

// imports is the file's import paths, each with where it is.
func (f file) imports() map[string]string {
	m := map[string]string{}
	for _, s := range f.ast.Imports {
		if p, err := strconv.Unquote(s.Path.Value); err == nil {
			m[p] = f.at(s.Pos())
		}
	}
	return m
}

// below reports whether the slash-separated path p is top or lies below it.
func below(p, top string) bool { return p == top || strings.HasPrefix(p, top+"/") }

// belowAny is below for any of tops.
func belowAny(p string, tops ...string) bool {
	for _, top := range tops {
		if below(p, top) {
			return true
		}
	}
	return false
}

// parse parses one file that a test wrote down.
func parse(t *testing.T, path, source string) file {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, path, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return file{path: path, fset: fset, ast: f}
}

// repository parses every Go file of the repository, whatever its build constraints.
func repository(t *testing.T, top string) []file {
	t.Helper()
	fset := token.NewFileSet()
	var files []file
	err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if p != top && (name == "testdata" || name == "vendor" || name[0] == '.' || name[0] == '_') {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(name) != ".go" {
			return nil
		}
		f, err := parser.ParseFile(fset, p, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, p)
		if err != nil {
			return err
		}
		files = append(files, file{path: filepath.ToSlash(rel), fset: fset, ast: f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
