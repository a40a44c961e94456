// Command total adds up what runs of the command cluster have shown: its arguments
// are their reports, or folders with them. Its exit status is 1 if a run found
// anything, was cut short, or if there is none.
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A report is what is used of report.json.
type report struct {
	path           string
	Plan, Cut      string
	Seed           uint64
	Harmed, Faulty time.Duration
	Sends, Acks    int
	Records        int
	Ends           int
	WorstStall     time.Duration
	Faults         []fault
	Groups         *struct{ Commits, Acked, Reads, Told int }
	GivenUp        []string
	Anomalies      []string
}

type fault struct {
	Nemesis         string
	From, To, Stall time.Duration
}

func main() {
	sound, err := run(os.Stdout, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "total:", err)
	}
	if err != nil || !sound {
		os.Exit(1)
	}
}

func run(w io.Writer, paths []string) (sound bool, err error) {
	var reports []report
	for _, root := range paths {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || path != root && d.Name() != "report.json" {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			r := report{path: path}
			if err := json.Unmarshal(text, &r); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			reports = append(reports, r)
			return nil
		})
		if err != nil {
			return false, err
		}
	}
	if len(reports) == 0 {
		return false, errors.New("no report: name report.json of runs, or folders with them")
	}
	slices.SortFunc(reports, func(a, b report) int { return strings.Compare(a.path, b.path) })
	return write(w, reports), nil
}

// kind is what one nemesis did in all runs.
type kind struct {
	name   string
	times  int
	lasted time.Duration
	worst  time.Duration
	seed   uint64 // of the run with the worst
}

// write prints the sum as Markdown and says whether no run has found anything.
func write(w io.Writer, reports []report) (sound bool) {
	sound = true
	var all report
	var commits, acked, told int
	kinds := map[string]*kind{}
	fmt.Fprintf(w, "| seed | harm | with a fault at least | faults | acknowledged | commits | worst stall | found |\n|---|---|---|---|---|---|---|---|\n")
	for _, r := range reports {
		all.Harmed += r.Harmed
		all.Faulty += r.Faulty
		all.Sends += r.Sends
		all.Acks += r.Acks
		all.Records += r.Records
		all.Ends += r.Ends
		own := 0
		if r.Groups != nil {
			commits, acked, told, own = commits+r.Groups.Commits, acked+r.Groups.Acked, told+r.Groups.Told, r.Groups.Acked
		}
		for _, f := range r.Faults {
			k := kinds[f.Nemesis]
			if k == nil {
				k = &kind{name: f.Nemesis}
				kinds[f.Nemesis] = k
			}
			k.times++
			k.lasted += f.To - f.From
			if f.Stall > k.worst {
				k.worst, k.seed = f.Stall, r.Seed
			}
		}
		all.Faults = append(all.Faults, r.Faults...)
		found := slices.Concat(r.Anomalies, r.GivenUp)
		if r.Cut != "" {
			found = append(found, "cut short: "+r.Cut)
		}
		all.Anomalies = append(all.Anomalies, found...)
		fmt.Fprintf(w, "| %d | %s | %s | %d | %d | %d | %s | %d |\n", r.Seed, seconds(r.Harmed), seconds(r.Faulty), len(r.Faults), r.Acks, own, millis(r.WorstStall), len(found))
	}
	fmt.Fprintf(w, "| %d runs | %s | %s | %d | %d | %d | | %d |\n", len(reports), seconds(all.Harmed), seconds(all.Faulty), len(all.Faults), all.Acks, acked, len(all.Anomalies))
	fmt.Fprintf(w, "\nSent %d, acknowledged %d, read back %d records; %d ends told; %d partitions committed, %d acknowledged; %d assignments.\n", all.Sends, all.Acks, all.Records, all.Ends, commits, acked, told)
	fmt.Fprintf(w, "\n| fault | times | lasted in all | worst stall of a partition, seed |\n|---|---|---|---|\n")
	sorted := make([]*kind, 0, len(kinds))
	for _, k := range kinds {
		sorted = append(sorted, k)
	}
	slices.SortFunc(sorted, func(a, b *kind) int { return cmp.Compare(a.name, b.name) })
	for _, k := range sorted {
		fmt.Fprintf(w, "| %s | %d | %s | %s, %d |\n", k.name, k.times, seconds(k.lasted), millis(k.worst), k.seed)
	}
	for _, r := range reports {
		for _, a := range slices.Concat(r.Anomalies, r.GivenUp) {
			fmt.Fprintf(w, "\n- seed %d: %s", r.Seed, a)
			sound = false
		}
		if r.Cut != "" {
			fmt.Fprintf(w, "\n- seed %d: cut short: %s", r.Seed, r.Cut)
			sound = false
		}
	}
	fmt.Fprintln(w)
	return sound
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.0f s", d.Seconds()) }
func millis(d time.Duration) string  { return fmt.Sprintf("%d ms", d.Milliseconds()) }
