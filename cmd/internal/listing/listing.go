// Package listing renders one list of rows in many ways: a table, JSON, bare ids; sorted by any column.
//
// It owns the rendering. It knows nothing of the bus, and it trusts no text in a row: names and topics are chosen by
// whoever is on the bus, so control characters never reach a terminal.
package listing

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Column is one column of a listing of T.
type Column[T any] struct {
	// Key is the column's name: the word for --sort, and the field in JSON.
	Key string
	// Header heads the table's column; "": the key.
	Header string
	// Value is what JSON shows and --sort compares: a string, an integer, a float or a slice of strings.
	Value func(T) any
	// Text is what the table shows; nil: the value, plainly.
	Text func(T) string
	// Right aligns the column to the right.
	Right bool
	// Claimed marks what a node says about itself: the header carries a star.
	Claimed bool
	// JSONOnly keeps the column out of the table.
	JSONOnly bool
}

// Listing describes how a kind of row is listed.
type Listing[T any] struct {
	// Name is the field of the JSON document that holds the rows.
	Name    string
	Columns []Column[T]
	// ID is what -q prints, a line a row.
	ID func(T) string
	// Sort is the column that sorts when none is asked for; like Options.Sort.
	Sort string
}

// Options says how to render.
type Options struct {
	JSON  bool
	Quiet bool
	// Sort is a column's key, with a '-' before it for the reverse order.
	Sort string
	// Width cuts table lines to so many columns; 0: never.
	Width int
	// Bold makes the header bold.
	Bold bool
	// Compact puts a JSON document on one line, for streams of them.
	Compact bool
}

// ErrNoColumn is an Options.Sort that names no column.
type ErrNoColumn struct {
	Key   string
	Known []string
}

func (e *ErrNoColumn) Error() string {
	return fmt.Sprintf("no column %q to sort by; there are %s", e.Key, strings.Join(e.Known, ", "))
}

// Keys lists the columns' keys, for help and completion.
func (l Listing[T]) Keys() []string {
	keys := make([]string, len(l.Columns))
	for i, c := range l.Columns {
		keys[i] = c.Key
	}
	return keys
}

// column finds a column by its key or its header.
func (l Listing[T]) column(key string) (Column[T], bool) {
	for _, c := range l.Columns {
		if c.Key == key || c.Header != "" && strings.ReplaceAll(c.Header, " ", "_") == key {
			return c, true
		}
	}
	return Column[T]{}, false
}

// CheckSort says whether key can be sorted by ("" can).
func (l Listing[T]) CheckSort(key string) error {
	key = strings.TrimPrefix(key, "-")
	if _, ok := l.column(key); ok || key == "" {
		return nil
	}
	return &ErrNoColumn{Key: key, Known: l.Keys()}
}

// Extra is a field of the JSON document besides the rows, and a line below the table.
type Extra struct {
	Key   string
	Value any
	// Text is the line below the table; "": none.
	Text string
}

// Render writes rows to w. It sorts rows in place.
func (l Listing[T]) Render(w io.Writer, rows []T, o Options, extras ...Extra) error {
	if err := l.sort(rows, o.Sort); err != nil {
		return err
	}
	switch {
	case o.Quiet:
		return l.quiet(w, rows)
	case o.JSON:
		return l.json(w, rows, o, extras)
	default:
		return l.table(w, rows, o, extras)
	}
}

func (l Listing[T]) sort(rows []T, by string) error {
	if by == "" {
		by = l.Sort
	}
	if err := l.CheckSort(by); err != nil {
		return err
	}
	key, reverse := strings.CutPrefix(by, "-")
	c, ok := l.column(key)
	if !ok {
		return nil
	}
	slices.SortStableFunc(rows, func(a, b T) int {
		n := compare(c.Value(a), c.Value(b))
		if reverse {
			return -n
		}
		return n
	})
	return nil
}

// compare orders two values of one column.
func compare(a, b any) int {
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	switch {
	case x.CanInt() && y.CanInt():
		return cmp.Compare(x.Int(), y.Int())
	case x.CanUint() && y.CanUint():
		return cmp.Compare(x.Uint(), y.Uint())
	case x.CanFloat() && y.CanFloat():
		return cmp.Compare(x.Float(), y.Float())
	case x.Kind() == reflect.Slice && y.Kind() == reflect.Slice && x.Len() != y.Len():
		return cmp.Compare(x.Len(), y.Len())
	default:
		return cmp.Compare(plain(a), plain(b))
	}
}

