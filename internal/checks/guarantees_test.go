package checks

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// What docs/ says to be shown by a test is: the test is there, by that name.
func TestDocsNameTestsThatExist(t *testing.T) {
	tests := map[string]bool{}
	for _, f := range repository(t, top) {
		if !f.test() {
			continue
		}
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
				tests[fn.Name.Name] = true
			}
		}
	}
	pages, err := filepath.Glob(filepath.Join(top, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Z]\\w*)")
	found := 0
	for _, page := range append(pages, filepath.Join(top, "README.md"), filepath.Join(top, "ARCHITECTURE.md")) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range name.FindAllStringSubmatch(string(text), -1) {
			found++
			if !tests[m[1]] {
				t.Errorf("%s names %s, which is no test", page, m[1])
			}
		}
	}
	if found < 10 {
		t.Errorf("only %d tests are named: this looks at the wrong pages", found)
	}
}
