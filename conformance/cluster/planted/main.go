// Command planted shows that the harness finds what it is to find: it builds the
// server with bugs on purpose in it (the tag planted), lets the command cluster run
// with one of them at a time and the faults that bring it to light, and says which
// were found, by which rule. Its exit status is 1 if one was not, or if the same
// faults show something without a bug.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/quirelog/quire/conformance/peer"
)

// A bug is one that is planted, and what brings it to light.
type bug struct {
	name    string
	nemeses string
	by      string // regular expression of what must be found
	args    []string
}

// A server that writes to a log of its own learns at once that it is followed, so
// what it would tell of that log shows where nobody writes through it.
var (
	noGroups     = []string{"-groups", "0"}
	fewProducers = append([]string{"-producers", "franz-go", "-rate", "100", "-churn=false"}, noGroups...)
	manyGroups   = []string{"-groups", "8", "-topics", "1", "-group-kinds", "franz-range,rd-range", "-churn=false", "-rate", "30"}
)

// bugs are those of storage/planted.
var bugs = []bug{
	{"ack-before-quorum", "last-bookie", `^(lost|vanished|diverged|misplaced|beyond end|stale end)`, noGroups},
	{"no-fence", "cut-etcd", `^(lost|vanished|diverged|misplaced|duplicated|beyond end|stale end)|gave up`, noGroups},
	{"short-recovery", "kill-owner", `^(lost|vanished|diverged|misplaced|stale end)`, noGroups},
	{"epoch-back", "kill-owner", `^epoch back`, noGroups},
	{"early-high-watermark", "kill-bookies,cut-bookies", `^(lost|vanished|diverged|beyond end|stale end)`, noGroups},
	{"lost-producers", "kill-owner", `^(duplicated|misplaced)|gave up`, noGroups},
	{"lost-handover", "drain", `^(lost|vanished|diverged|stale end)`, noGroups},
	{"zero-end", "kill-owner", `^(zero end|stale end|lost)`, noGroups},
	{"zombie-ends", "cut-etcd", `^(stale|zero) end`, fewProducers},
	{"serve-after-expiry", "cut-etcd", `^(stale|zero) end|^groups: (rolled back|undone)`, noGroups},
	{"stale-offsets", "cut-etcd", `^groups: (rolled back|undone|stale|shared)`, manyGroups},
	{"unguarded-commits", "pause-owner,cut-etcd", `^groups: (rolled back|undone|invented|stale)`, manyGroups},
	{"forgotten-groups", "kill-owner", `^groups: `, manyGroups},
	{"forward-twice", "none", `^(duplicated|misplaced)`, append([]string{"-producers", "franz-go-once,franz-go-once"}, noGroups...)},
	{"mixed-answers", "none", `^(misplaced|diverged|lost|duplicated|stale end|beyond end)|gave up`, noGroups},
}

// hold is the longest time for which a fault lasts: a server that is cut off from
// etcd is followed after its lease of 3 s at the earliest, and only then can it lie.
const hold = 14 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "planted:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	only := flag.String("bugs", "", "regular expression of the bugs to try")
	duration := flag.Duration("duration", 30*time.Second, "of the faults of one run")
	tries := flag.Int("tries", 3, "runs for each bug, each with another seed, until it is found")
	seed := flag.Uint64("seed", 1, "of the first try")
	sound := flag.Bool("sound", false, "run each kind of faults without a bug too: nothing must be found")
	flag.Parse()
	pattern, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	server, err := peer.BuildPlanted()
	if err != nil {
		return err
	}
	harness, err := peer.BuildCommand("cluster")
	if err != nil {
		return err
	}
	t := trial{harness: harness, server: server, duration: *duration}
	var failed []string
	for _, b := range bugs {
		if !pattern.MatchString(b.name) {
			continue
		}
		found := ""
		begun := time.Now()
		try := 0
		for ; try < *tries && found == "" && ctx.Err() == nil; try++ {
			if found, err = t.run(ctx, b, b.name, *seed+uint64(try)); err != nil {
				return fmt.Errorf("%s: %w", b.name, err)
			}
		}
		took := time.Since(begun).Round(time.Second)
		if found == "" {
			failed = append(failed, b.name)
			fmt.Printf("%-22s NOT FOUND in %d runs, %s\n", b.name, try, took)
			continue
		}
		fmt.Printf("%-22s found in run %d, %s: %.200s\n", b.name, try, took, found)
	}
	if *sound {
		var done []string
		for _, b := range bugs {
			kind := b.nemeses + strings.Join(b.args, " ")
			if slices.Contains(done, kind) || !pattern.MatchString(b.name) {
				continue
			}
			done = append(done, kind)
			found, err := t.run(ctx, b, "", *seed)
			if err != nil {
				return err
			}
			if found != "" {
				failed = append(failed, "no bug, "+b.nemeses)
				fmt.Printf("no bug, %-14s FOUND %.200s\n", b.nemeses, found)
			} else {
				fmt.Printf("no bug, %-14s nothing found\n", b.nemeses)
			}
		}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if len(failed) > 0 {
		return fmt.Errorf("not as it should be: %s", strings.Join(failed, ", "))
	}
	return nil
}

type trial struct {
	harness, server string
	duration        time.Duration
}

// run returns the first thing that the harness finds in a run, "" for nothing.
func (t *trial) run(ctx context.Context, b bug, acting string, seed uint64) (found string, err error) {
	dir, err := peer.DataDir("", "planted")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	report := filepath.Join(dir, "report")
	args := append([]string{
		"-bin", t.server, "-nemeses", b.nemeses, "-duration", t.duration.String(), "-seed", fmt.Sprint(seed), "-etcd", "1", "-bookies", "3",
		"-dir", filepath.Join(dir, "run"), "-report", report, "-env", "PLANTED_BUG=" + acting, "-max-gap", "2s", "-hold", hold.String(),
	}, b.args...)
	cmd := exec.CommandContext(ctx, t.harness, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	out, runErr := cmd.CombinedOutput()
	text, err := os.ReadFile(filepath.Join(report, "report.json"))
	if err != nil {
		return "", fmt.Errorf("%w: %w\n%s", err, runErr, out)
	}
	var result struct{ Anomalies, GivenUp []string }
	if err := json.Unmarshal(text, &result); err != nil {
		return "", err
	}
	all := append(result.Anomalies, result.GivenUp...)
	if acting == "" && len(all) > 0 {
		return all[0], nil
	}
	by := regexp.MustCompile(b.by)
	if i := slices.IndexFunc(all, by.MatchString); acting != "" && i >= 0 {
		return all[i], nil
	}
	if runErr != nil && acting == "" {
		return "the run fails: " + lastLine(out), nil
	}
	if runErr != nil {
		fmt.Printf("%s, seed %d: not this: %.300s\n", acting, seed, lastLine(out))
	}
	return "", nil
}

// lastLine is the error that the harness ended with, without the place of its data.
func lastLine(out []byte) string {
	for line := range strings.SplitSeq(string(out), "\n") {
		if rest, ok := strings.CutPrefix(line, "cluster: "); ok {
			return rest
		}
	}
	return "without a word"
}
