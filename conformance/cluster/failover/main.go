// Command failover gives several servers very many partitions that nobody writes,
// kills one of them, and measures how long it takes until the others serve all that
// it had: every slot is claimed, and a sample of its partitions is found, asked for
// its end and written. None of the logs may be opened before it is used.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/quirelog/quire/conformance/peer"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := runCommand(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "failover:", err)
		os.Exit(1)
	}
}

func runCommand(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("failover", flag.ExitOnError)
	p := &plan{}
	flags.IntVar(&p.nodes, "nodes", 3, "servers")
	flags.IntVar(&p.etcds, "etcd", 1, "members of etcd")
	flags.IntVar(&p.topics, "topics", 3000, "topics")
	flags.IntVar(&p.partitions, "partitions", 100, "partitions of each")
	flags.IntVar(&p.sample, "sample", 100, "partitions of the killed server that are used afterwards")
	flags.DurationVar(&p.lease, "lease", 3*time.Second, "time after which a silent server is taken for gone")
	flags.DurationVar(&p.bar, "bar", 3*time.Second, "fail if all of it takes longer than the lease and this; 0: do not look")
	flags.StringVar(&p.bin, "bin", "", "binary of the server (default: built from this tree)")
	dir := flags.String("dir", "", "folder for data and logs, kept afterwards (default: a new one, removed)")
	flags.Parse(args)
	if p.nodes < 2 || p.etcds < 1 || p.topics < 1 || p.partitions < 1 || p.sample < 1 {
		return errors.New("flags: need at least two servers, an etcd, a topic, a partition and a sample of one")
	}
	if p.dir, err = peer.DataDir(*dir, "failover"); err != nil {
		return err
	}
	if p.dir, err = filepath.Abs(p.dir); err != nil {
		return err
	}
	if *dir == "" {
		defer func() { err = errors.Join(err, os.RemoveAll(p.dir)) }()
	}
	return p.run(ctx)
}
