package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/quirelog/quire/conformance/peer"
)

// The files that a run is compared with and, with -update, writes. All are
// made of the first.
const (
	resultsFile       = "zoo/results.txt"
	resultsTable      = "RESULTS.md"
	compatibilityFile = "COMPATIBILITY.md"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "zoo:", err)
		os.Exit(1)
	}
}

// The committed results are about quire. Several nodes that look like one give the
// same.
const (
	quire   = "quire"
	cluster = "cluster"
	foreign = "foreign"
)

func run(ctx context.Context) error {
	var (
		pattern  = flag.String("rows", "", "run the rows whose names match this regular expression")
		full     = flag.Bool("full", false, "run all rows; without this and -rows it is CI's short set")
		update   = flag.Bool("update", false, "write what this run found to "+resultsFile+" and the tables made of it")
		target   = flag.String("target", quire, "what they talk to: quire; cluster: three behind one address; foreign: one of three that owns nothing; kafka-3.9.1 or kafka-4.4.0")
		parallel = flag.Int("parallel", 3, "programs that run at once")
		apis     = flag.Bool("apis", false, "run no client, ask only for the server's API versions")
		tables   = flag.Bool("tables", false, "run nothing, write the tables made of "+resultsFile)
		fetch    = flag.Bool("fetch", false, "install the rows and run nothing")
	)
	flag.Parse()
	all := rows()
	if err := validate(all); err != nil {
		return err
	}
	chosen, err := choose(all, *pattern, *full)
	if err != nil {
		return err
	}
	tools, err := newTools()
	if err != nil {
		return err
	}
	if *tables {
		known, err := readResults(tools.Root)
		if err != nil {
			return err
		}
		return writeTables(tools.Root, all, known)
	}
	z := &zoo{tools: tools, rows: chosen, results: newResults(), parallel: max(1, *parallel), logf: func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	}}
	if *fetch {
		return z.install(ctx)
	}
	if *apis {
		z.rows = nil
	}
	found, err := z.against(ctx, *target)
	if err != nil {
		return err
	}
	return settle(tools, *target, *update, all, z.rows, found)
}

func choose(all []Row, pattern string, full bool) ([]Row, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	var chosen []Row
	for _, r := range all {
		if re.MatchString(r.Name) && (full || pattern != "" || r.CI) {
			chosen = append(chosen, r)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("-rows %q: no row has such a name", pattern)
	}
	return chosen, nil
}

// against runs the zoo on a fresh server.
func (z *zoo) against(ctx context.Context, target string) (found results, err error) {
	dir, err := os.MkdirTemp(z.tools.Work, "zoo-server-")
	if err != nil {
		return found, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	server, err := newServer(ctx, target, peer.Options{
		Dir: dir,
		// The canonical records are older than any retention by default.
		Overrides: []string{"log.retention.ms=-1"},
	})
	if err != nil {
		return found, err
	}
	starting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := server.Start(starting); err != nil {
		return found, err
	}
	defer func() { err = errors.Join(err, server.Kill()) }()
	z.bootstrap = server.Addr()
	if found, err = z.run(ctx); err != nil {
		return found, err
	}
	if target == cluster || target == foreign {
		target = quire
	}
	found.apis[target], err = askAPIs(ctx, server.Addr())
	return found, err
}

func newServer(ctx context.Context, target string, opts peer.Options) (peer.Target, error) {
	switch target {
	case quire:
		return peer.NewQuire(ctx, opts)
	case cluster:
		return peer.NewCluster(ctx, opts)
	case foreign:
		return peer.NewForeign(ctx, opts)
	case "kafka-3.9.1":
		return peer.NewKafka3(ctx, opts)
	case "kafka-4.4.0":
		return peer.NewKafka(ctx, opts)
	default:
		return nil, fmt.Errorf("-target %s: want quire, cluster, foreign, kafka-3.9.1 or kafka-4.4.0", target)
	}
}

// settle compares what was found with what is committed, or writes it. What
// clients do with another server than Quire is only told.
func settle(tools *Tools, target string, update bool, all, ran []Row, found results) error {
	known, err := readResults(tools.Root)
	if err != nil {
		return err
	}
	switch target {
	case quire:
	case cluster, foreign:
		if update {
			return fmt.Errorf("-update: results are written from -target %s alone", quire)
		}
	default:
		only := newResults()
		only.apis = found.apis
		found, ran = only, nil
	}
	if update {
		merged := merge(known, found, ran, all)
		if err := os.WriteFile(filepath.Join(tools.Root, resultsFile), []byte(merged.String()), 0o644); err != nil {
			return err
		}
		return writeTables(tools.Root, all, merged)
	}
	different := differences(only(known, ran), found)
	for _, d := range different {
		fmt.Println(d)
	}
	if len(different) > 0 {
		return fmt.Errorf("%d results differ from %s; if they are meant, run with -update", len(different), resultsFile)
	}
	fmt.Printf("zoo: %d clients do what %s says\n", len(ran), resultsFile)
	return nil
}

// readResults returns what is committed.
func readResults(root string) (results, error) {
	text, err := os.ReadFile(filepath.Join(root, resultsFile))
	if err != nil {
		return results{}, err
	}
	known, err := parseResults(string(text))
	if err != nil {
		return known, fmt.Errorf("%s: %w", resultsFile, err)
	}
	return known, nil
}
