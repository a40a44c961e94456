// Command cluster runs several real servers behind one real HAProxy, over a real
// etcd and real bookies, each a process with a network of its own where this user
// may make networks. It loads them with producers, consumers, groups and topic
// changes, does harm of many kinds while that goes on, and then proves from what
// the clients were told that nothing acknowledged is lost, doubled or changed, that
// no group was disturbed, and that nothing was answered by a server that had lost
// the right to. The report is a summary in Markdown, the figures in JSON, and a
// picture of the faults and of what they cost.
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
	"syscall"
	"time"

	"github.com/quirelog/quire/conformance/peer"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	status, err := runCommand(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		status = max(status, 1)
	}
	os.Exit(status)
}

func runCommand(ctx context.Context, args []string) (status int, err error) {
	flags := flag.NewFlagSet("cluster", flag.ExitOnError)
	p := &plan{logf: func(format string, args ...any) { fmt.Printf(format+"\n", args...) }}
	flags.IntVar(&p.nodes, "nodes", 3, "servers")
	flags.IntVar(&p.etcds, "etcd", 3, "members of etcd")
	flags.IntVar(&p.bookies, "bookies", 4, "bookies")
	flags.DurationVar(&p.duration, "duration", time.Minute, "how long to do harm")
	flags.DurationVar(&p.holdMax, "hold", 8*time.Second, "longest time for which a fault lasts")
	flags.DurationVar(&p.etcdAway, "etcd-away", 20*time.Second, "how long the faults of all of etcd but kill-etcds last")
	flags.DurationVar(&p.minGap, "min-gap", 500*time.Millisecond, "shortest time from the end of a fault to the next one")
	flags.DurationVar(&p.maxGap, "max-gap", 4*time.Second, "longest such time")
	flags.IntVar(&p.parallel, "parallel", 1, "faults at a time, each of other processes")
	chosen := flags.String("nemeses", "all", "faults, with commas; all, or a name from -list; repeat one to make it more frequent")
	list := flags.Bool("list", false, "list the faults and end")
	inTurn := flags.Bool("in-turn", false, "take the faults in the order of -nemeses instead of at random")
	producers := flags.String("producers", "franz-go,librdkafka,franz-go-plain,librdkafka-plain", "one producer for each library, with commas; also java-4.3.1, java-2.8.2, java-0.10.2.2")
	flags.IntVar(&p.topics, "topics", 2, "topics that are written all the time")
	flags.IntVar(&p.partitions, "partitions", 6, "partitions of each")
	flags.IntVar(&p.perSecond, "rate", 150, "records per second of each producer")
	flags.IntVar(&p.segmentBytes, "segment-bytes", 1<<20, "segment.bytes of every other topic, so that ledgers roll; 0 leaves it")
	flags.IntVar(&p.groups, "groups", 4, "consumer groups; 0: none")
	flags.StringVar(&p.groupKinds, "group-kinds", "franz-range,rd-cooperative,franz-consumer,mixed-consumer", "kinds of groups, see groupfaults")
	flags.DurationVar(&p.session, "session", 45*time.Second, "session timeout of members of groups")
	flags.BoolVar(&p.churn, "churn", true, "make, grow, change and delete topics meanwhile")
	flags.DurationVar(&p.lease, "lease", 3*time.Second, "time after which a silent server is taken for gone")
	flags.Uint64Var(&p.seed, "seed", uint64(time.Now().UnixNano()), "of what is done when")
	flags.StringVar(&p.bin, "bin", "", "binary of the server (default: built from this tree)")
	plain := flags.Bool("loopback", false, "leave out networks of their own, and the faults that need them")
	dir := flags.String("dir", "", "folder for data, logs and the report, kept afterwards (default: a new one, removed after a run without findings)")
	report := flags.String("report", "", "folder for a copy of the report")
	maxStall := flags.Duration("max-stall", 0, "fail if a partition takes no writes for longer; 0: do not look")
	undisturbed := flags.Bool("undisturbed", false, "fail if a produce or fetch that is sent only once fails, or a commit for another reason than that there is no coordinator")
	flags.Func("override", "server config key=value; may be repeated", func(s string) error { p.overrides = append(p.overrides, s); return nil })
	flags.Func("env", "KEY=value for the servers' environment; may be repeated", func(s string) error { p.env = append(p.env, s); return nil })
	flags.Parse(args)
	if *list {
		for _, n := range nemeses {
			fmt.Printf("%-18s %s\n", n.name, n.what)
		}
		return 0, nil
	}
	if p.chosen, err = choose(*chosen); err != nil {
		return 1, err
	}
	p.inTurn = *inTurn
	p.producers = strings.Split(*producers, ",")
	if p.nodes < 1 || p.etcds < 1 || p.bookies < 1 || p.topics < 1 || p.partitions < 1 || p.perSecond < 1 || p.parallel < 1 || p.minGap > p.maxGap {
		return 1, errors.New("flags: need at least one server, etcd, bookie, topic, partition, record per second and fault at a time, and min-gap ≤ max-gap")
	}
	if !peer.Isolated() {
		if err := p.prepare(ctx); err != nil {
			return 1, err
		}
		if !*plain {
			err := peer.CanIsolate()
			if err == nil {
				return peer.Isolate()
			}
			if os.Getenv("CI") == "true" {
				return 1, err
			}
			fmt.Printf("NO PARTITIONS: %v; all of it runs on the loopback interface\n", err)
		}
	}
	if p.dir, err = peer.DataDir(*dir, "cluster"); err != nil {
		return 1, err
	}
	if p.dir, err = filepath.Abs(p.dir); err != nil {
		return 1, err
	}
	fmt.Printf("seed %d, data in %s\n", p.seed, p.dir)
	res, err := p.run(ctx)
	if res != nil {
		err = errors.Join(err, res.write(p.dir))
		if *report != "" {
			err = errors.Join(err, res.write(*report))
		}
		fmt.Println(res.markdown())
	}
	if err == nil {
		err = res.verdict(*maxStall, *undisturbed)
	}
	if err != nil {
		return 1, fmt.Errorf("%w\ndata, logs and report: %s", err, p.dir)
	}
	if *dir == "" {
		return 0, os.RemoveAll(p.dir)
	}
	return 0, nil
}
