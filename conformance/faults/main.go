// Command faults ends a real server again and again under idempotent load
// from two client libraries, restarts it on the same folder and port, and
// then proves from what the clients were told that nothing acknowledged is
// lost, duplicated or reordered. It can break or fill the server's disk instead,
// or end and stop the bookies and the etcd below it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/quirelog/quire/conformance/peer"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := runCommand(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
}

func runCommand(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("faults", flag.ExitOnError)
	var overrides []string
	var (
		rounds       = flags.Int("kills", 100, "how often the server is ended, or its disk is harmed")
		terminate    = flags.Bool("term", false, "end it with SIGTERM and demand exit status 0 within 10 s, instead of SIGKILL")
		minUp        = flags.Duration("min-up", 200*time.Millisecond, "shortest time from the first acknowledgement to the end of a round")
		maxUp        = flags.Duration("max-up", 3*time.Second, "longest such time")
		clients      = flags.String("clients", "franz-go,librdkafka,franz-go,librdkafka", "one producer for each name")
		topics       = flags.Int("topics", 3, "topics")
		partitions   = flags.Int("partitions", 4, "partitions of each topic")
		perSecond    = flags.Int("rate", 2000, "records per second of each producer")
		segmentBytes = flags.Int("segment-bytes", 1<<20, "segment.bytes of every other topic, so that ledgers roll; 0 leaves it")
		diskErrors   = flags.Bool("disk-errors", false, "let writes and syncs of the running server fail with EIO, instead of ending it")
		fullDisk     = flags.Bool("full-disk", false, "fill the file system of -dir and empty it again, instead of ending the server: use a small one")
		onBookies    = flags.Int("bookies", 0, "keep the ledgers on so many real bookies, with AutoRecovery, and harm them and their etcd instead of ending the server alone")
		quorums      = flags.String("quorums", "3/3/2", "with -bookies: ensemble size, write quorum and ack quorum")
		only         = flags.String("faults", "", "with -bookies: take only the faults whose names match this regular expression, in turn")
		smallJournal = flags.Bool("small-journal", false, "give Quire a journal so small that it rolls and is trimmed all the time")
		seed         = flags.Uint64("seed", uint64(time.Now().UnixNano()), "of the moments when the server is ended")
		dir          = flags.String("dir", "", "data folder, kept afterwards (default: a new one, removed after a run without findings)")
	)
	flags.Func("override", "broker config key=value; may be repeated", func(s string) error { overrides = append(overrides, s); return nil })
	flags.Parse(args)
	if *minUp > *maxUp || *rounds < 0 || *topics < 1 || *partitions < 1 || *perSecond < 1 {
		return errors.New("flags: need min-up ≤ max-up, kills ≥ 0, and at least one topic, partition and record per second")
	}

	data, err := peer.DataDir(*dir, "faults")
	if err != nil {
		return err
	}
	if *smallJournal {
		overrides = append(overrides, smallJournalOverrides...)
	}
	options := peer.Options{Dir: data}
	var broken *disk
	if *diskErrors {
		broken = &disk{}
		options.Intercept = broken.decide
	}
	if *fullDisk {
		overrides = append(overrides, fullDiskOverrides...)
	}
	options.Overrides = overrides
	var below *bookies
	if *onBookies > 0 {
		if below, err = newBookies(ctx, filepath.Join(data, "bookkeeper"), *onBookies, *quorums, *only); err != nil {
			return err
		}
		options.Overrides = append(options.Overrides, below.overrides()...)
	}
	server, err := peer.NewServer(ctx, options)
	if err != nil {
		return err
	}
	p := &plan{
		server: server, rounds: *rounds, terminate: *terminate, minUp: *minUp, maxUp: *maxUp,
		libraries: strings.Split(*clients, ","), topics: *topics, partitions: *partitions, perSecond: *perSecond,
		segmentBytes: *segmentBytes, disk: broken, fullDisk: *fullDisk, bookies: below, seed: *seed,
		logf: func(format string, args ...any) { fmt.Printf(format+"\n", args...) },
	}
	fmt.Printf("%s, seed %d, data in %s\n", server.Name(), *seed, data)
	res, err := p.run(ctx)
	if err != nil {
		return fmt.Errorf("%w\nserver log: %s", err, filepath.Join(data, "server.log"))
	}
	fmt.Println(res.summary())
	if err := res.verdict(); err != nil {
		return fmt.Errorf("%w\ndata and server log: %s", err, data)
	}
	if *dir == "" {
		return os.RemoveAll(data)
	}
	return nil
}

func (r *result) summary() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d faults after serving, %d kills during start-up\n", r.Rounds, r.StartupRounds)
	fmt.Fprintf(&b, "%d records sent, %d acknowledged, %d read back twice, %d seen by the tail reader, %d given up by a client\n",
		r.Sends, r.Acks, r.Records, r.TailRecords, r.Failures)
	if n := len(r.Recovery); n > 0 {
		fmt.Fprintf(&b, "process start to next acknowledgement: median %s, longest %s\n",
			r.Recovery[n/2].Round(time.Millisecond), r.Recovery[n-1].Round(time.Millisecond))
	}
	for _, s := range r.Stalls {
		fmt.Fprintf(&b, "%s: the slowest partition stalled %s, %s after it\n", s.what, s.longest.Round(time.Millisecond), s.after.Round(time.Millisecond))
	}
	kinds := map[string]int{}
	for _, v := range r.Violations {
		kinds[string(v.Kind)]++
	}
	fmt.Fprintf(&b, "%d lost, %d duplicated, %d reordered, %d violations in all %v",
		kinds["lost"], kinds["duplicated"], kinds["reordered"], len(r.Violations), kinds)
	return b.String()
}

// verdict is nil only for a run that proves something and found nothing.
func (r *result) verdict() error {
	const shown = 20
	var failed []error
	for i, v := range r.Violations {
		if i == shown {
			failed = append(failed, fmt.Errorf("and %d more violations", len(r.Violations)-shown))
			break
		}
		failed = append(failed, errors.New(v.String()))
	}
	if r.Failures > 0 {
		failed = append(failed, fmt.Errorf("%d sends were given up by their client, first: %w", r.Failures, r.FirstFailure))
	}
	if r.Acks == 0 || r.TailRecords == 0 {
		failed = append(failed, fmt.Errorf("nothing was shown: %d records acknowledged, %d seen by the tail reader", r.Acks, r.TailRecords))
	}
	return errors.Join(failed...)
}

// smallJournalOverrides make the journal's files small enough that every round
// rolls and trims it.
var smallJournalOverrides = []string{"journal.file.bytes=1048576"}
