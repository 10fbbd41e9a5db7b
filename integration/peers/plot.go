package main

import (
	"bytes"
	"fmt"
	"math"
)

// plots draws latency and rate over size, both axes logarithmic.
func (p plan) plots(r results) map[string][]byte {
	return map[string][]byte{
		"benchmarks-latency.svg": p.plot(r, "round trip, median, µs", func(f figure) float64 { return float64(f.P50) / 1e3 }),
		"benchmarks-rate.svg":    p.plot(r, "one way, messages/s", func(f figure) float64 { return f.Rate }),
	}
}

var colours = []string{"#1b6ca8", "#3fa7d6", "#8cc8ec", "#d1495b", "#edae49", "#66a182", "#7d5ba6", "#2e4057", "#a0522d"}

func (p plan) plot(r results, title string, value func(figure) float64) []byte {
	const w, h, left, top, right, bottom = 760, 420, 70, 40, 150, 50
	lowX, highX := math.Log10(float64(p.sizes[0])), math.Log10(float64(p.sizes[len(p.sizes)-1]))
	lowY, highY := math.Inf(1), math.Inf(-1)
	who := messengers(p.who)
	for _, k := range who {
		for _, s := range p.sizes {
			if f := r.figures[k.name][s]; f.Note == "" && value(f) > 0 {
				lowY, highY = min(lowY, math.Floor(math.Log10(value(f)))), max(highY, math.Ceil(math.Log10(value(f))))
			}
		}
	}
	x := func(size int) float64 {
		if highX == lowX {
			return left + (w-left-right)/2
		}
		return left + (math.Log10(float64(size))-lowX)/(highX-lowX)*(w-left-right)
	}
	y := func(v float64) float64 {
		return top + (highY-math.Log10(v))/max(highY-lowY, 1)*(h-top-bottom)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", w, h)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/><text x="%d" y="22" font-size="15">%s</text>`+"\n", w, h, left, title)
	for e := lowY; e <= highY; e++ {
		at := y(math.Pow(10, e))
		fmt.Fprintf(&b, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
			left, at, w-right, at, left-6, at+4, axis(math.Pow(10, e)))
	}
	for _, s := range p.sizes {
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#eee"/><text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n",
			x(s), top, x(s), h-bottom, x(s), h-bottom+18, bytesOf(s))
	}
	for i, k := range who {
		colour := colours[i%len(colours)]
		var points bytes.Buffer
		for _, s := range p.sizes {
			f := r.figures[k.name][s]
			if f.Note != "" || value(f) <= 0 {
				continue
			}
			fmt.Fprintf(&points, "%.1f,%.1f ", x(s), y(value(f)))
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", x(s), y(value(f)), colour)
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", points.String(), colour)
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="10" height="10" fill="%s"/><text x="%d" y="%d">%s</text>`+"\n",
			w-right+15, top+i*20, colour, w-right+30, top+i*20+10, k.name)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func axis(v float64) string {
	if v >= 1e3 {
		return count(v)
	}
	return fmt.Sprintf("%g", v)
}
