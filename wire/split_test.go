package wire

import (
	"slices"
	"testing"
)

func TestSplitFrames(t *testing.T) {
	for _, c := range []struct{ sizes, pieces []int }{
		{nil, nil},
		{[]int{0}, []int{1}},
		{[]int{FrameShare, 1, FrameShare - 1, 1}, []int{1, 2, 1}},
		{[]int{2 * FrameShare, 2 * FrameShare}, []int{1, 1}},
		{[]int{1, 1, FrameShare}, []int{2, 1}},
	} {
		var got, all []int
		for _, p := range SplitFrames(c.sizes, func(n int) int { return n }) {
			got, all = append(got, len(p)), append(all, p...)
		}
		if !slices.Equal(got, c.pieces) || !slices.Equal(all, c.sizes) {
			t.Errorf("%v: pieces of %v", c.sizes, got)
		}
	}
}
