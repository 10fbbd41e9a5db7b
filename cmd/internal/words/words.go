// Package words counts words.
package words

// Count counts as wc -w does in the C locale: runs of bytes that aren't white space.
func Count(b []byte) (words int) {
	inside := false
	for _, c := range b {
		space := c == ' ' || c >= '\t' && c <= '\r'
		if !inside && !space {
			words++
		}
		inside = !space
	}
	return words
}