func (l Listing[T]) quiet(w io.Writer, rows []T) error {
	var b strings.Builder
	for _, r := range rows {
		b.WriteString(Clean(l.ID(r)))
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// json keeps the columns' order, which a map would not.
func (l Listing[T]) json(w io.Writer, rows []T, o Options, extras []Extra) error {
	var b strings.Builder
	var err error
	put := func(key string, v any) {
		text, e := json.Marshal(v)
		if e != nil && err == nil {
			err = fmt.Errorf("column %s: %w", key, e)
		}
		b.WriteString(strconv.Quote(key) + ":")
		b.Write(text)
	}
	b.WriteString("{" + strconv.Quote(l.Name) + ":[")
	for i, r := range rows {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('{')
		for j, c := range l.Columns {
			if j > 0 {
				b.WriteByte(',')
			}
			v := c.Value(r)
			if s, ok := v.([]string); ok && s == nil {
				v = []string{}
			}
			put(c.Key, v)
		}
		b.WriteByte('}')
	}
	b.WriteByte(']')
	for _, x := range extras {
		b.WriteByte(',')
		put(x.Key, x.Value)
	}
	b.WriteByte('}')
	if err != nil {
		return err
	}
	text := b.String()
	if !o.Compact {
		var pretty strings.Builder
		enc := json.NewEncoder(&pretty)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		if err := enc.Encode(json.RawMessage(text)); err != nil {
			return err
		}
		text = strings.TrimSuffix(pretty.String(), "\n")
	}
	_, err = io.WriteString(w, text+"\n")
	return err
}

func (l Listing[T]) table(w io.Writer, rows []T, o Options, extras []Extra) error {
	var cols []Column[T]
	for _, c := range l.Columns {
		if !c.JSONOnly {
			cols = append(cols, c)
		}
	}
	cells := make([][]string, 0, len(rows)+1)
	head := make([]string, len(cols))
	for i, c := range cols {
		head[i] = strings.ToUpper(cmp.Or(c.Header, strings.ReplaceAll(c.Key, "_", " ")))
		if c.Claimed {
			head[i] += "*"
		}
	}
	cells = append(cells, head)
	for _, r := range rows {
		line := make([]string, len(cols))
		for i, c := range cols {
			if c.Text != nil {
				line[i] = Clean(c.Text(r))
			} else {
				line[i] = Clean(plain(c.Value(r)))
			}
			if line[i] == "" {
				line[i] = "-"
			}
		}
		cells = append(cells, line)
	}
	widths := make([]int, len(cols))
	for _, line := range cells {
		for i, s := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(s))
		}
	}
	var b strings.Builder
	for n, line := range cells {
		var row strings.Builder
		for i, s := range line {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(s))
			switch {
			case cols[i].Right:
				row.WriteString(pad + s)
			default:
				row.WriteString(s + pad)
			}
			if i < len(line)-1 {
				row.WriteString("  ")
			}
		}
		text := cut(strings.TrimRight(row.String(), " "), o.Width)
		if n == 0 && o.Bold {
			text = "\x1b[1m" + text + "\x1b[0m"
		}
		b.WriteString(text + "\n")
	}
	for _, x := range extras {
		if x.Text != "" {
			b.WriteString(cut(Clean(x.Text), o.Width) + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func cut(s string, width int) string {
	if width <= 0 || utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:max(width-1, 0)]) + "…"
}

// plain is a value as a table shows it without a Text.
func plain(v any) string {
	switch x := v.(type) {
	case string:
		return x
	case []string:
		return strings.Join(x, ",")
	case float64:
		return strconv.FormatFloat(x, 'f', 1, 64)
	default:
		return fmt.Sprint(v)
	}
}

// Clean makes text from the bus safe for a terminal: what isn't printable is shown escaped.
func Clean(s string) string {
	if strings.IndexFunc(s, hidden) < 0 && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if hidden(r) || r == utf8.RuneError && n == 1 {
			q := strconv.QuoteToASCII(s[i : i+n])
			b.WriteString(q[1 : len(q)-1])
		} else {
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

// hidden are the runes that a terminal acts on or doesn't show, the overrides of writing direction among them.
func hidden(r rune) bool { return !unicode.IsPrint(r) }
