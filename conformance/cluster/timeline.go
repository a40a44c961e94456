package main

import (
	"fmt"
	"html"
	"slices"
	"strings"
	"time"
)

// timeline is a picture of the run: a bar for each fault, one row for each kind,
// and below them the acknowledgements in each 100 ms; where there were none the
// ground is red.
func (r *result) timeline() string {
	const (
		left, right, top = 150, 20, 30
		width            = 1100
		rowHeight        = 16
		plotHeight       = 140
	)
	var kinds []string
	for _, f := range r.Faults {
		if !slices.Contains(kinds, f.Nemesis) {
			kinds = append(kinds, f.Nemesis)
		}
	}
	slices.Sort(kinds)
	seconds := max(r.Length.Seconds(), 1)
	x := func(d time.Duration) float64 { return left + d.Seconds()/seconds*(width-left-right) }
	rows := top + rowHeight*len(kinds)
	bottom := rows + 20 + plotHeight
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">`+"\n", width, bottom+40)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/>`+"\n")
	fmt.Fprintf(&b, `<text x="%d" y="16">%s</text>`+"\n", left, html.EscapeString(fmt.Sprintf("seed %d: %d acknowledged, worst stall %s, %d anomalies", r.Seed, r.Acks, millis(r.WorstStall), len(r.Anomalies))))
	for i, n := range r.Throughput {
		if n == 0 {
			at := time.Duration(i) * binLength
			fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="#fbd5d5"/>`+"\n", x(at), top, x(at+binLength)-x(at), bottom-top)
		}
	}
	for i, kind := range kinds {
		y := top + i*rowHeight
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", left-6, y+12, html.EscapeString(kind))
		for _, f := range r.Faults {
			if f.Nemesis != kind {
				continue
			}
			w := max(x(f.To)-x(f.From), 2)
			fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="#3b6ea5"><title>%s</title></rect>`+"\n",
				x(f.From), y+2, w, rowHeight-4, html.EscapeString(fmt.Sprintf("%s, %.1f s to %.1f s, stall %s", f.What, f.From.Seconds(), f.To.Seconds(), millis(f.Stall))))
		}
	}
	highest := max(1, slices.Max(append([]int{0}, r.Throughput...)))
	var points strings.Builder
	for i, n := range r.Throughput {
		fmt.Fprintf(&points, "%.1f,%.1f ", x(time.Duration(i)*binLength), float64(bottom)-float64(n)/float64(highest)*plotHeight)
	}
	fmt.Fprintf(&b, `<polyline fill="none" stroke="#222" stroke-width="1" points="%s"/>`+"\n", points.String())
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%d records/s</text>`+"\n", left-6, bottom-plotHeight+10, highest*int(time.Second/binLength))
	fmt.Fprintf(&b, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="#888"/>`+"\n", left, bottom, width-right, bottom)
	for step, at := tickStep(r.Length), time.Duration(0); at <= r.Length; at += step {
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#888"/><text x="%.1f" y="%d" text-anchor="middle">%.0f s</text>`+"\n",
			x(at), bottom, x(at), bottom+4, x(at), bottom+18, at.Seconds())
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// tickStep is the time between two marks of the axis: some ten of them.
func tickStep(length time.Duration) time.Duration {
	for _, step := range []time.Duration{time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute} {
		if length/step <= 12 {
			return step
		}
	}
	return 10 * time.Minute
}
