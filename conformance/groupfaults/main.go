// Command groupfaults runs consumer groups of several client libraries against a
// real server and a real etcd, kills the one and kills and stops the other, lets
// members come, leave and fall silent, and then proves from what the clients
// were told and from what passed on the wire that no acknowledged commit is
// lost, no partition was shared and nobody was rebalanced for nothing.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/quirelog/quire/conformance/peer"
)

// kinds are the groups' members by name: libraries and assignors, alone and
// mixed.
var kinds = map[string][]flavor{
	"franz-range":       {{"franz-go", "range"}},
	"franz-cooperative": {{"franz-go", "cooperative-sticky"}},
	"franz-consumer":    {{"franz-go", "consumer"}},
	"rd-range":          {{"librdkafka", "range"}},
	"rd-cooperative":    {{"librdkafka", "cooperative-sticky"}},
	"rd-consumer":       {{"librdkafka", "consumer"}},
	"mixed-range":       {{"franz-go", "range"}, {"librdkafka", "range"}},
	"mixed-consumer":    {{"franz-go", "consumer"}, {"librdkafka", "consumer"}},
	"java3-range":       {{"java-3.9.1", "range"}},
	"java3-cooperative": {{"java-3.9.1", "cooperative-sticky"}},
	"java4-range":       {{"java-4.3.1", "range"}},
	"java4-cooperative": {{"java-4.3.1", "cooperative-sticky"}},
	"java4-consumer":    {{"java-4.3.1", "consumer"}},
	"every-range":       {{"franz-go", "range"}, {"librdkafka", "range"}, {"java-3.9.1", "range"}, {"java-4.3.1", "range"}},
	"every-consumer":    {{"franz-go", "consumer"}, {"librdkafka", "consumer"}, {"java-4.3.1", "consumer"}},
}

const allKinds = "franz-range,rd-range,mixed-range,franz-cooperative,rd-cooperative,franz-consumer,rd-consumer,mixed-consumer"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := runCommand(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "groupfaults:", err)
		os.Exit(1)
	}
}

func runCommand(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("groupfaults", flag.ExitOnError)
	p := &plan{logf: func(format string, args ...any) { fmt.Printf(format+"\n", args...) }}
	flags.IntVar(&p.groups, "groups", 24, "groups")
	flags.IntVar(&p.members, "members", 3, "members of each group at the start")
	flags.IntVar(&p.starting, "starting", 0, "groups whose members are started at a time, the next when these have come together; 0: all at once")
	flags.IntVar(&p.changing, "changing", 16, "groups whose members come, leave and fall silent")
	partitions := flags.Int("partitions", 8, "partitions that each group shares; more than it has members")
	flags.IntVar(&p.perSecond, "rate", 5, "records per second to each partition")
	flags.IntVar(&p.etcdMembers, "etcd", 3, "members of the etcd cluster; 0: etcd inside the server")
	flags.IntVar(&p.leaves, "leaves", 1, "weight of leaving in order among the ways in which members go")
	flags.IntVar(&p.silent, "silences", 1, "weight of falling silent")
	flags.DurationVar(&p.settle, "settle", settleTimeout, "time in which all groups must come to rest when nothing is done to them")
	flags.DurationVar(&p.duration, "for", 5*time.Minute, "how long to do harm")
	flags.DurationVar(&p.minGap, "min-gap", time.Second, "shortest time between two faults")
	flags.DurationVar(&p.maxGap, "max-gap", 8*time.Second, "longest such time")
	flags.IntVar(&p.kills, "kills", 2, "weight of kill -9 of the server among the faults")
	flags.IntVar(&p.pauses, "pauses", 1, "weight of SIGSTOP and SIGCONT of an etcd member")
	flags.IntVar(&p.etcdKills, "etcd-kills", 1, "weight of kill -9 of an etcd member")
	flags.StringVar(&p.bootstrap, "bootstrap", "", "do no harm to servers of one's own: lead the members to the servers at this address, until standard input ends")
	flags.StringVar(&p.listen, "listen", "", "with -bootstrap: the address that those servers name to the members, host:port; it is listened on here")
	flags.StringVar(&p.logs, "library-logs", "", "folder for what librdkafka's members say of themselves")
	flags.Func("observe", "with -bootstrap: the address of one server, asked for committed offsets past what balances the load; may be repeated", func(s string) error { p.observed = append(p.observed, s); return nil })
	report := flags.String("report", "", "file for the result in JSON")
	flags.DurationVar(&p.timing.session, "session", 6*time.Second, "session timeout")
	flags.DurationVar(&p.timing.heartbeat, "heartbeat", 500*time.Millisecond, "heartbeat interval")
	flags.DurationVar(&p.timing.commit, "commit", 300*time.Millisecond, "time between two commits of a member")
	flags.DurationVar(&p.timing.redial, "reconnect", redialMax, "longest time that a library waits before it connects again")
	recovery := flags.Duration("recovery", 0, "fail if members of groups at rest receive nothing for longer after a restart; 0: do not look")
	flags.Uint64Var(&p.seed, "seed", uint64(time.Now().UnixNano()), "of what is done when")
	chosen := flags.String("kinds", allKinds, "kinds of groups, taken in turn")
	dir := flags.String("dir", "", "folder of the servers, kept afterwards (default: a new one, removed after a run without findings)")
	flags.Func("override", "broker config key=value; may be repeated", func(s string) error { p.overrides = append(p.overrides, s); return nil })
	flags.Parse(args)
	p.partitions = int32(*partitions)
	for _, name := range strings.Split(*chosen, ",") {
		f, ok := kinds[name]
		if !ok {
			return fmt.Errorf("unknown kind of group %q, there are %s", name, strings.Join(slices.Sorted(maps.Keys(kinds)), ", "))
		}
		p.flavors = append(p.flavors, f)
	}
	if p.groups < 1 || p.members < 1 || p.changing > p.groups || *partitions < p.members+1 || p.perSecond < 1 || p.leaves+p.silent < 1 || p.minGap > p.maxGap {
		return errors.New("flags: need at least one group, member and record per second, more partitions than members, a way for members to go, min-gap ≤ max-gap, and no more changing groups than groups")
	}
	var err error
	if p.dir, err = peer.DataDir(*dir, "groupfaults"); err != nil {
		return err
	}
	fmt.Printf("seed %d, data in %s\n", p.seed, p.dir)
	res, err := p.run(ctx)
	if err != nil {
		return fmt.Errorf("%w\nserver log: %s", err, filepath.Join(p.dir, "server", "server.log"))
	}
	fmt.Println(res.summary())
	if *report != "" {
		if err := res.write(*report); err != nil {
			return err
		}
	}
	if err := res.verdict(*recovery); err != nil {
		return fmt.Errorf("%w\ndata and logs: %s", err, p.dir)
	}
	if *dir == "" {
		return os.RemoveAll(p.dir)
	}
	return nil
}

