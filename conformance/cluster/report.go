package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/quirelog/quire/conformance/check"
)

// A result is what a run has to show.
type result struct {
	Plan        string
	Seed        uint64
	Cut         string        // why the harm ended before its time
	Length      time.Duration // from the first record sent to the last
	Harmed      time.Duration // of it until the end of all harm
	Faulty      time.Duration // of it with a fault at least
	Sends, Acks int
	Refused     int // sends that the servers did not want
	GivenUp     []string
	Records     int // in the logs at the end
	TailRecords int // seen by those who followed them
	Ends        int // answers to questions for the ends of logs
	Churned     int // topics led from their making to their deletion
	Faults      []fault
	Groups      *groupReport
	Calls       *callReport

	// Throughput is the acknowledgements in each binLength; a record counts when its
	// producer is told.
	Throughput   []int
	Availability float64       // share of bins with an acknowledgement
	WorstStall   time.Duration // longest time for which a partition had no acknowledgement
	WorstAt      time.Duration
	Latency      map[string]time.Duration // of sends, by percentile

	Anomalies []string
}

const (
	binLength = 100 * time.Millisecond
	// afterFault is how long after it was healed a fault is held to account.
	afterFault = 8 * time.Second
)

func (r *result) add(found []check.Violation) {
	for _, v := range found {
		r.Anomalies = append(r.Anomalies, v.String())
	}
}

// found takes an error down as an anomaly.
func (r *result) found(err error) {
	if err != nil {
		r.Anomalies = append(r.Anomalies, err.Error())
	}
}

// measure finds out what the faults cost, from the history of a run that ended at
// end.
func (r *result) measure(h check.History, faults []fault, end time.Duration) {
	r.Length = end
	r.Faults = slices.Clone(faults)
	slices.SortFunc(r.Faults, func(a, b fault) int { return cmp.Compare(a.From, b.From) })
	var until time.Duration
	for _, f := range r.Faults {
		r.Faulty += max(0, f.To-max(f.From, until))
		until = max(until, f.To)
	}
	r.Throughput = make([]int, end/binLength+1)
	var latencies []time.Duration
	for p, acks := range h.Acks {
		r.Sends += len(h.Sends[p])
		r.Acks += len(acks)
		r.Refused += len(h.Refusals[p])
		sent := make(map[check.ID]int64, len(h.Sends[p]))
		for _, s := range h.Sends[p] {
			sent[s.ID] = s.At
		}
		times := make([]int64, 0, len(acks))
		for _, a := range acks {
			times = append(times, a.At)
			latencies = append(latencies, time.Duration(a.At-sent[a.ID]))
			if bin := time.Duration(a.At) / binLength; bin < time.Duration(len(r.Throughput)) {
				r.Throughput[bin]++
			}
		}
		slices.Sort(times)
		if at, stall := check.LongestGap(times, 0, end); stall > r.WorstStall {
			r.WorstStall, r.WorstAt = stall, at
		}
		for i := range r.Faults {
			f := &r.Faults[i]
			until := min(f.To+afterFault, end)
			if i+1 < len(r.Faults) && r.Faults[i+1].From > f.To {
				until = min(until, r.Faults[i+1].From)
			}
			if _, stall := check.LongestGap(times, f.From, until); stall > f.Stall {
				f.Stall = stall
			}
		}
	}
	served := 0
	for _, n := range r.Throughput {
		if n > 0 {
			served++
		}
	}
	r.Availability = float64(served) / float64(len(r.Throughput))
	slices.Sort(latencies)
	r.Latency = map[string]time.Duration{}
	if n := len(latencies); n > 0 {
		for name, share := range map[string]float64{"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1} {
			r.Latency[name] = latencies[min(n-1, int(share*float64(n)))]
		}
	}
}

func millis(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }

