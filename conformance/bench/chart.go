package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// The chart's colours tell the three apart in grey and for the colour-blind.
var chartColours = map[string]string{"kafka": "#9aa5b1", "kafka-flush": "#d3dae2", "quire": "#0b6e99"}

// chart draws the throughput of each cell as bars, least to greatest as a
// line across the bar's end.
func chart(res *results) string {
	const (
		left, right, top = 250, 150, 70
		barHeight, gap   = 14, 3
		width            = 960
		plot             = width - left - right
	)
	w := &writer{res: res}
	rows := w.produceRows()
	rowHeight := len(contenders)*(barHeight+gap) + 14
	height := top + len(rows)*rowHeight + 30
	most := 0.0
	for _, r := range rows {
		for _, c := range contenders {
			if s, ok := w.stats(r.cell, c.Key, megabytesPerSec); ok {
				most = math.Max(most, s.max)
			}
		}
	}
	if most == 0 {
		most = 1
	}
	x := func(v float64) float64 { return left + v/most*plot }

	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, height)
	fmt.Fprintf(&b, `<text x="16" y="24" font-size="16" fill="#1f2933">Produce throughput, MB/s, acks=all (median, least–greatest of %d paired runs)</text>`+"\n", w.pairs())
	for i, c := range contenders {
		at := 16 + i*250
		title := c.Title
		if c.Key == "quire" {
			title += " (fsync before each acknowledgement)"
		}
		fmt.Fprintf(&b, `<rect x="%d" y="38" width="12" height="12" fill="%s"/><text x="%d" y="48" fill="#3e4c59">%s</text>`+"\n", at, chartColours[c.Key], at+18, html.EscapeString(title))
	}
	step := tickStep(most)
	for v := 0.0; v <= most; v += step {
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#e4e7eb"/><text x="%.1f" y="%d" text-anchor="middle" fill="#616e7c">%.0f</text>`+"\n",
			x(v), top-8, x(v), height-28, x(v), height-12, v)
	}
	for i, r := range rows {
		y := top + i*rowHeight
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end" fill="#1f2933">%s</text>`+"\n", left-10, y+rowHeight/2-2, html.EscapeString(r.shortTitle()))
		for j, c := range contenders {
			s, ok := w.stats(r.cell, c.Key, megabytesPerSec)
			if !ok {
				continue
			}
			top := y + j*(barHeight+gap)
			middle := float64(top) + barHeight/2.0
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, left, top, x(s.median)-left, barHeight, chartColours[c.Key])
			fmt.Fprintf(&b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#1f2933"/>`, x(s.min), middle, x(s.max), middle)
			label := number(s.median)
			if ratio, ok := w.ratio(r.cell, "kafka", recordsPerSecond); ok && c.Key == "quire" {
				label += fmt.Sprintf("  (%s × shipped)", number(ratio))
			}
			fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" fill="#1f2933">%s</text>`+"\n", x(s.max)+6, middle+4, html.EscapeString(label))
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (r produceRow) shortTitle() string {
	if r.client.Key == defaults.Key {
		return r.shape.String()
	}
	return r.shape.String() + ", " + r.client.Key
}

// tickStep is 1, 2 or 5 times a power of ten, for about eight ticks.
func tickStep(most float64) float64 {
	step := math.Pow(10, math.Floor(math.Log10(most/8)))
	for _, m := range []float64{1, 2, 5, 10} {
		if most/(step*m) <= 8 {
			return step * m
		}
	}
	return step * 10
}
