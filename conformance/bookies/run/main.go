// Command run starts what Quire needs outside one machine, on this one: etcd,
// bookies with AutoRecovery, and Quire in front. It fetches and builds what is
// missing, says where to connect, and ends everything on Ctrl-C. Its data is new
// at every start.
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
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bookies:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("bookies", flag.ExitOnError)
	var overrides []string
	var (
		count   = flags.Int("bookies", 3, "bookies")
		quorums = flags.String("quorums", "3/3/2", "ensemble size, write quorum and ack quorum of new ledgers")
		listen  = flags.String("listen", "127.0.0.1:9092", "address for Kafka clients")
		dir     = flags.String("dir", "", "folder for data, logs and configurations, kept afterwards (default: a new one, removed afterwards)")
	)
	flags.Func("override", "Quire's config key=value; may be repeated", func(s string) error { overrides = append(overrides, s); return nil })
	flags.Parse(args)
	var q [3]int
	if _, err := fmt.Sscanf(*quorums, "%d/%d/%d", &q[0], &q[1], &q[2]); err != nil {
		return fmt.Errorf("-quorums %s: want three numbers like 3/3/2: %w", *quorums, err)
	}
	if *dir != "" {
		if entries, err := os.ReadDir(*dir); err == nil && len(entries) > 0 {
			return fmt.Errorf("-dir %s: not empty; bookies keep their ports, which are new at every start", *dir)
		}
	}
	data, err := peer.DataDir(*dir, "bookies")
	if err != nil {
		return err
	}
	if data, err = filepath.Abs(data); err != nil {
		return err
	}
	if *dir == "" {
		defer func() { err = errors.Join(err, os.RemoveAll(data)) }()
	}

	say("fetching and building what is missing")
	cluster, err := peer.NewBookKeeper(ctx, peer.BookKeeperOptions{Dir: data, Bookies: *count, AutoRecovery: true})
	if err != nil {
		return err
	}
	quire, err := peer.NewQuire(ctx, peer.Options{
		Dir: filepath.Join(data, "quire"), Addr: *listen, Overrides: append(peer.OnBookies(cluster, q), overrides...),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Kill()) }()
	begun := time.Now()
	if err := cluster.Start(ctx); err != nil {
		return err
	}
	const unregistered = time.Minute
	supervisor := cluster.Supervise(unregistered, func(format string, args ...any) { say(format, args...) })
	defer supervisor.Stop()
	if err := quire.Start(ctx); err != nil {
		return err
	}
	defer func() {
		stopCtx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		err = errors.Join(err, quire.Stop(stopCtx))
	}()
	var ids []string
	for _, b := range cluster.Bookies {
		ids = append(ids, b.ID)
	}
	say("up after %s", time.Since(begun).Round(100*time.Millisecond))
	say("Kafka clients  %s", quire.Addr())
	say("metrics        http://%s/metrics", quire.AdminAddr())
	say("etcd           %s", cluster.Etcd.Endpoints())
	say("bookies        %s", strings.Join(ids, " "))
	say("data and logs  %s", data)
	say("Ctrl-C ends all of it")
	select {
	case <-ctx.Done():
		return nil
	case <-quire.Process().Exited():
		return fmt.Errorf("quire ended with status %d\n%s", quire.Process().ExitCode(), quire.Process().LogTail(20))
	}
}

func say(format string, args ...any) { fmt.Printf("bookies: "+format+"\n", args...) }