// markdown is the summary for people.
func (r *result) markdown() string {
	var b strings.Builder
	verdict := "no anomaly"
	if n := len(r.Anomalies); n > 0 {
		verdict = fmt.Sprintf("**%d anomalies**", n)
	}
	if r.Cut != "" {
		verdict += ", **cut short**"
	}
	fmt.Fprintf(&b, "# Cluster run: %s\n\n%s. Seed %d, harm for %s, %s of it with a fault at least.\n\n", verdict, r.Plan, r.Seed, r.Harmed.Round(time.Second), r.Faulty.Round(time.Second))
	if r.Cut != "" {
		fmt.Fprintf(&b, "Cut short: %s\n\n", r.Cut)
	}
	fmt.Fprintf(&b, "| | |\n|---|---|\n")
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "| %s | %s |\n", name, fmt.Sprintf(format, args...))
	}
	row("records sent, acknowledged, read back twice", "%d, %d, %d", r.Sends, r.Acks, r.Records)
	row("records refused, given up by a client", "%d, %s", r.Refused, cmp.Or(strings.Join(r.GivenUp, "; "), "none"))
	row("records seen by followers of the logs", "%d", r.TailRecords)
	row("answers about ends of logs", "%d", r.Ends)
	row("topics made, grown, changed and deleted", "%d", r.Churned)
	row("100 ms with an acknowledgement", "%.2f %%", 100*r.Availability)
	row("worst stall of a partition", "%s, from %.1f s on", millis(r.WorstStall), r.WorstAt.Seconds())
	row("send to acknowledgement, p50, p99, p99.9, longest", "%s, %s, %s, %s", millis(r.Latency["p50"]), millis(r.Latency["p99"]), millis(r.Latency["p99.9"]), millis(r.Latency["max"]))
	if g := r.Groups; g != nil {
		row("groups: members that came and left", "%d, %d", g.Came, g.Left)
		row("groups: commits, acknowledged, read back", "%d, %d, %d", g.Commits, g.Acked, g.Reads)
		row("groups: assignments told, records", "%d, %d", g.Told, g.Records)
		if len(g.Mute) > 0 {
			row("groups: libraries that came to a standstill by themselves", "%s", strings.Join(g.Mute, "; "))
		}
	}
	if c := r.Calls; c != nil {
		for _, kind := range []struct {
			name string
			callCount
		}{{"produce", c.Produce}, {"fetch", c.Fetch}, {"commit", c.Commit}} {
			row("calls, sent once each: "+kind.name, "%d, %d failed %v, longest %s", kind.Made, kind.Failed, kind.Errors, millis(kind.Longest))
		}
	}
	type sum struct {
		name         string
		count        int
		worst, total time.Duration
	}
	byName := map[string]*sum{}
	var sums []*sum
	for _, f := range r.Faults {
		s := byName[f.Nemesis]
		if s == nil {
			s = &sum{name: f.Nemesis}
			byName[f.Nemesis] = s
			sums = append(sums, s)
		}
		s.count++
		s.worst = max(s.worst, f.Stall)
		s.total += f.To - f.From
	}
	slices.SortFunc(sums, func(a, b *sum) int { return cmp.Compare(a.name, b.name) })
	if len(sums) > 0 {
		fmt.Fprintf(&b, "\n| fault | times | lasted in all | worst stall of a partition |\n|---|---|---|---|\n")
	}
	for _, s := range sums {
		fmt.Fprintf(&b, "| %s | %d | %.1f s | %s |\n", s.name, s.count, s.total.Seconds(), millis(s.worst))
	}
	if len(r.Anomalies) > 0 {
		fmt.Fprintf(&b, "\n## Anomalies\n\n")
		const shown = 40
		for i, a := range r.Anomalies {
			if i == shown {
				fmt.Fprintf(&b, "- and %d more\n", len(r.Anomalies)-shown)
				break
			}
			fmt.Fprintf(&b, "- %s\n", a)
		}
	}
	return b.String()
}

// write puts the report into a folder.
func (r *result) write(dir string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	return errors.Join(err, os.MkdirAll(dir, 0o755),
		os.WriteFile(filepath.Join(dir, "report.json"), append(text, '\n'), 0o644),
		os.WriteFile(filepath.Join(dir, "report.md"), []byte(r.markdown()), 0o644),
		os.WriteFile(filepath.Join(dir, "timeline.svg"), []byte(r.timeline()), 0o644))
}

// verdict is nil only for a run that proves something and found nothing.
func (r *result) verdict(maxStall time.Duration, undisturbed bool) error {
	var failed []error
	if r.Cut != "" {
		failed = append(failed, fmt.Errorf("cut short: %s", r.Cut))
	}
	if n := len(r.Anomalies); n > 0 {
		failed = append(failed, fmt.Errorf("%d anomalies, first: %s", n, r.Anomalies[0]))
	}
	for _, g := range r.GivenUp {
		failed = append(failed, errors.New(g))
	}
	if r.Acks == 0 || r.TailRecords == 0 || r.Ends == 0 || r.Groups != nil && (r.Groups.Acked == 0 || r.Groups.Told == 0) {
		failed = append(failed, errors.New("nothing was shown: no acknowledgement, no record followed, no end told, or no commit"))
	}
	if undisturbed {
		if err := r.Calls.undisturbed(); err != nil {
			failed = append(failed, err)
		}
	}
	if maxStall > 0 && r.WorstStall > maxStall {
		failed = append(failed, fmt.Errorf("a partition took no writes for %s, want %s at most", millis(r.WorstStall), millis(maxStall)))
	}
	return errors.Join(failed...)
}

// writeHistory writes every call down, one JSON object a line in no order: who
// called, when it began and ended, and its outcome: ok, failed (for certain), or
// unknown.
func writeHistory(path string, h check.History, faults []fault) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b := bufio.NewWriterSize(f, 1<<16)
	defer func() { err = errors.Join(err, b.Flush()) }()
	for p, sends := range h.Sends {
		acked := map[check.ID]check.Ack{}
		for _, a := range h.Acks[p] {
			acked[a.ID] = a
		}
		refused := map[check.ID]check.Refusal{}
		for _, r := range h.Refusals[p] {
			refused[r.ID] = r
		}
		for _, s := range sends {
			fmt.Fprintf(b, `{"call":"send","partition":%q,"producer":%d,"sequence":%d,"start":%d,`, p, s.ID.Producer(), s.ID.Sequence(), s.At)
			if a, ok := acked[s.ID]; ok {
				fmt.Fprintf(b, `"end":%d,"outcome":"ok","offset":%d}`, a.At, a.Offset)
			} else if r, ok := refused[s.ID]; ok {
				fmt.Fprintf(b, `"end":%d,"outcome":"failed","why":%q}`, r.At, r.Why)
			} else {
				fmt.Fprint(b, `"outcome":"unknown"}`)
			}
			b.WriteByte('\n')
		}
	}
	for p, ends := range h.Ends {
		for _, e := range ends {
			fmt.Fprintf(b, `{"call":"end","partition":%q,"start":%d,"end":%d,"outcome":"ok","offset":%d}`+"\n", p, e.Asked, e.Answered, e.Offset)
		}
	}
	for _, f := range faults {
		fmt.Fprintf(b, `{"call":"fault","nemesis":%q,"what":%q,"start":%d,"end":%d}`+"\n", f.Nemesis, f.What, f.From, f.To)
	}
	return nil
}
