package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// member joins group at s, reads the ten records of orders, commits them and
// stays until leave.
func (s *instance) member(group string, opts ...kgo.Opt) (leave func()) {
	s.t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(s.address), kgo.ClientID("tester"), kgo.ConsumerGroup(group), kgo.ConsumeTopics("orders"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(),
	}, opts...)...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(client.Close)
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	for read := 0; read < 10; {
		fetches := client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			s.t.Fatalf("%s read %d records: %v, %v", group, read, err, fetches.Errors())
		}
		read += fetches.NumRecords()
	}
	if err := client.CommitUncommittedOffsets(ctx); err != nil {
		s.t.Fatal(err)
	}
	return client.Close
}

// fails runs a tool that has to fail, and returns what it said.
func (s *instance) fails(args ...string) string {
	s.t.Helper()
	status, out := s.tryTool("", args...)
	if status != 1 {
		s.t.Errorf("quire %q: status %d, want 1: %s", args, status, out)
	}
	return out
}

// TestGroups runs every verb of quire group against a server, with a group of
// each protocol, and moves both to another server.
func TestGroups(t *testing.T) {
	s := start(t, serveArgs(t.TempDir(), "--override", "group.initial.rebalance.delay.ms=0")...)
	s.tool("", "topic", "create", "orders", "-p", "2")
	s.tool("0\n1\n2\n3\n4\n5\n", "produce", "orders", "-p", "0")
	s.tool("6\n7\n8\n9\n", "produce", "orders", "-p", "1")
	leaveOld := s.member("old", kgo.InstanceID("i"))
	leaveNew := s.member("new", kgo.Balancers(kgo.StickyBalancer()), kgo.ServerSideBalancer())

	// While members are there.
	want := func(out string, parts ...string) {
		t.Helper()
		for _, part := range parts {
			if !strings.Contains(strings.Join(strings.Fields(out), " "), part) {
				t.Errorf("%q does not say %q", out, part)
			}
		}
	}
	want(s.tool("", "group", "list"), "GROUP TYPE PROTOCOL STATE new consumer consumer", "old classic consumer Stable")
	if out := s.tool("", "group", "list", "--type", "CONSUMER"); strings.Contains(out, "old") || !strings.Contains(out, "new") {
		t.Errorf("the consumer groups are %q", out)
	}
	want(s.tool("", "group", "describe", "--all-groups"),
		"GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG CONSUMER-ID HOST CLIENT-ID",
		"new orders 0 6 6 0 ", "new orders 1 4 4 0 ", "old orders 0 6 6 0 ", "old orders 1 4 4 0 ", " tester")
	want(s.tool("", "group", "describe", "--all-groups", "--members", "--verbose"), " tester 2 - orders:0,1 -", " i ", "orders:0,1 orders:0,1")
	want(s.tool("", "group", "describe", "--group", "old", "--group", "new", "--state", "--verbose"), "old "+s.address+" (", "classic - -", "uniform", "consumer 1 1")
	var members []groupDescription
	if err := json.Unmarshal([]byte(s.tool("", "group", "describe", "--group", "old", "--members", "--json")), &members); err != nil ||
		len(members) != 1 || len(members[0].Members) != 1 || members[0].Members[0].InstanceID != "i" {
		t.Errorf("members of old are %+v, %v", members, err)
	}
	exported := s.tool("", "group", "export", "--all-groups")
	want(exported, "note: group new has active members")
	for _, group := range []string{"old", "new"} {
		active := "quire: group " + group + " has active members: stop them first\n"
		for _, args := range [][]string{
			{"reset-offsets", "--topic", "orders", "--to-earliest", "--execute"},
			{"reset-offsets", "--topic", "orders", "--to-earliest"},
			{"delete"},
		} {
			if out := s.fails(append([]string{"group", args[0], "--group", group}, args[1:]...)...); out != active {
				t.Errorf("%s of an active group: %q", args[0], out)
			}
		}
		want(s.fails("group", "delete-offsets", "--group", group, "--topic", "orders:0"), "GROUP_SUBSCRIBED_TO_TOPIC")
		s.commitRefused(group)
	}
	leaveOld()
	leaveNew()
	// A static member stays when its client closes; the server is told that it went.
	s.removeStatic("old", "i")

	// Groups without members. A plan changes nothing.
	empty := s.tool("", "group", "export", "--group", "old", "--group", "new")
	want(empty, `"state": "Empty"`)
	reset := func(args ...string) string {
		return s.tool("", append([]string{"group", "reset-offsets", "--group", "old"}, args...)...)
	}
	want(reset("--topic", "orders:0", "--shift-by", "-4"), "GROUP TOPIC PARTITION CURRENT-OFFSET NEW-OFFSET old orders 0 6 2", "this is a plan")
	want(s.tool("", "group", "describe", "--group", "old"), "old orders 0 6 6 0", "group old has no active members")
	want(reset("--topic", "orders:0", "--shift-by", "-4", "--execute"), "old orders 0 6 2")
	want(reset("--all-topics", "--to-offset", "5", "--execute"), "old orders 0 2 5", "old orders 1 4 4", "5 is beyond the end, 4 is taken")
	want(reset("--all-topics", "--to-earliest", "--execute"), "old orders 0 5 0", "old orders 1 4 0")
	want(reset("--all-topics", "--to-datetime", "@0"), "old orders 0 0 0")
	want(reset("--all-topics", "--by-duration", "P1D"), "old orders 0 0 0")
	want(reset("--all-topics", "--by-duration", "0s"), "old orders 0 0 6")
	want(reset("--all-topics", "--to-current", "--json"), `"executed": false`, `"newOffset": 0`)
	lines := filepath.Join(t.TempDir(), "offsets.csv")
	if err := os.WriteFile(lines, []byte("old,orders,0,3\nnew,orders,1,2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want(s.tool("", "group", "reset-offsets", "--all-groups", "--from-file", lines, "--execute"), "new orders 1 4 2", "old orders 0 0 3")
	want(s.tool("", "group", "describe", "--all-groups"), "new orders 0 6 6 0", "new orders 1 2 4 2", "old orders 0 3 6 3", "old orders 1 0 4 4")
	want(s.fails("group", "reset-offsets", "--group", "old", "--topic", "absent", "--to-latest"), "topic absent does not exist")
	want(s.fails("group", "describe", "--group", "absent", "--group", "old"), "group absent does not exist", "old orders 0")

	// Offsets go one by one, and only where they are.
	want(s.fails("group", "delete-offsets", "--group", "old", "--topic", "orders:0,7"), "group old has committed nothing for topic orders partition 7")
	want(s.fails("group", "delete-offsets", "--group", "old", "--topic", "absent"), "group old has committed nothing for topic absent")
	want(s.tool("", "group", "delete-offsets", "--group", "old", "--topic", "orders:1"), "GROUP TOPIC PARTITION DELETED-OFFSET old orders 1 0")
	if out := s.tool("", "group", "describe", "--group", "old"); strings.Contains(strings.Join(strings.Fields(out), " "), "old orders 1") {
		t.Errorf("a deleted offset is still there: %q", out)
	}

	// Back to what was exported, on this server and on another without the second partition.
	file := filepath.Join(t.TempDir(), "groups.json")
	if err := os.WriteFile(file, []byte(empty), 0o600); err != nil {
		t.Fatal(err)
	}
	want(s.tool("", "group", "import", file, "--dry-run"), "old orders 0 3 6", "would import 4 offsets of 2 groups")
	want(s.tool("", "group", "describe", "--group", "old"), "old orders 0 3 6 3")
	want(s.tool("", "group", "delete", "--all-groups"), "deleted new deleted old")
	if out := s.tool("", "group", "list"); strings.Contains(out, "old") {
		t.Errorf("after deleting there is %q", out)
	}
	if out := s.fails("group", "delete", "--group", "old"); out != "quire: group old does not exist\n" {
		t.Errorf("deleting again: %q", out)
	}
	want(s.tool("", "group", "import", file, "--group", "old"), "old orders 0 - 6", "imported 2 offsets of 1 groups; skipped 0, failed 0")
	want(s.tool("", "group", "describe", "--group", "old"), "old orders 0 6 6 0", "old orders 1 4 4 0")

	other := start(t, serveArgs(t.TempDir(), "--override", "group.initial.rebalance.delay.ms=0")...)
	other.tool("", "topic", "create", "orders", "-p", "1")
	other.tool("", "topic", "create", "more", "-p", "1")
	want(other.tool("", "group", "import", file), "imported 2 offsets of 2 groups; skipped 2, failed 0", "group old: topic orders has no partition 1 here",
		"offset 6 is not in what it holds here, 0 to 0")
	other.tool("0\n1\n2\n3\n4\n5\n6\n", "produce", "orders")
	want(other.tool("", "group", "describe", "--all-groups"), "old orders 0 6 7 1", "new orders 0 6 7 1")

	s.stop()
	other.stop()
}

// TestImportActive: one group with members does not keep the others from being
// imported, and makes the exit status 1.
func TestImportActive(t *testing.T) {
	s := start(t, serveArgs(t.TempDir(), "--override", "group.initial.rebalance.delay.ms=0")...)
	s.tool("", "topic", "create", "orders", "-p", "1")
	s.tool("0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n", "produce", "orders")
	s.member("busy")
	partitions := `"topics":[{"topic":"orders","partitions":[{"partition":0,"offset":3}]}]}`
	status, out := s.tryTool(fileOf(`{"group":"busy",`+partitions+`,{"group":"idle",`+partitions), "group", "import", "-")
	for _, want := range []string{"quire: group busy has active members: stop them first\n", "imported 1 offsets of 1 groups; skipped 0, failed 1\n"} {
		if status != 1 || !strings.Contains(out, want) {
			t.Errorf("status %d, %q; want %q", status, out, want)
		}
	}
	if out := s.tool("", "group", "describe", "--all-groups", "--json"); !strings.Contains(out, `"currentOffset": 3`) || !strings.Contains(out, `"currentOffset": 10`) {
		t.Errorf("afterwards: %s", out)
	}
	s.stop()
}

// commitRefused commits past the check of the tools, as happens when a member
// joins between the check and the commit.
func (s *instance) commitRefused(group string) {
	s.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(s.address))
	if err != nil {
		s.t.Fatal(err)
	}
	defer client.Close()
	c := &groupClient{ctx: s.t.Context(), timeout: time.Minute, client: client, admin: kadm.NewClient(client)}
	plan := &offsetChanges{Offsets: []offsetChange{
		{Group: group, Topic: "orders", Partition: 0, New: 1, leaderEpoch: -1},
		{Group: group, Topic: "orders", Partition: 1, New: 1, leaderEpoch: -1},
	}}
	plan.execute(c)
	if got, want := fmt.Sprint(plan.Offsets, plan.Failed), fmt.Sprintf("[] [{%s group %[1]s has active members: stop them first}]", group); got != want {
		s.t.Errorf("a late commit: %s, want %s", got, want)
	}
}

func (s *instance) removeStatic(group, instance string) {
	s.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(s.address))
	if err != nil {
		s.t.Fatal(err)
	}
	defer client.Close()
	left, err := kadm.NewClient(client).LeaveGroup(s.t.Context(), kadm.LeaveGroup(group).InstanceIDs(instance))
	if err == nil {
		err = left.Error()
	}
	if err != nil && !errors.Is(err, kerr.UnknownMemberID) {
		s.t.Fatal(err)
	}
}
