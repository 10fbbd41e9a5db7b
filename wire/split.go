package wire

// FrameShare is how many bytes of a frame a list should take at most: beside it there is room for everything else.
const FrameShare = MaxFrame / 2

// SplitFrames cuts a list into pieces of at most FrameShare bytes each, a piece having one item at least; size is what an
// item takes. An empty list has no pieces.
func SplitFrames[T any](items []T, size func(T) int) (pieces [][]T) {
	from, sum := 0, 0
	for i, it := range items {
		n := size(it)
		if i > from && sum+n > FrameShare {
			pieces = append(pieces, items[from:i:i])
			from, sum = i, 0
		}
		sum += n
	}
	if from < len(items) {
		pieces = append(pieces, items[from:])
	}
	return pieces
}