func (r *result) summary() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: killed %d times, etcd members stopped %d and killed %d times\n", r.Server, r.Kills, r.Pauses, r.EtcdKills)
	fmt.Fprintf(&b, "%d members came, %d left, %d fell silent; %d assignments\n", r.Came, r.Left, r.Silenced, r.Told)
	fmt.Fprintf(&b, "%d records received; offsets of %d partitions committed, %d acknowledged, %d read back\n", r.Records, r.Commits, r.Acked, r.Reads)
	for _, m := range r.Mute {
		fmt.Fprintf(&b, "a library came to a standstill by itself: %s\n", m)
	}
	if r.Unsent > 0 {
		fmt.Fprintf(&b, "offsets of %d partitions more were acknowledged by a library and not by the server\n", r.Unsent)
	}
	if n := len(r.Recovery); n > 0 {
		fmt.Fprintf(&b, "server ready to the next record of a member at rest: %d times, the longest that of %s\n", n, r.Recovery[n-1].member)
		for _, library := range slices.Sorted(maps.Keys(r.ByLibrary)) {
			all := r.ByLibrary[library]
			n := len(all)
			fmt.Fprintf(&b, "  %-11s median %s, 99%% %s, longest %s (%d)\n", library,
				all[n/2].Round(time.Millisecond), all[n*99/100].Round(time.Millisecond), all[n-1].Round(time.Millisecond), n)
		}
		if u := r.Recovering; u.time > 0 {
			fmt.Fprintf(&b, "meanwhile, from kill to the last member's record, %s in all, processors were used by %s\n", u.time.Round(time.Millisecond), u)
		}
	}
	if r.UserErrors != "" {
		fmt.Fprintf(&b, "errors that users saw:\n%s", r.UserErrors)
	}
	found := map[string]int{}
	for _, v := range r.Violations {
		found[string(v.Rule)]++
	}
	fmt.Fprintf(&b, "%d violations %v", len(r.Violations), found)
	return b.String()
}

// write writes what the caller of the command wants to know, in JSON.
func (r *result) write(file string) error {
	violations := []string{}
	for _, v := range r.Violations {
		violations = append(violations, v.String())
	}
	text, err := json.MarshalIndent(map[string]any{
		"Came": r.Came, "Left": r.Left, "Silenced": r.Silenced, "Mute": r.Mute, "Commits": r.Commits, "Acked": r.Acked, "Reads": r.Reads,
		"Records": r.Records, "Told": r.Told, "Violations": violations, "Fatal": r.Fatal, "UserErrors": r.UserErrors,
	}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

// verdict is nil only for a run that proves something and found nothing.
func (r *result) verdict(recovery time.Duration) error {
	const shown = 30
	var failed []error
	for i, v := range r.Violations {
		if i == shown {
			failed = append(failed, fmt.Errorf("and %d more violations", len(r.Violations)-shown))
			break
		}
		failed = append(failed, errors.New(v.String()))
	}
	for _, f := range r.Fatal {
		failed = append(failed, errors.New(f))
	}
	if r.Acked == 0 || r.Reads == 0 || r.Told == 0 || r.Records == 0 {
		failed = append(failed, fmt.Errorf("nothing was shown: %d commits acknowledged, %d offsets read, %d assignments, %d records", r.Acked, r.Reads, r.Told, r.Records))
	}
	if recovery > 0 && len(r.Recovery) > 0 {
		if longest := r.Recovery[len(r.Recovery)-1]; longest.took > recovery {
			failed = append(failed, fmt.Errorf("%s, at rest, received nothing for %s after a restart, want %s at most", longest.member, longest.took.Round(time.Millisecond), recovery))
		}
	}
	return errors.Join(failed...)
}
